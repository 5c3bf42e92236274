//! How the program ends: 0 when it did what was asked, 2 when the request itself was wrong, 1 otherwise.

use std::process::ExitCode;

/// A mistake in what was asked for: a bad spec, an unknown name, a context the model does not have.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// An [`anyhow::Error`] that ends the program with 2.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

/// Prints `error` as one line on standard error and gives the exit code it deserves.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(if is_usage(error) { 2 } else { 1 })
}

fn is_usage(error: &anyhow::Error) -> bool {
    use sketchkv_cache::CacheError;
    use sketchkv_model::ModelError;
    error.chain().any(|cause| {
        cause.is::<Usage>()
            || cause.is::<CacheError>()
            || matches!(cause.downcast_ref(), Some(ModelError::Context { .. } | ModelError::Argument(_)))
    })
}
