use crate::{
    arguments::{self, ModelName, Weights},
    config,
    failure::usage,
    output,
};
use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Deserialize;
use serde_json::json;
use sketchkv_cache::{Cap, Spec};
use sketchkv_eval::read_input_text;
use sketchkv_server::{Settings, serve};
use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};
use tokio::sync::oneshot;

/// Serve a model by OpenAI's API, all caches within one budget of bytes.
#[derive(clap::Args)]
#[command(after_help = "\
curl http://127.0.0.1:8080/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'
asks it; the page at http://127.0.0.1:8080/ talks with it. Each request may name its cache (`kv`), a cap in bytes
(`kv_bytes`) and a session to go on with (`session`). Ctrl-C or SIGTERM ends it in good order.

Every option can stand in the file of --config under its name, as `kv-memory = \"2GiB\"`; the command line goes first.
$SKETCHKV_API_KEY is a key, too.")]
pub(crate) struct Arguments {
    /// A file of settings in TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    /// Print where it listens as one JSON document, when it does.
    #[arg(long)]
    json: bool,
}

/// What the command line and the file say.
#[derive(clap::Args, Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Flags {
    /// A name from `sketchkv models`, a GGUF file, or a Hugging Face folder [default: tiny-gpt2].
    #[arg(long, short)]
    model: Option<ModelName>,
    /// How weights are held and multiplied [default: native].
    #[arg(long, value_enum)]
    weights: Option<Weights>,
    /// Threads that run the model [default: one per core].
    #[arg(long, short)]
    threads: Option<u16>,
    /// The chat template in place of the model's own: chatml, gemma, llama3, or a file of Jinja.
    #[arg(long, value_name = "NAME|FILE")]
    template: Option<String>,
    /// The address to listen at [default: 127.0.0.1, which this machine alone reaches].
    #[arg(long)]
    host: Option<IpAddr>,
    /// The port [default: 8080]; 0 takes a free one.
    #[arg(long)]
    port: Option<u16>,
    /// The cache of requests that name none [default: auto].
    #[arg(long)]
    kv: Option<String>,
    /// The most bytes that all caches take together, as 2GiB [default: 2GiB].
    #[arg(long, value_name = "BYTES")]
    kv_memory: Option<String>,
    /// Answers in the works at the same time [default: 16].
    #[arg(long)]
    parallel: Option<usize>,
    /// Requests that wait for their turn; more are refused [default: 256].
    #[arg(long)]
    queue: Option<usize>,
    /// Most tokens of a text, prompt and answer together [default: the model's context].
    #[arg(long, short)]
    context: Option<usize>,
    /// Most tokens of an answer [default: what the context leaves].
    #[arg(long, short = 'n')]
    max_tokens: Option<usize>,
    /// Tokens of a prompt that are run between two tokens of the others' answers [default: 128].
    #[arg(long)]
    chunk: Option<usize>,
    /// What guesses the next tokens of an answer that goes on alone: `lookup` in the text so far, or `off`; `auto` is lookup. The
    /// answer is the same, token for token [default: auto].
    #[arg(long, value_enum, value_name = "HOW")]
    speculate: Option<Speculate>,
    /// Most seconds of a request, its time in the queue included [default: 600].
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Most bytes of a request [default: 8MiB].
    #[arg(long, value_name = "BYTES")]
    body_limit: Option<String>,
    /// Connections that are open at the same time [default: 4096].
    #[arg(long)]
    connections: Option<usize>,
    /// A key of which requests have to bring one; may be given several times.
    #[arg(long = "api-key", value_name = "KEY")]
    #[serde(deserialize_with = "one_or_more")]
    api_key: Vec<String>,
    /// An origin whose pages may ask from a browser, as `https://example.org`; may be given several times.
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    #[serde(deserialize_with = "one_or_more")]
    cors_origin: Vec<String>,
    /// The folder of the sessions; without it there are none.
    #[arg(long, value_name = "FOLDER")]
    sessions: Option<PathBuf>,
    /// The most bytes of that folder; what was not used for longest goes [default: 10GiB].
    #[arg(long, value_name = "BYTES")]
    sessions_limit: Option<String>,
    /// Seconds that answers may go on when the server is to stop [default: 10].
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u64>,
    /// How the log is written, to standard error [default: text].
    #[arg(long, value_enum)]
    log: Option<Log>,
}

