//! Errors, in the shape that OpenAI's clients read.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use sketchkv_cache::CacheError;
use sketchkv_engine::EngineError;
use sketchkv_model::ModelError;
use std::borrow::Cow;
use utoipa::{IntoResponses, ToSchema};

/// What went wrong, with its HTTP status. The message is one line and says what to do.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The field that is wrong.
    pub(crate) param: Option<Cow<'static, str>>,
    /// What clients look for: `context_length_exceeded`, `model_not_found`.
    pub(crate) code: Option<&'static str>,
    /// Seconds after which it may work.
    pub(crate) retry_after: Option<u64>,
}

/// The body of every response that is no success, and of an event that ends a stream early.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorObject,
}

/// How a request for text is refused.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "described, and never made: every refusal is an `ApiError`")]
pub(crate) enum Refusals {
    /// The request is wrong.
    #[response(status = 400)]
    Wrong(ErrorBody),
    /// None of the keys.
    #[response(status = 401)]
    Key(ErrorBody),
    /// There is no such model.
    #[response(status = 404)]
    Model(ErrorBody),
    /// The session is in use elsewhere, or of another model.
    #[response(status = 409)]
    Session(ErrorBody),
    /// The body is too large.
    #[response(status = 413)]
    Body(ErrorBody),
    /// Full: try again after Retry-After.
    #[response(status = 429)]
    Full(ErrorBody),
    /// Stopping.
    #[response(status = 503)]
    Stopping(ErrorBody),
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorObject {
    /// One line that says what to do.
    message: String,
    /// `invalid_request_error`, `authentication_error`, `not_found_error`, `rate_limit_error` or `server_error`.
    r#type: &'static str,
    /// The field that is wrong, if it is one.
    param: Option<Cow<'static, str>>,
    /// `context_length_exceeded`, `model_not_found`, or null.
    code: Option<&'static str>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError { status, message: message.into(), param: None, code: None, retry_after: None }
    }

    /// 400: the request is wrong.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    /// 400: this field of the request is wrong.
    pub(crate) fn param(param: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        ApiError { param: Some(param.into()), ..ApiError::bad(message) }
    }

    /// 429: full.
    pub(crate) fn busy(message: impl Into<String>, retry_after: u64) -> Self {
        ApiError { retry_after: Some(retry_after), ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, message) }
    }

    /// 503: stopping.
    pub(crate) fn stopping() -> Self {
        let message = "the server is stopping: send the request again when it is back";
        ApiError { retry_after: Some(5), ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// The body that says so.
    pub(crate) fn body(&self) -> ErrorBody {
        let kind = match self.status.as_u16() {
            401 | 403 => "authentication_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        let error = ErrorObject {
            message: self.message.clone(),
            r#type: kind,
            param: self.param.clone(),
            code: self.code,
        };
        ErrorBody { error }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<CacheError> for ApiError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Spec(_) | CacheError::CapTooSmall { .. } | CacheError::Unsupported(_) => {
                ApiError::param("kv", error.to_string())
            }
            _ => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

impl From<ModelError> for ApiError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Context { .. } => {
                ApiError { code: Some("context_length_exceeded"), ..ApiError::bad(error.to_string()) }
            }
            ModelError::Argument(_) | ModelError::Tokenizer(_) | ModelError::Template(_) => {
                ApiError::bad(error.to_string())
            }
            _ => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Model(error) => error.into(),
            EngineError::Cache(error) => error.into(),
            EngineError::Sample(_) => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            _ => ApiError::bad(error.to_string()),
        }
    }
}
