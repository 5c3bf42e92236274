use sketchkv_cache::CacheError;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What can go wrong between a file and a token. Every message is one line and says the way out.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file or folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// What was opened.
        path: PathBuf,
        /// The operating system's reason.
        source: Arc<std::io::Error>,
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
    /// NaN or infinity where there must be numbers: the logits of this sequence would mean nothing.
    #[error(
        "{model} with the cache `{cache}`: NaN or infinity in {what}{} at position {position}: try {}weights in f32",
        of_layer(*.layer),
        if cache.starts_with("full") { "" } else { "the cache `full`, or " }
    )]
    NotFinite {
        /// The model's name.
        model: String,
        /// The spec of the sequence's cache.
        cache: String,
        /// The layer where it began; `None` for the projection to logits.
        layer: Option<usize>,
        /// What holds it.
        what: &'static str,
        /// Position of the first token that has it.
        position: usize,
    },
    /// The cache cannot take what the model gives it.
    #[error("{model}: {source}")]
    Cache {
        /// The model's name.
        model: String,
        /// The cache's reason.
        source: CacheError,
    },
}

fn of_layer(layer: Option<usize>) -> String {
    layer.map_or(String::new(), |layer| format!(" of layer {layer}"))
}

impl ModelError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        ModelError::Io { path: path.to_owned(), source: Arc::new(source) }
    }

    pub(crate) fn format(path: &Path, reason: impl Into<String>) -> Self {
        ModelError::Format { path: path.to_owned(), reason: reason.into() }
    }
}