#[derive(Clone, Copy, ValueEnum, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Speculate {
    Auto,
    Lookup,
    Off,
}

#[derive(Clone, Copy, ValueEnum, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Log {
    /// A line for people.
    Text,
    /// A line of JSON.
    Json,
    /// Warnings alone.
    Quiet,
}

fn one_or_more<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        More(Vec<String>),
    }
    Ok(match Words::deserialize(from)? {
        Words::One(word) => vec![word],
        Words::More(words) => words,
    })
}

impl Flags {
    /// These, and where they say nothing, what `others` say.
    fn or(self, others: Flags) -> Flags {
        let list = |own: Vec<String>, other: Vec<String>| if own.is_empty() { other } else { own };
        Flags {
            model: self.model.or(others.model),
            weights: self.weights.or(others.weights),
            threads: self.threads.or(others.threads),
            template: self.template.or(others.template),
            host: self.host.or(others.host),
            port: self.port.or(others.port),
            kv: self.kv.or(others.kv),
            kv_memory: self.kv_memory.or(others.kv_memory),
            parallel: self.parallel.or(others.parallel),
            queue: self.queue.or(others.queue),
            context: self.context.or(others.context),
            max_tokens: self.max_tokens.or(others.max_tokens),
            chunk: self.chunk.or(others.chunk),
            speculate: self.speculate.or(others.speculate),
            timeout: self.timeout.or(others.timeout),
            body_limit: self.body_limit.or(others.body_limit),
            connections: self.connections.or(others.connections),
            api_key: list(self.api_key, others.api_key),
            cors_origin: list(self.cors_origin, others.cors_origin),
            sessions: self.sessions.or(others.sessions),
            sessions_limit: self.sessions_limit.or(others.sessions_limit),
            grace: self.grace.or(others.grace),
            log: self.log.or(others.log),
        }
    }

    fn settings(&self) -> Result<Settings, anyhow::Error> {
        let host = self.host.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let kv: Spec = arguments::spec(self.kv.as_deref().unwrap_or("auto"))?;
        self.cors_origin.iter().try_for_each(|origin| check_origin(origin))?;
        let mut keys = self.api_key.clone();
        if keys.iter().any(|key| key.trim().is_empty()) {
            return Err(usage("--api-key is empty: give a key, or leave it out where nobody else can ask"));
        }
        keys.extend(std::env::var("SKETCHKV_API_KEY").ok());
        keys.retain(|key| !key.trim().is_empty());
        if !host.is_loopback() && keys.is_empty() {
            eprintln!("warning: {host} is open to others and wants no key: give one with --api-key");
        }
        Ok(Settings {
            address: SocketAddr::new(host, self.port.unwrap_or(8080)),
            kv,
            kv_memory: bytes("--kv-memory", self.kv_memory.as_deref(), 2 << 30)?,
            parallel: within("--parallel", self.parallel.unwrap_or(16), 1..=MOST)?,
            queue: within("--queue", self.queue.unwrap_or(256), 0..=MOST)?,
            context: self.context,
            max_tokens: self.max_tokens,
            chunk: within("--chunk", self.chunk.unwrap_or(128), 1..=MOST)?,
            guesses: self.speculate != Some(Speculate::Off),
            timeout: Duration::from_secs(within("--timeout", self.timeout.unwrap_or(600), 0..=LONGEST)?),
            body: bytes("--body-limit", self.body_limit.as_deref(), 8 << 20)?,
            connections: within("--connections", self.connections.unwrap_or(4096), 1..=MOST)?,
            keys,
            cors: self.cors_origin.clone(),
            sessions: self.sessions.clone(),
            sessions_limit: bytes("--sessions-limit", self.sessions_limit.as_deref(), 10 << 30)? as u64,
            grace: Duration::from_secs(within("--grace", self.grace.unwrap_or(10), 0..=LONGEST)?),
        })
    }
}

