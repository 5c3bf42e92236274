use std::{io, path::PathBuf};

/// Why a model cannot be had. Every message is one line and says the way out.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Nothing that could be pulled is called so.
    #[error("{text:?} is no model to pull: use one of {known}, or organisation/repository[@revision][:file]")]
    Unknown {
        /// What was asked for.
        text: String,
        /// The names of the catalogue.
        known: String,
    },
    /// No file or folder has this path, and no model this name.
    #[error(
        "there is no file or folder {text:?} and no model of that name; names are {known}, and \
         organisation/repository[:file] on the hub once pulled"
    )]
    NotFound {
        /// What was asked for.
        text: String,
        /// The names of the models.
        known: String,
    },
    /// A model that was not pulled.
    #[error("{name} is not here yet: run `sketchkv pull {name}`")]
    NotHere {
        /// The model.
        name: String,
    },
    /// A folder of which it is not clear what to load.
    #[error("{path} {reason}", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file or folder that cannot be used.
    #[error("cannot {what} {path}: {error}", path = path.display())]
    File {
        /// What was to be done with it.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        error: io::Error,
    },
    /// The disk is full, or too small for what is to come.
    #[error(
        "no space left for {path} ({reason}){needed}: free some, or set SKETCHKV_MODELS to a folder on another disk, and run \
         the same command again", path = path.display()
    )]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// How that is known.
        reason: String,
        /// How much is needed, if it is known.
        needed: String,
    },
    /// There is no folder for models.
    #[error("there is no home folder for models: set SKETCHKV_MODELS to a folder")]
    NoHome,
    /// A server, or pip, does not give what was asked of it.
    #[error("{0}")]
    Source(String),
    /// What came is not what it should be. It was removed.
    #[error(
        "{file} has {found} instead of {wanted}; it was removed, run the same command again to fetch it anew"
    )]
    Wrong {
        /// The file.
        file: String,
        /// Its size or checksum.
        found: String,
        /// What that should be.
        wanted: String,
    },
    /// Whoever asked for it wanted to stop.
    #[error("stopped: run the same command again to go on from here")]
    Stopped,
    /// None of a model's sources gives it.
    #[error("cannot pull {name}: {reasons}")]
    Failed {
        /// The model.
        name: String,
        /// Why not, source by source.
        reasons: String,
    },
}

impl CatalogError {
    /// Whether what was asked for cannot be, rather than could not be done.
    pub fn is_refusal(&self) -> bool {
        matches!(self, CatalogError::Unknown { .. } | CatalogError::NotFound { .. })
    }

    /// For `map_err`: an error of the operating system while doing `what` with `path`.
    pub(super) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| CatalogError::File { what, path, error }
    }

    /// For `map_err`: as [`CatalogError::file`] while writing, with the way out when the disk is full and `missing` bytes
    /// are still to come.
    pub(super) fn writing(path: impl Into<PathBuf>, missing: Option<u64>) -> impl FnOnce(io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let path = path.into();
        move |error| {
            if !matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
                return CatalogError::File { what: "write", path, error };
            }
            let needed = missing.map_or_else(String::new, |bytes| format!("; {bytes} more bytes are needed"));
            CatalogError::NoSpace { path, reason: error.to_string(), needed }
        }
    }
}
