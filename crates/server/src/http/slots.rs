//! What goes on, and sessions.

use super::App;
use crate::{
    api::{Action, ApiError, SlotAction, SlotDone, Slots},
    engine::{Command, Inspection, is_session_name},
};
use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Asks the engine thread, which answers between two passes.
pub(crate) async fn inspect(app: &App) -> Result<Inspection, ApiError> {
    let (answer, answered) = oneshot::channel();
    app.engine.tell(Command::Inspect(answer))?;
    answered.await.map_err(|_| ApiError::stopping())
}

#[utoipa::path(get, path = "/slots",
    tag = "server", responses(
        (status = 401, body = crate::api::ErrorBody, description = "None of the keys"),
        (status = 200, body = Slots, description = "Done")))]
/// Answers in the works, requests that wait, sessions at rest, and the bytes that each takes.
pub(crate) async fn slots(State(app): State<Arc<App>>) -> Result<Json<Slots>, ApiError> {
    let Inspection { slots, sessions, memory, .. } = inspect(&app).await?;
    Ok(Json(Slots { slots, sessions, memory }))
}

#[utoipa::path(
    post,
    path = "/slots/{session}",
    tag = "server",
    params(("session" = String, Path, description = "The session's name"), SlotAction),
    responses(
        (status = 401, body = crate::api::ErrorBody, description = "None of the keys"),
        (status = 200, body = SlotDone, description = "Done"),
        (status = 400, body = crate::api::ErrorBody, description = "The request is wrong"),
        (status = 404, body = crate::api::ErrorBody, description = "There is no such thing"),
        (status = 409, body = crate::api::ErrorBody, description = "In use elsewhere, or of another model"),
    )
)]
/// Saves, restores or erases a session. Sessions are saved of themselves after every answer.
pub(crate) async fn act(
    State(app): State<Arc<App>>,
    Path(session): Path<String>,
    action: Result<Query<SlotAction>, QueryRejection>,
) -> Result<Json<SlotDone>, ApiError> {
    let Query(SlotAction { action }) = action.map_err(|error| ApiError::bad(error.body_text()))?;
    check_session(&session)?;
    if app.settings.sessions.is_none() {
        return Err(ApiError::bad("this server keeps no sessions: start it with --sessions FOLDER"));
    }
    match action {
        // What is saved can be read.
        Action::Save | Action::Restore => {
            let (answer, answered) = oneshot::channel();
            app.engine.tell(Command::Restore(session, answer))?;
            answered.await.map_err(|_| ApiError::stopping())?.map(Json)
        }
        Action::Erase => {
            let (answer, answered) = oneshot::channel();
            app.engine.tell(Command::Erase(session.clone(), answer))?;
            answered.await.map_err(|_| ApiError::stopping())??;
            Ok(Json(SlotDone { session, tokens: 0, file_bytes: 0 }))
        }
    }
}

/// Refuses a name that a file cannot have.
pub(crate) fn check_session(name: &str) -> Result<(), ApiError> {
    if is_session_name(name) {
        return Ok(());
    }
    let message = "a session's name has up to 128 letters, digits, points, dashes and underscores, and begins with no point";
    Err(ApiError { param: Some("session".into()), ..ApiError::new(StatusCode::BAD_REQUEST, message) })
}

#[utoipa::path(get, path = "/metrics",
    tag = "server", responses(
        (status = 401, body = crate::api::ErrorBody, description = "None of the keys"),
        (status = 200, body = String, content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8", description = "Done")))]
/// Counters for Prometheus.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let now = inspect(&app).await?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], app.metrics.text(&now)).into_response())
}
