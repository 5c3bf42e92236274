//! How the program ends: 0 when it did what was asked, 2 when the request itself was wrong, 1 otherwise.

use clap::{builder::Styles, error::ErrorKind};
use sketchkv_cache::CacheError;
use sketchkv_engine::{EngineError, SessionError, catalog::CatalogError};
use sketchkv_eval::{EvalError, Failure};
use sketchkv_model::ModelError;
use std::{env, ffi::OsString, process::ExitCode};

/// A mistake in what was asked for: a bad spec, an unknown name, a context the model does not have.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(String);

/// An [`anyhow::Error`] that ends the program with 2.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

/// Says what clap has to say of a command line that it does not run, help included.
pub(crate) fn refuse(error: &clap::Error) -> ExitCode {
    let broken = |argument: &OsString| argument.to_str().is_none();
    if error.kind() == ErrorKind::InvalidUtf8
        && let Some(argument) = env::args_os().find(broken)
    {
        let argument = argument.display();
        return report(&usage(format!(
            "`{argument}` is not UTF-8: a path may be of any bytes, all else is text in UTF-8"
        )));
    }
    error.exit()
}

/// Prints `error` as one line on standard error and gives the exit code it deserves.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let style = Styles::styled();
    let style = style.get_error();
    anstream::eprintln!("{style}error:{style:#} {}", line(error));
    ExitCode::from(if is_usage(error) { 2 } else { 1 })
}

/// The error with its causes. Many messages have their cause in them already; it is not said again.
pub(crate) fn line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// Says on standard error which caches failed, and gives the exit code of a command that measured the others: 1 if any
/// did.
pub(crate) fn of_caches<'a>(failures: impl IntoIterator<Item = &'a Failure>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for Failure { spec, error, .. } in failures {
        eprintln!("failed: `{spec}`: {error}");
        code = ExitCode::FAILURE;
    }
    code
}

fn is_usage(error: &anyhow::Error) -> bool {
    let cause = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<Usage>()
            || cause.is::<CacheError>()
            || cause.downcast_ref().is_some_and(is_impossible)
            || cause.downcast_ref().is_some_and(is_refusal)
            || cause.downcast_ref().is_some_and(CatalogError::is_refusal)
            || match cause.downcast_ref() {
                // A transparent error hides its source from the chain.
                Some(EvalError::Cache(_) | EvalError::Input(_)) => true,
                Some(EvalError::Model(error)) => is_impossible(error),
                Some(EvalError::Engine(error)) => is_refusal(error),
                _ => false,
            }
            || match cause.downcast_ref() {
                Some(SessionError::OtherModel { .. } | SessionError::NoFile { .. }) => true,
                Some(SessionError::Model(error)) => is_impossible(error),
                _ => false,
            }
    };
    error.chain().any(cause)
}

/// Whether the model was asked for what it cannot do, rather than failed.
fn is_impossible(error: &ModelError) -> bool {
    matches!(error, ModelError::Context { .. } | ModelError::Argument(_))
}

/// Whether a text was asked for what it cannot do, rather than failed.
fn is_refusal(error: &EngineError) -> bool {
    match error {
        EngineError::Model(error) => is_impossible(error),
        EngineError::Cache(_)
        | EngineError::Grammar { .. }
        | EngineError::EmptyPrompt
        | EngineError::LongDocument { .. }
        | EngineError::TooLong { .. } => true,
        EngineError::Sample(_) | EngineError::Constraint { .. } => false,
    }
}
