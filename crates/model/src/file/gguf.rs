//! GGUF, versions 2 and 3: a header of typed metadata and tensor descriptions, then the tensors' blocks,
//! mapped into memory and never copied here.
//!
//! Every count and offset of the header is checked against the bytes that are really there before it is used,
//! so that a truncated or hostile file ends in an error, not in an allocation or a fault.

use super::gguf_value::{Reader, Value};
use super::{ElementType, Tensor, TensorEntry, map_file};
use crate::ModelError;
use memmap2::Mmap;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 4] = *b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
/// Dimensions a tensor may have.
const MAX_DIMENSIONS: u32 = 4;
/// Least bytes a metadata entry takes: key length, type, one byte of value.
const LEAST_ENTRY: u64 = 8 + 4 + 1;
/// Least bytes a tensor description takes: name length, dimension count, one dimension, type, offset.
const LEAST_TENSOR: u64 = 8 + 4 + 8 + 4 + 8;

/// The metadata and tensor table of a GGUF file.
#[derive(Debug)]
pub struct GgufHeader {
    /// 2 or 3.
    pub version: u32,
    metadata: BTreeMap<String, Value>,
    tensors: Vec<TensorEntry>,
}

impl GgufHeader {
    /// Reads the header from the whole file's `bytes`; the error says what is wrong and where.
    pub fn parse(bytes: &[u8]) -> Result<GgufHeader, String> {
        let mut reader = Reader::new(bytes);
        if reader.array::<4>("the magic number")? != MAGIC {
            return Err("this is no GGUF file: it does not begin with `GGUF`".into());
        }
        let version = reader.u32("the version")?;
        match version {
            2 | 3 => {}
            1 => return Err("GGUF version 1 is too old: convert the model again".into()),
            _ if version.swap_bytes() <= 3 => {
                return Err(
                    "this GGUF file is big-endian: convert the model for little-endian machines".into()
                );
            }
            _ => return Err(format!("GGUF version {version} is unknown; versions 2 and 3 are read")),
        }
        let tensor_count = reader.count("tensors", LEAST_TENSOR)?;
        let entry_count = reader.count("metadata entries", LEAST_ENTRY)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..entry_count {
            let key = reader.string("a metadata key")?;
            let value = reader.value(&key)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(format!("metadata key `{key}` appears twice"));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(value) => value
                .unsigned()
                .filter(|a| a.is_power_of_two() && *a <= 1 << 20)
                .ok_or("`general.alignment` is not a power of two")?,
        };
        let descriptions =
            (0..tensor_count).map(|_| Description::read(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let data = reader.position().next_multiple_of(alignment);
        let tensors = place(descriptions, data, bytes.len() as u64, alignment)?;
        Ok(GgufHeader { version, metadata, tensors })
    }

    /// A metadata value, or `None` when the file does not say.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// All tensors, in file order.
    pub fn tensors(&self) -> &[TensorEntry] {
        &self.tensors
    }

    /// All metadata, by key.
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }
}

/// A tensor as the header describes it; its offset counts from the start of the data.
struct Description {
    name: String,
    shape: Vec<usize>,
    element: ElementType,
    offset: u64,
    bytes: u64,
}

impl Description {
    fn read(reader: &mut Reader<'_>) -> Result<Self, String> {
        let name = reader.string("a tensor name")?;
        let dimensions = reader.u32("a tensor's dimension count")?;
        if dimensions == 0 || dimensions > MAX_DIMENSIONS {
            return Err(format!(
                "tensor `{name}` has {dimensions} dimensions; 1 to {MAX_DIMENSIONS} are possible"
            ));
        }
        // The file counts the fastest dimension first; shapes here are rows first.
        let mut shape = Vec::with_capacity(dimensions as usize);
        let mut elements = 1u64;
        for _ in 0..dimensions {
            let dimension = reader.u64("a tensor dimension")?;
            elements = elements
                .checked_mul(dimension)
                .filter(|e| *e > 0 && *e < 1 << 48)
                .ok_or_else(|| format!("tensor `{name}` has an impossible shape"))?;
            shape.insert(0, dimension as usize);
        }
        let id = reader.u32("a tensor type")?;
        let element = ElementType::from_ggml(id).ok_or_else(|| {
            format!("tensor `{name}` has the unknown type {id}: the file is corrupt or too new")
        })?;
        let row = *shape.last().unwrap_or(&1) as u64;
        if !row.is_multiple_of(element.block_len as u64) {
            return Err(format!(
                "tensor `{name}` has rows of {row} values, no multiple of the {} values of a {} block",
                element.block_len, element.name
            ));
        }
        let offset = reader.u64("a tensor offset")?;
        let bytes = elements / element.block_len as u64 * element.block_bytes as u64;
        Ok(Description { name, shape, element, offset, bytes })
    }
}

/// Turns offsets into ranges of the file: aligned, inside it, none twice, none overlapping.
fn place(
    descriptions: Vec<Description>,
    data: u64,
    file: u64,
    alignment: u64,
) -> Result<Vec<TensorEntry>, String> {
    let mut tensors = Vec::with_capacity(descriptions.len());
    for Description { name, shape, element, offset, bytes } in descriptions {
        if offset % alignment != 0 {
            return Err(format!("tensor `{name}` lies at offset {offset}, not aligned to {alignment}"));
        }
        let start = data.checked_add(offset);
        let end = start.and_then(|s| s.checked_add(bytes)).filter(|e| *e <= file);
        let (Some(start), Some(end)) = (start, end) else {
            return Err(format!(
                "tensor `{name}` ({bytes} bytes at offset {offset}) reaches beyond the end of the file: the \
                 download is incomplete or the file corrupt"
            ));
        };
        tensors.push(TensorEntry { name, shape, element, start: start as usize, end: end as usize });
    }
    let mut order: Vec<&TensorEntry> = tensors.iter().collect();
    order.sort_by_key(|t| t.start);
    for pair in order.windows(2) {
        if pair[1].start < pair[0].end {
            return Err(format!(
                "tensors `{}` and `{}` overlap: the file is corrupt",
                pair[0].name, pair[1].name
            ));
        }
    }
    let mut names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("tensor `{}` appears twice", pair[0]));
    }
    Ok(tensors)
}

