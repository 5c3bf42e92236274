//! A server of language models, by OpenAI's API, inside one hard budget of bytes.
//!
//! Every request may name its cache and a cap of its own; all caches together stay within [`Settings::kv_memory`]. One thread owns
//! the model and runs all answers together; everything else is asynchronous and waits for it. The way of a request is told in
//! `engine`, the ways in are listed in `http`, and what is said is written down in `api`, once.
#![warn(missing_docs)]

mod api;
mod engine;
mod http;
mod metrics;
mod settings;
mod tools;

pub use settings::Settings;

use engine::{Limits, SessionFolder, Worker};
use http::App;
use sketchkv_model::{Model, ModelError};
use std::{fs, io, net::SocketAddr, path::PathBuf, sync::Arc, sync::OnceLock, thread};
use tokio::sync::Semaphore;

/// Why a server cannot begin. Every message is one line and says the way out.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its address is taken, or not this machine's.
    #[error("cannot listen at {address}: {error}; choose another --host or --port")]
    Bind {
        /// Where it was to listen.
        address: SocketAddr,
        /// The operating system's reason.
        error: io::Error,
    },
    /// The folder of the sessions cannot be used.
    #[error("cannot keep sessions in {folder}: {error}; name another folder", folder = folder.display())]
    Sessions {
        /// The folder.
        folder: PathBuf,
        /// The operating system's reason.
        error: io::Error,
    },
    /// The cache of requests that name none does not fit the model or the budget.
    #[error("the server's cache: {0}")]
    Cache(#[from] sketchkv_cache::CacheError),
    /// There can be no threads.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// The model's file is gone, or a setting does not fit it.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Serves `model` until `stop`; `ready` hears where.
///
/// # Errors
/// When it cannot begin.
pub fn serve(
    model: Model,
    settings: Settings,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let model = Arc::new(model);
    let context = settings.context.unwrap_or(model.config().context);
    model.check_position(context)?;
    let floor =
        sketchkv_cache::Cache::new(model.cache_shape(), &api::elastic(settings.kv.clone()), 0)?.floor_bytes();
    if floor > settings.kv_memory {
        let message = format!(
            "`{}` needs {floor} bytes on this model, and all caches together have {} (--kv-memory)",
            settings.kv, settings.kv_memory
        );
        return Err(ModelError::Argument(message).into());
    }
    let folder =
        settings.sessions.clone().map(|path| session_folder(path, settings.sessions_limit)).transpose()?;
    let metrics = Arc::new(metrics::Metrics::new());
    let limits = Limits {
        kv_memory: settings.kv_memory,
        parallel: settings.parallel,
        queue: settings.queue,
        context,
        chunk: settings.chunk.clamp(1, model.chunk()),
        guesses: settings.guesses,
    };
    let (engine, thread) = Worker::start(model.clone(), limits, folder, metrics.clone())?;
    let tools = tools::ToolFormat::learn(model.tokenizer());
    let about = api::ModelObject {
        id: model.config().name.clone(),
        object: "model",
        created: api::now(),
        owned_by: "sketchkv",
        context,
        kv_bytes_per_token: model.cache_shape().layers.iter().map(|layer| layer.f16_bytes_per_token()).sum(),
        chat: model.tokenizer().has_chat_template(),
        tools: tools.is_some(),
    };
    let desks = thread::available_parallelism().map_or(1, usize::from);
    let app = Arc::new(App {
        model,
        about,
        settings,
        engine,
        metrics,
        tools,
        grammars: OnceLock::new(),
        desks: Semaphore::new(desks),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(ServeError::Thread)?;
    let served = runtime.block_on(http::serve(app.clone(), ready, stop));
    if served.is_err() {
        let _ = app.engine.tell(engine::Command::Stop(std::time::Instant::now()));
    }
    // The thread ends when all sessions are written.
    let _ = thread.join();
    runtime.shutdown_background();
    served
}

/// The folder of the sessions, there and writable.
fn session_folder(path: PathBuf, limit: u64) -> Result<SessionFolder, ServeError> {
    let tried = fs::create_dir_all(&path).and_then(|()| {
        let probe = path.join(format!(".probe-{}", std::process::id()));
        fs::write(&probe, b"").and_then(|()| fs::remove_file(&probe))
    });
    tried.map_err(|error| ServeError::Sessions { folder: path.clone(), error })?;
    Ok(SessionFolder { path, limit })
}
