//! What stands before the handlers: keys, counts, and answers to what is not there.

use super::App;
use crate::api::ApiError;
use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use std::{sync::Arc, time::Instant};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Lets a request through that brings one of the keys, if there are any.
pub(crate) async fn keys(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let keys = &app.settings.keys;
    if keys.is_empty() {
        return next.run(request).await;
    }
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    // Hashes are compared, so that the time it takes says nothing about the keys.
    let hash = |key: &str| Sha256::digest(key.trim().as_bytes());
    let hash_given = hash(given);
    if keys.iter().fold(false, |known, key| known | (hash(key) == hash_given)) {
        return next.run(request).await;
    }
    let message = match given {
        "" => "this server wants a key: send `Authorization: Bearer KEY`",
        _ => "this is none of the server's keys",
    };
    ApiError::new(StatusCode::UNAUTHORIZED, message).into_response()
}

/// Counts a request, and logs it.
pub(crate) async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let path = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let response = next.run(request).await;
    let status = response.status();
    let labels = [("path", path.clone()), ("status", status.as_u16().to_string())];
    app.metrics.requests.get_or_create(&labels).inc();
    // Of a stream, the time to its beginning.
    let ms = started.elapsed().as_secs_f64() * 1e3;
    tracing::info!(%method, path, status = status.as_u16(), ms, "request");
    response
}

pub(crate) async fn unknown(request: Request) -> ApiError {
    let message = format!("there is no {} here: /openapi.json lists what there is", request.uri().path());
    ApiError::new(StatusCode::NOT_FOUND, message)
}

pub(crate) async fn wrong_method(request: Request) -> ApiError {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

/// Lets pages of these origins in; `None` without any.
pub(crate) fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let origin = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok())),
    };
    let headers = [header::AUTHORIZATION, header::CONTENT_TYPE];
    Some(
        CorsLayer::new()
            .allow_origin(origin)
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(headers),
    )
}
