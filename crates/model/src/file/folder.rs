//! Hugging Face folders: `config.json`, one `model.safetensors` or the shards of an index, and JSON beside them.

use super::files::{Content, Files};
use super::{ElementType, Tensor, TensorEntry};
use crate::ModelError;
use memmap2::Mmap;
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

#[derive(Debug)]
pub(crate) struct Folder {
    files: Files,
    config: Value,
    shards: Vec<Shard>,
    /// Tensor name to (shard, entry).
    index: HashMap<String, (usize, usize)>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    map: Content,
    entries: Vec<TensorEntry>,
}

impl Folder {
    pub(crate) fn open(files: Files) -> Result<Folder, ModelError> {
        if !files.has("config.json") {
            let reason =
                "no config.json here: a model folder holds config.json, model.safetensors and tokenizer.json";
            return Err(ModelError::format(files.path(), reason));
        }
        let config = read_json(&files, "config.json")?;
        let shards = shard_names(&files)?;
        let shards = shards.iter().map(|name| Shard::open(&files, name)).collect::<Result<Vec<_>, _>>()?;
        let mut index = HashMap::new();
        for (s, shard) in shards.iter().enumerate() {
            for (e, entry) in shard.entries.iter().enumerate() {
                if index.insert(entry.name.clone(), (s, e)).is_some() {
                    let reason = format!("tensor `{}` is also in another shard", entry.name);
                    return Err(ModelError::format(&shard.path, reason));
                }
            }
        }
        Ok(Folder { files, config, shards, index })
    }

    pub(crate) fn path(&self) -> &Path {
        self.files.path()
    }

    /// The folder's files.
    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    pub(crate) fn config(&self) -> &Value {
        &self.config
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &TensorEntry> {
        self.shards.iter().flat_map(|shard| &shard.entries)
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let &(shard, entry) = self.index.get(name)?;
        let shard = &self.shards[shard];
        let entry = &shard.entries[entry];
        Some(Tensor { entry, bytes: &shard.map[entry.start..entry.end] })
    }

    /// The weight files, in order.
    pub(crate) fn weights(&self) -> impl Iterator<Item = &[u8]> {
        self.shards.iter().map(|shard| &shard.map[..])
    }

    /// The weight files that are mapped.
    pub(crate) fn maps(&self) -> impl Iterator<Item = &Mmap> {
        self.shards.iter().filter_map(|shard| match &shard.map {
            Content::Mapped(map) => Some(map),
            Content::Embedded(_) => None,
        })
    }

    /// A JSON file of the folder, or `None` when it is not there.
    pub(crate) fn json(&self, name: &str) -> Result<Option<Value>, ModelError> {
        if self.files.has(name) { read_json(&self.files, name).map(Some) } else { Ok(None) }
    }
}

impl Shard {
    fn open(files: &Files, name: &str) -> Result<Shard, ModelError> {
        let path = files.path().join(name);
        let map = files.content(name)?;
        let entries = safetensors_entries(&map).map_err(|reason| ModelError::format(&path, reason))?;
        Ok(Shard { path, map, entries })
    }
}

/// The tensor table of a safetensors file's `bytes`, in file order; every range lies inside them.
///
/// # Errors
/// When the header is not sound, a type is not read, or a tensor does not lie where its shape says.
pub fn safetensors_entries(bytes: &[u8]) -> Result<Vec<TensorEntry>, String> {
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| {
        format!("no sound safetensors file ({e}): the download is incomplete or the file corrupt")
    })?;
    // Eight bytes of header length, the header, the data.
    let data = 8 + header;
    let mut entries = Vec::new();
    for (name, info) in metadata.tensors() {
        let element = ElementType::from_safetensors(info.dtype).ok_or_else(|| {
            format!("tensor `{name}` has elements of type {:?}, which is not read", info.dtype)
        })?;
        let (start, end) = (data.checked_add(info.data_offsets.0), data.checked_add(info.data_offsets.1));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(format!("tensor `{name}` lies beyond the end of the file"));
        };
        let elements = info.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let expected = elements.and_then(|n| n.checked_mul(element.block_bytes));
        if end > bytes.len() || start > end || expected != Some(end - start) {
            return Err(format!("tensor `{name}` does not lie where the header says: the file is corrupt"));
        }
        entries.push(TensorEntry { name, shape: info.shape.clone(), element, start, end });
    }
    entries.sort_by_key(|entry| entry.start);
    Ok(entries)
}

/// The weight files: `model.safetensors` if it is there, as transformers has it, else those of the index.
fn shard_names(files: &Files) -> Result<Vec<String>, ModelError> {
    let index_name = "model.safetensors.index.json";
    let index_path = files.path().join(index_name);
    if files.has("model.safetensors") {
        return Ok(vec!["model.safetensors".into()]);
    }
    if !files.has(index_name) {
        let reason = if files.has("pytorch_model.bin") {
            "only pytorch_model.bin is here, which runs code when read: convert it to model.safetensors"
        } else {
            "no model.safetensors and no model.safetensors.index.json here"
        };
        return Err(ModelError::format(files.path(), reason));
    }
    let index: BTreeMap<String, Value> = match read_json(files, index_name)? {
        Value::Object(map) => map.into_iter().collect(),
        _ => return Err(ModelError::format(&index_path, "not a JSON object")),
    };
    let map = index
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| ModelError::format(&index_path, "`weight_map` is missing"))?;
    let mut names: Vec<String> = Vec::new();
    for value in map.values() {
        let name = value.as_str().filter(|name| is_plain(name)).map(str::to_owned);
        names.push(name.ok_or_else(|| ModelError::format(&index_path, format!("{value} is no file name")))?);
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Whether a name stays inside its folder.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}

fn read_json(files: &Files, name: &str) -> Result<Value, ModelError> {
    let path = files.path().join(name);
    let text = files.read(name)?;
    serde_json::from_slice(&text).map_err(|e| ModelError::format(&path, format!("no valid JSON: {e}")))
}
