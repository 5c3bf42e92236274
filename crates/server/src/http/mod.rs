//! The way in: routes, and what every request goes through before its handler.

mod answer;
mod body;
mod chat;
mod completions;
mod describe;
mod guard;
mod models;
mod output;
mod page;
mod pieces;
mod responses;
mod serve;
mod slots;
mod talk;
mod template;
mod text;

use crate::{
    Settings,
    api::{ApiError, ModelObject},
    engine::Handle,
    metrics::Metrics,
    tools::ToolFormat,
};
use axum::{
    Router,
    http::StatusCode,
    middleware,
    routing::{get, post},
};
use sketchkv_engine::Grammars;
use sketchkv_model::Model;
use std::sync::{Arc, OnceLock};
use tokio::sync::Semaphore;

pub(crate) use serve::serve;

/// What all handlers share.
pub(crate) struct App {
    pub(crate) model: Arc<Model>,
    pub(crate) about: ModelObject,
    pub(crate) settings: Settings,
    pub(crate) engine: Handle,
    pub(crate) metrics: Arc<Metrics>,
    /// How the model writes calls of tools, if it does.
    pub(crate) tools: Option<ToolFormat>,
    /// Made when the first grammar is asked for.
    pub(crate) grammars: OnceLock<Result<Grammars, String>>,
    /// Templates and tokenizers that may work at once.
    pub(crate) desks: Semaphore,
}

impl App {
    /// Does what takes a processor for a while, on a thread of its own.
    pub(crate) async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&App) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let failed =
            || ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the request's work failed on this server");
        let _desk = self.desks.acquire().await.map_err(|_| ApiError::stopping())?;
        let app = self.clone();
        tokio::task::spawn_blocking(move || work(&app)).await.map_err(|_| failed())?
    }
}

/// Every route there is.
pub(crate) fn router(app: Arc<App>) -> Router {
    let api = Router::new()
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/responses", post(responses::responses))
        .route("/v1/embeddings", post(models::embeddings))
        .route("/v1/models", get(models::models))
        .route("/v1/models/{id}", get(models::model))
        .route("/kv", get(models::kv))
        .route("/tokenize", post(text::tokenize))
        .route("/detokenize", post(text::detokenize))
        .route("/apply-template", post(text::apply_template))
        .route("/slots", get(slots::slots))
        .route("/slots/{session}", post(slots::act))
        .route("/metrics", get(slots::metrics))
        .route_layer(middleware::from_fn_with_state(app.clone(), guard::keys));
    let open = Router::new()
        .route("/health", get(models::health))
        .route("/openapi.json", get(describe::openapi))
        .merge(page::routes());
    let mut router = api
        .merge(open)
        .fallback(guard::unknown)
        .method_not_allowed_fallback(guard::wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), guard::count));
    if let Some(cors) = guard::cors(&app.settings.cors) {
        router = router.layer(cors);
    }
    router.with_state(app)
}