/// Most answers, waiting requests and connections.
const MOST: usize = 1 << 20;
/// Most seconds of anything: a year.
const LONGEST: u64 = 365 * 24 * 60 * 60;

fn within<T: PartialOrd + Display>(name: &str, number: T, range: RangeInclusive<T>) -> Result<T> {
    match range.contains(&number) {
        true => Ok(number),
        false => {
            Err(usage(format!("{name} is a number from {} to {}, not {number}", range.start(), range.end())))
        }
    }
}

/// Says no to what no browser would ever send as an origin.
fn check_origin(origin: &str) -> Result<()> {
    let host = origin.split_once("://").map_or("", |(_, host)| host);
    let plain = origin.bytes().all(|byte| byte.is_ascii_graphic());
    if origin == "*" || plain && !host.is_empty() && !host.contains('/') {
        return Ok(());
    }
    Err(usage(format!(
        "--cors-origin {origin:?} is no origin: write it as `https://example.org`, without a path, or `*` for all"
    )))
}

/// A number of bytes as people write it.
fn bytes(name: &str, text: Option<&str>, usual: usize) -> Result<usize> {
    let Some(text) = text else { return Ok(usual) };
    match text.parse() {
        Ok(Cap::Bytes(bytes)) => Ok(bytes),
        _ => Err(usage(format!("{name} {text:?} is no number of bytes: write it as 512MiB or 2GiB"))),
    }
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let from_file = match &self.config {
            None => Flags::default(),
            Some(path) => {
                let text = read_input_text(path)
                    .with_context(|| format!("cannot read the settings {}", path.display()))?;
                toml::from_str(&text)
                    .map_err(|error| usage(format!("{}: {}", path.display(), place(&error, &text))))?
            }
        };
        let flags = self.flags.or(from_file);
        let settings = flags.settings()?;
        log(flags.log.unwrap_or(Log::Text));
        let options = flags.weights.unwrap_or_default().options(flags.threads);
        let source = flags.model.unwrap_or_else(config::usual_model).source()?;
        let mut model = arguments::load(&source, &options)?;
        if let Some(template) = &flags.template {
            arguments::set_template(&mut model, template)?;
        }
        let (name, cache, json) = (model.config().name.clone(), settings.kv.to_string(), self.json);
        let memory = settings.kv_memory;
        let ready = move |address: SocketAddr| {
            if json {
                let _ =
                    output::json(&json!({ "model": name, "url": format!("http://{address}"), "kv": cache,
                    "kv_memory": memory }));
            }
            eprintln!(
                "{name} at http://{address} (a page; the API under /v1), cache {cache}, all caches within {}",
                crate::format::bytes(memory as u64)
            );
        };
        let (stop, stopped) = oneshot::channel();
        // The second signal ends the program as it is.
        let mut stop = Some(stop);
        ctrlc::set_handler(move || match stop.take() {
            Some(stop) => drop(stop.send(())),
            None => std::process::exit(crate::interrupt::EXIT.into()),
        })
        .context("cannot watch for Ctrl-C")?;
        let stopped = async {
            let _ = stopped.await;
        };
        serve(model, settings, ready, stopped).map_err(|error| match error {
            sketchkv_server::ServeError::Cache(_) => usage(error.to_string()),
            error => error.into(),
        })
    }
}

/// What is wrong with the settings, and in which line.
fn place(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().lines().collect::<Vec<_>>().join(" ");
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return message };
    let number = before.matches('\n').count();
    let line = text.lines().nth(number).unwrap_or_default().trim();
    format!("line {}, `{line}`: {message}", number + 1)
}

fn log(log: Log) {
    let level = if log == Log::Quiet { tracing::Level::WARN } else { tracing::Level::INFO };
    let lines =
        tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    match log {
        Log::Json => lines.json().flatten_event(true).init(),
        Log::Text | Log::Quiet => lines.compact().init(),
    }
}
