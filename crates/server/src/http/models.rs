//! What there is: the model, its caches, and whether the server lives.

use super::{App, slots};
use crate::api::{ApiError, Health, KvChoices, KvPreset, ModelObject, Models};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use std::sync::Arc;

/// Caches to choose from, in plain words.
const PRESETS: [KvPreset; 4] = [
    KvPreset {
        spec: "auto",
        words: "Automatic: everything is remembered, nearly exactly; with a limit of bytes, the least important is \
                remembered in fewer bits, and then forgotten.",
    },
    KvPreset {
        spec: "full+q8",
        words: "Everything in 8 bits: half the bytes of an uncompressed cache, hardly any loss.",
    },
    KvPreset { spec: "full", words: "Uncompressed (f16): the reference." },
    KvPreset {
        spec: "window@25%",
        words: "The newest quarter alone, and the first few words: cheap, and forgetful. For comparison.",
    },
];

#[utoipa::path(get, path = "/v1/models",
    tag = "server", responses(
        (status = 401, body = crate::api::ErrorBody, description = "None of the keys"),
        (status = 200, body = Models, description = "Done")))]
/// The model that the server runs.
pub(crate) async fn models(State(app): State<Arc<App>>) -> Json<Models> {
    Json(Models { object: "list", data: vec![app.about.clone()] })
}

#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    tag = "server",
    params(("id" = String, Path, description = "The model's name")),
    responses(
        (status = 401, body = crate::api::ErrorBody, description = "None of the keys"),
        (status = 200, body = ModelObject, description = "Done"), (status = 404, body = crate::api::ErrorBody, description = "There is no such thing"))
)]
/// The model of this name.
pub(crate) async fn model(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<ModelObject>, ApiError> {
    if id == app.about.id {
        return Ok(Json(app.about.clone()));
    }
    let message = format!("there is no model {id:?} here; this server runs {:?}", app.about.id);
    Err(ApiError::new(StatusCode::NOT_FOUND, message))
}

#[utoipa::path(get, path = "/kv",
    tag = "server", responses(
        (status = 401, body = crate::api::ErrorBody, description = "None of the keys"),
        (status = 200, body = KvChoices, description = "Done")))]
/// Caches to choose from, and the bytes of all of them.
pub(crate) async fn kv(State(app): State<Arc<App>>) -> Result<Json<KvChoices>, ApiError> {
    let now = slots::inspect(&app).await?;
    Ok(Json(KvChoices {
        default: match app.settings.kv.preset {
            Some(preset) => format!("{preset}{}", app.settings.kv.cap),
            None => app.settings.kv.to_string(),
        },
        presets: PRESETS.into(),
        memory: now.memory,
        sessions: app.settings.sessions.is_some(),
    }))
}

#[utoipa::path(get, path = "/health",
    tag = "server", security(()),
    responses((status = 200, body = Health, description = "Done")))]
/// Whether the server answers.
pub(crate) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "server",
    responses(
        (status = 401, body = crate::api::ErrorBody, description = "None of the keys"),
        (status = 501, body = crate::api::ErrorBody, description = "No model that runs here was made for embeddings"))
)]
/// Refused: no model that runs here was made for it.
pub(crate) async fn embeddings(State(app): State<Arc<App>>) -> ApiError {
    let message = format!(
        "{} was made to go on with texts, not to embed them: use a model and a server for embeddings",
        app.about.id
    );
    ApiError::new(StatusCode::NOT_IMPLEMENTED, message)
}
