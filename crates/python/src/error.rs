//! Errors of the engine as exceptions, in its words.

use pyo3::PyErr;
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use sketchkv_cache::CacheError;
use sketchkv_engine::{EngineError, SessionError, catalog::CatalogError};
use sketchkv_eval::EvalError;
use sketchkv_model::ModelError;
use sketchkv_sketch::SketchError;

create_exception!(
    sketchkv,
    Error,
    PyException,
    "What the engine refuses or fails at; the message says the way out."
);
create_exception!(
    sketchkv,
    SpecError,
    Error,
    "A cache that does not parse, contradicts itself or does not fit the model."
);

/// A failure on the way to Python.
pub(crate) enum Failure {
    /// The engine's word, and whether it is about a cache that was asked for.
    Engine { message: String, spec: bool },
    /// Something raised in Python: a signal, most of all.
    Python(PyErr),
}

impl Failure {
    /// A refusal in words of this crate.
    pub(crate) fn refuse(message: impl Into<String>) -> Self {
        Failure::Engine { message: message.into(), spec: false }
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> PyErr {
        match failure {
            Failure::Engine { message, spec: true } => SpecError::new_err(message),
            Failure::Engine { message, spec: false } => Error::new_err(message),
            Failure::Python(error) => error,
        }
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Failure::Python(error)
    }
}

/// Whether a cache was refused before anything ran.
fn is_of_spec(error: &CacheError) -> bool {
    matches!(error, CacheError::Spec(_) | CacheError::CapTooSmall { .. } | CacheError::Unsupported(_))
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        Failure::Engine { message: error.to_string(), spec: is_of_spec(&error) }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let spec = matches!(&error, EngineError::Cache(error) if is_of_spec(error));
        Failure::Engine { message: error.to_string(), spec }
    }
}

impl From<EvalError> for Failure {
    fn from(error: EvalError) -> Self {
        let spec = matches!(&error, EvalError::Cache(error) if is_of_spec(error));
        Failure::Engine { message: error.to_string(), spec }
    }
}

macro_rules! refusals {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Failure::refuse(error.to_string())
            }
        }
    )*};
}

refusals!(CatalogError, ModelError, SessionError, SketchError);
