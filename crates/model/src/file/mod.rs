//! Model files: GGUF and Hugging Face folders, behind one view of named tensors.

mod element;
mod files;
mod folder;
mod gguf;
mod gguf_value;
mod hash;

pub use element::ElementType;
pub use files::EmbeddedFolder;
pub(crate) use files::Files;
pub(crate) use folder::Folder;
pub use folder::safetensors_entries;
pub(crate) use gguf::Gguf;
pub use gguf::GgufHeader;
pub use gguf_value::Value;
pub(crate) use hash::content_hash;

use crate::ModelError;
use crate::weights::Name;
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use sketchkv_kernels::BlockFormat;
use std::fs::File;
use std::path::Path;

/// Where a tensor lies in its file, and how its elements are encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Its name in the file.
    pub name: String,
    /// Its shape, rows first.
    pub shape: Vec<usize>,
    /// How its elements are encoded.
    pub element: ElementType,
    /// First byte in the file.
    pub start: usize,
    /// One past the last byte in the file.
    pub end: usize,
}

/// A tensor in a mapped file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tensor<'a> {
    pub(crate) entry: &'a TensorEntry,
    pub(crate) bytes: &'a [u8],
}

impl Tensor<'_> {
    /// How the kernels name the encoding.
    pub(crate) fn format(&self) -> Result<BlockFormat, String> {
        let TensorEntry { name, element, .. } = self.entry;
        let known = BlockFormat::ALL.into_iter().find(|format| format.name() == element.name);
        known.ok_or_else(|| {
            let names: Vec<&str> = BlockFormat::ALL.iter().map(|format| format.name()).collect();
            format!("tensor `{name}` is {}, which is not supported; {} are", element.name, names.join(", "))
        })
    }

    /// Row `index` of a matrix, decoded.
    pub(crate) fn row(&self, index: usize) -> Result<Vec<f32>, String> {
        let &[rows @ 1..=usize::MAX, cols] = &self.entry.shape[..] else {
            return Err("this is no matrix".into());
        };
        let bytes = self.bytes.len() / rows;
        let mut values = vec![0.0; cols];
        let row = &self.bytes[index * bytes..][..bytes];
        self.format()?.dequantize(row, &mut values).map_err(|error| error.to_string())?;
        Ok(values)
    }

    /// All values, decoded.
    pub(crate) fn floats(&self) -> Result<Vec<f32>, String> {
        let mut values = vec![0.0; self.entry.shape.iter().product()];
        self.format()?
            .dequantize(self.bytes, &mut values)
            .map_err(|e| format!("tensor `{}`: {e}", self.entry.name))?;
        Ok(values)
    }
}

/// A checkpoint of either kind.
#[derive(Debug)]
pub(crate) enum Checkpoint {
    Gguf(Gguf),
    Folder(Folder),
}

impl Checkpoint {
    /// Opens a GGUF file, or a folder with `config.json` and safetensors.
    pub(crate) fn open(path: &Path) -> Result<Checkpoint, ModelError> {
        let metadata = std::fs::metadata(path).map_err(|source| ModelError::io(path, source))?;
        if metadata.is_dir() {
            return Folder::open(Files::Disk(path.to_owned())).map(Checkpoint::Folder);
        }
        if path.extension().is_some_and(|e| e == "safetensors") {
            let reason = "one safetensors file is no model: give the folder that also holds its config.json";
            return Err(ModelError::format(path, reason));
        }
        Gguf::open(path).map(Checkpoint::Gguf)
    }

    /// Opens it again, as it is now.
    pub(crate) fn reopen(origin: &Files) -> Result<Checkpoint, ModelError> {
        match origin {
            Files::Disk(path) => Checkpoint::open(path),
            Files::Embedded(_) => Folder::open(origin.clone()).map(Checkpoint::Folder),
        }
    }

    /// What [`Checkpoint::reopen`] takes.
    pub(crate) fn origin(&self) -> Files {
        match self {
            Checkpoint::Gguf(gguf) => Files::Disk(gguf.path().to_owned()),
            Checkpoint::Folder(folder) => folder.files().clone(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Checkpoint::Gguf(gguf) => gguf.path(),
            Checkpoint::Folder(folder) => folder.path(),
        }
    }

    pub(crate) fn entries(&self) -> Box<dyn Iterator<Item = &TensorEntry> + '_> {
        match self {
            Checkpoint::Gguf(gguf) => Box::new(gguf.entries()),
            Checkpoint::Folder(folder) => Box::new(folder.entries()),
        }
    }

    /// The tensor of this name in the file's own naming.
    pub(crate) fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        match self {
            Checkpoint::Gguf(gguf) => gguf.tensor(name),
            Checkpoint::Folder(folder) => folder.tensor(name),
        }
    }

    /// The tensor of this name, or of its rest: checkpoints of a base model leave the first component out.
    pub(crate) fn named(&self, name: &str) -> Option<Tensor<'_>> {
        let bare = || name.split_once('.').and_then(|(_, bare)| self.tensor(bare));
        self.tensor(name).or_else(bare)
    }

    /// The weights of this name.
    pub(crate) fn weight(&self, name: Name) -> Option<Tensor<'_>> {
        let name = if matches!(self, Checkpoint::Gguf(_)) { name.gguf } else { name.hub };
        self.named(&format!("{name}.weight"))
    }

    /// Gives back the memory of bytes of a tensor that have been taken over; they can still be read, from the file.
    pub(crate) fn release(&self, bytes: &[u8]) {
        match self {
            Checkpoint::Gguf(gguf) => gguf.maps().for_each(|map| release(map, bytes)),
            Checkpoint::Folder(folder) => folder.maps().for_each(|map| release(map, bytes)),
        }
    }
}

/// Gives back the memory of what a map has of `bytes`, if they are of that map.
#[cfg_attr(not(unix), allow(unused_variables))]
fn release(map: &Mmap, bytes: &[u8]) {
    let offset = bytes.as_ptr().addr().wrapping_sub(map.as_ptr().addr());
    #[cfg(unix)]
    if offset < map.len() {
        // SAFETY: the map is of a file and only read, so a page that is dropped comes back as it was. Where that fails,
        // the memory stays taken.
        let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, bytes.len()) };
    }
}

/// Maps a file for reading.
fn map_file(path: &Path) -> Result<Mmap, ModelError> {
    // A pipe would wait to be opened until somebody writes to it.
    let metadata = std::fs::metadata(path).map_err(|source| ModelError::io(path, source))?;
    if !metadata.is_file() {
        let reason = "this is no file: give a GGUF file, a Hugging Face folder, or a name";
        return Err(ModelError::format(path, reason));
    }
    if metadata.len() == 0 {
        return Err(ModelError::format(path, "the file is empty: fetch it again"));
    }
    let file = File::open(path).map_err(|source| ModelError::io(path, source))?;
    // SAFETY: the map is read-only and private to this process. That nobody truncates or rewrites the file
    // while it is mapped cannot be enforced; it is the documented condition of `Model::load`.
    unsafe { Mmap::map(&file) }.map_err(|source| ModelError::io(path, source))
}
