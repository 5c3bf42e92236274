use std::path::{Path, PathBuf};

/// What can go wrong between a file and a token. Every message is one line and says the way out.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file or folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// What was opened.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file is not what it should be: truncated, corrupted, or not a model at all.
    #[error("{path}: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, where, and what to do.
        reason: String,
    },
    /// A sound file of a kind this engine does not run.
    #[error("{0}")]
    Unsupported(String),
    /// Text that the tokenizer cannot handle, or a tokenizer that does not fit the model.
    #[error("{0}")]
    Tokenizer(String),
    /// A chat template that does not render.
    #[error("{0}")]
    Template(String),
    /// More tokens than the model's context holds.
    #[error(
        "{length} tokens are more than the model's context of {context}: shorten the text, or allow positions beyond \
         the context"
    )]
    Context {
        /// Tokens the sequence would have.
        length: usize,
        /// The model's context, in tokens.
        context: usize,
    },
    /// An argument outside its range.
    #[error("{0}")]
    Argument(String),
}

impl ModelError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        ModelError::Io { path: path.to_owned(), source }
    }

    pub(crate) fn format(path: &Path, reason: impl Into<String>) -> Self {
        ModelError::Format { path: path.to_owned(), reason: reason.into() }
    }
}
