//! The files of a folder, on disk or inside the program.

use super::map_file;
use crate::ModelError;
use memmap2::Mmap;
use std::borrow::Cow;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// Largest file read beside the weights: tokenizers of 250,000 tokens take about 20 MB.
const LARGEST: u64 = 256 << 20;

/// A Hugging Face folder that is part of the program, for [`ModelFile::embedded`](crate::ModelFile::embedded).
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedFolder {
    /// What the folder would be called.
    pub name: &'static str,
    /// Name and content of each file: `config.json`, `tokenizer.json`, `model.safetensors`, …
    pub files: &'static [(&'static str, &'static [u8])],
}

/// Where a folder's files are.
#[derive(Debug, Clone)]
pub(crate) enum Files {
    Disk(PathBuf),
    Embedded(EmbeddedFolder),
}

/// The content of a weight file.
#[derive(Debug)]
pub(crate) enum Content {
    Mapped(Mmap),
    Embedded(&'static [u8]),
}

impl Files {
    /// The folder's path, or the name that stands for it.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Files::Disk(path) => path,
            Files::Embedded(folder) => Path::new(folder.name),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Files::Disk(path) => path.join(name).is_file(),
            Files::Embedded(folder) => folder.find(name).is_some(),
        }
    }

    /// The bytes of a small file; an error of kind `NotFound` when it is not there.
    pub(crate) fn read(&self, name: &str) -> Result<Cow<'static, [u8]>, ModelError> {
        match self {
            Files::Disk(path) => {
                let path = path.join(name);
                let failed = |source| ModelError::io(&path, source);
                let length = std::fs::metadata(&path).map_err(failed)?.len();
                if length > LARGEST {
                    return Err(ModelError::format(
                        &path,
                        format!("{length} bytes are too many for this file"),
                    ));
                }
                std::fs::read(&path).map(Cow::Owned).map_err(failed)
            }
            Files::Embedded(folder) => folder.find(name).map(Cow::Borrowed).ok_or_else(|| self.missing(name)),
        }
    }

    /// The bytes of a weight file.
    pub(crate) fn content(&self, name: &str) -> Result<Content, ModelError> {
        match self {
            Files::Disk(path) => map_file(&path.join(name)).map(Content::Mapped),
            Files::Embedded(folder) => {
                folder.find(name).map(Content::Embedded).ok_or_else(|| self.missing(name))
            }
        }
    }

    fn missing(&self, name: &str) -> ModelError {
        ModelError::io(&self.path().join(name), std::io::ErrorKind::NotFound.into())
    }
}

impl EmbeddedFolder {
    fn find(&self, name: &str) -> Option<&'static [u8]> {
        self.files.iter().find(|(file, _)| *file == name).map(|(_, content)| *content)
    }
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Content::Mapped(map) => map,
            Content::Embedded(bytes) => bytes,
        }
    }
}
