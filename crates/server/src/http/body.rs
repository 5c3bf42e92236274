//! Bodies in JSON, refused in OpenAI's shape.

use super::App;
use crate::api::ApiError;
use axum::{
    extract::{FromRequest, Request},
    http::StatusCode,
};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Bytes beyond the limit that are read and thrown away, so that whoever sends them hears why they are refused.
const THROWN_AWAY: usize = 64 << 20;

/// A body in JSON.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let bytes = read(request, app.settings.body).await?;
        // Whatever the header calls it: many a client calls it nothing.
        let mut reader = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let (path, reason) = (error.path().to_string(), error.inner().to_string());
            if path != "." {
                return ApiError::param(path.clone(), format!("the body cannot be read: {path}: {reason}"));
            }
            let unknown = reason.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
            let param = unknown.map(|(field, _)| field.to_owned().into());
            ApiError { param, ..ApiError::bad(format!("the body cannot be read: {reason}")) }
        })?;
        reader.end().map_err(|error| ApiError::bad(format!("the body cannot be read: {error}")))?;
        Ok(Body(value))
    }
}

/// All of a body, up to `limit` bytes.
async fn read(request: Request, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut stream = request.into_body().into_data_stream();
    let (mut bytes, mut seen) = (vec![], 0_usize);
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| ApiError::bad(format!("the body did not come whole: {error}")))?;
        seen = seen.saturating_add(piece.len());
        if seen <= limit {
            bytes.extend_from_slice(&piece);
        } else if seen > limit.saturating_add(THROWN_AWAY) {
            break;
        }
    }
    if seen > limit {
        let message = format!(
            "the body is larger than the {limit} bytes that the server takes (--body-limit): send less"
        );
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    Ok(bytes)
}
