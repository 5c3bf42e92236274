use std::path::PathBuf;

/// What can go wrong in an evaluation. Every message says what, where, and the way out.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// Logits or targets that cannot be scored.
    #[error("cannot score token {position}: {reason}")]
    Score {
        /// Index of the scored token in its document.
        position: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A question that the data cannot answer, such as a text shorter than the context.
    #[error("{0}")]
    Input(String),
    /// A question that measuring did not answer; the message says what was tried.
    #[error("{0}")]
    Unanswered(String),
    /// A spec that does not fit the model, or does not parse.
    #[error(transparent)]
    Cache(#[from] sketchkv_cache::CacheError),
    /// The model or its tokenizer refused.
    #[error(transparent)]
    Model(#[from] sketchkv_model::ModelError),
    /// A text that cannot go on.
    #[error(transparent)]
    Engine(#[from] sketchkv_engine::EngineError),
    /// The uncompressed cache fails on this model or text, so nothing can be measured against it.
    #[error("the uncompressed cache, which all others are measured against, fails: {0}")]
    Reference(Box<EvalError>),
    /// Whoever asked for it wanted to stop.
    #[error("stopped before the end")]
    Stopped,
    /// A file or folder that cannot be read or written.
    #[error("{path}: {source}{}", way_out(source))]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A results file that cannot be used; it is left as it is.
    #[error("{path}: {reason}")]
    Results {
        /// The results file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// An export or a report that cannot be written.
    #[error("cannot write the output: {source}{}", way_out(source))]
    Export {
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The scratch file that holds the reference's distributions failed.
    #[error(
        "the scratch file of the reference distributions in {}: {source}; \
         free space there or point TMPDIR to a larger disk",
        std::env::temp_dir().display()
    )]
    Scratch {
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl EvalError {
    /// Whether it stops more than the one cache that was being measured: the user, the disk, or what all are measured against.
    pub(crate) fn stops_all(&self) -> bool {
        matches!(
            self,
            EvalError::Stopped
                | EvalError::Scratch { .. }
                | EvalError::Results { .. }
                | EvalError::File { .. }
                | EvalError::Export { .. }
                | EvalError::Reference(_)
        )
    }
}

fn way_out(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::StorageFull => "; free space on that disk or name another place",
        std::io::ErrorKind::NotFound => "; check the path",
        std::io::ErrorKind::PermissionDenied => "; check its permissions",
        _ => "",
    }
}