/// A model in one GGUF file, or in the parts of a split one.
#[derive(Debug)]
pub(crate) struct Gguf {
    path: PathBuf,
    /// The first holds the metadata of all.
    parts: Vec<Part>,
    /// Tensor name to (part, entry).
    index: HashMap<String, (usize, usize)>,
}

#[derive(Debug)]
struct Part {
    map: Mmap,
    header: GgufHeader,
}

impl Part {
    fn open(path: &Path) -> Result<Part, ModelError> {
        let map = map_file(path)?;
        let header = GgufHeader::parse(&map).map_err(|reason| ModelError::format(path, reason))?;
        Ok(Part { map, header })
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.header.value(key).and_then(Value::unsigned)
    }
}

impl Gguf {
    /// Opens a file; of a split model, any part stands for all of them.
    pub(crate) fn open(path: &Path) -> Result<Gguf, ModelError> {
        let part = Part::open(path)?;
        let count = part.number("split.count").unwrap_or(1);
        let parts = if count > 1 { open_parts(path, part, count)? } else { vec![part] };
        let mut index = HashMap::new();
        for (p, part) in parts.iter().enumerate() {
            for (e, entry) in part.header.tensors.iter().enumerate() {
                if index.insert(entry.name.clone(), (p, e)).is_some() {
                    let reason = format!("tensor `{}` is in two parts of the split model", entry.name);
                    return Err(ModelError::format(path, reason));
                }
            }
        }
        if let Some(expected) = parts[0].number("split.tensors.count").filter(|_| parts.len() > 1)
            && expected != index.len() as u64
        {
            let reason =
                format!("the parts hold {} tensors where {expected} belong to the model", index.len());
            return Err(ModelError::format(path, reason));
        }
        Ok(Gguf { path: path.to_owned(), parts, index })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn maps(&self) -> impl Iterator<Item = &Mmap> {
        self.parts.iter().map(|part| &part.map)
    }

    /// The header of the first part, which holds the metadata.
    pub(crate) fn header(&self) -> &GgufHeader {
        &self.parts[0].header
    }

    /// The tensors of all parts, in file order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &TensorEntry> {
        self.parts.iter().flat_map(|part| &part.header.tensors)
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let &(part, entry) = self.index.get(name)?;
        let Part { map, header } = &self.parts[part];
        let entry = &header.tensors[entry];
        Some(Tensor { entry, bytes: &map[entry.start..entry.end] })
    }

    /// A count such as `llama.block_count`.
    pub(crate) fn number(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.typed(key, "a whole number", |v| v.unsigned().and_then(|n| usize::try_from(n).ok()))
    }

    pub(crate) fn float(&self, key: &str) -> Result<Option<f32>, ModelError> {
        self.typed(key, "a number", |v| v.float().map(|f| f as f32))
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>, ModelError> {
        self.typed(key, "text", Value::text)
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.typed(key, "true or false", Value::flag)
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Option<&[String]>, ModelError> {
        self.typed(key, "a list of texts", Value::texts)
    }

    /// As [`Gguf::number`], for what must be there.
    pub(crate) fn required(&self, key: &str) -> Result<usize, ModelError> {
        self.number(key)?
            .ok_or_else(|| ModelError::format(&self.path, format!("metadata key `{key}` is missing")))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        kind: &str,
        take: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.header().value(key) else { return Ok(None) };
        let wrong = || ModelError::format(&self.path, format!("metadata key `{key}` is not {kind}"));
        take(value).map(Some).ok_or_else(wrong)
    }
}

/// More parts than any split model has.
const MOST_PARTS: u64 = 1 << 10;

/// All parts of a split model, in order, of which `part` is the one at `path`.
fn open_parts(path: &Path, part: Part, count: u64) -> Result<Vec<Part>, ModelError> {
    let number = part.number("split.no").filter(|number| *number < count && count <= MOST_PARTS);
    let name = path.file_name().and_then(|name| name.to_str());
    let suffix = |number: u64| format!("-{:05}-of-{count:05}.gguf", number + 1);
    let stem = number.zip(name).and_then(|(number, name)| name.strip_suffix(&suffix(number)));
    let (Some(number), Some(stem)) = (number, stem) else {
        let reason = format!(
            "this is one of {count} parts of a split model, whose file names must end in -00001-of-{count:05}.gguf \
             and so on, in the order of their `split.no`"
        );
        return Err(ModelError::format(path, reason));
    };
    let mut own = Some(part);
    let open = |other: u64| match own.take_if(|_| other == number) {
        Some(part) => Ok(part),
        None => {
            let path = path.with_file_name(format!("{stem}{}", suffix(other)));
            let part = Part::open(&path)?;
            if part.number("split.no") != Some(other) || part.number("split.count") != Some(count) {
                let reason = "this file is a part of another split model than those beside it";
                return Err(ModelError::format(&path, reason));
            }
            Ok(part)
        }
    };
    (0..count).map(open).collect()
}
