//! Caches as bytes: a sequence goes on bit for bit where it was left.
//!
//! Layout, little-endian: the magic `SKETCHKV`, a version (u32), the CRC-32 of what follows (u32), then the spec, the
//! shape, the seed and position, and every head: pages as they lie in memory, positions, and what the methods save.

use crate::context::EMPTY;
use crate::format::Format;
use crate::grading::Grading;
use crate::head::Head;
use crate::page::{PAGE, PAGE_STRIPS, Page};
use crate::state::{Reader, StateError, Writer};
use crate::{Cache, CacheShape, LayerShape, Registry, Spec};
use half::f16;
use sketchkv_kernels::attention::layout::STRIP;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"SKETCHKV";
const VERSION: u32 = 8;
/// A version that is read as well, but for caches of this store: what waits to be sealed was in f16.
const EARLIER: (u32, &str) = (7, "progressive");
const HEADER: usize = 16;

impl Cache {
    /// The whole state of the cache as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.blob(self.spec.to_string().as_bytes());
        out.u64(self.shape.layers.len() as u64);
        for layer in &self.shape.layers {
            dimensions(layer).into_iter().for_each(|(_, n)| out.u64(n));
        }
        out.u64(self.seed);
        out.u64(self.position as u64);
        for head in self.layers.iter().flatten() {
            head.save(&mut out);
        }
        let body = out.finish();
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// The cache that [`Cache::to_bytes`] wrote, for a model of this `shape`.
    ///
    /// # Errors
    /// When the bytes are damaged, of another version, or of a model of another shape.
    pub fn from_bytes(bytes: &[u8], shape: CacheShape) -> Result<Cache, StateError> {
        Cache::from_bytes_with(bytes, shape, &Registry::builtin())
    }

    /// As [`Cache::from_bytes`], for a cache with methods of `registry`.
    ///
    /// # Errors
    /// The same, and when the registry lacks one of its methods.
    pub fn from_bytes_with(
        bytes: &[u8],
        shape: CacheShape,
        registry: &Registry,
    ) -> Result<Cache, StateError> {
        if bytes.len() < HEADER || &bytes[..8] != MAGIC {
            return Err(StateError::Corrupt("it does not start as one".to_owned()));
        }
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let version = number(8);
        let mismatch = || {
            StateError::Mismatch(format!("it has version {version}, this program reads version {VERSION}"))
        };
        if ![VERSION, EARLIER.0].contains(&version) {
            return Err(mismatch());
        }
        let body = &bytes[HEADER..];
        if crc32fast::hash(body) != number(12) {
            return Err(StateError::Corrupt("its checksum is wrong".to_owned()));
        }
        let mut from = Reader::new(body);
        let text = std::str::from_utf8(from.blob()?)
            .map_err(|_| StateError::Corrupt("its spec is no text".to_owned()))?;
        let spec =
            Spec::parse_with(text, registry).map_err(|e| StateError::Corrupt(format!("its spec: {e}")))?;
        if version == EARLIER.0 && [&spec.keys, &spec.values].iter().any(|s| s.method().name == EARLIER.1) {
            return Err(mismatch());
        }
        check("layers", shape.layers.len() as u64, &mut from)?;
        for layer in &shape.layers {
            for (name, expected) in dimensions(layer) {
                check(name, expected, &mut from)?;
            }
        }
        let (seed, position) = (from.u64()?, from.length(u32::MAX as usize - 1)?);
        let mut cache =
            Cache::new(shape, &spec, seed).map_err(|e| StateError::Corrupt(format!("its spec: {e}")))?;
        cache.position = position;
        for (heads, format) in cache.layers.iter_mut().zip(&cache.common.formats) {
            for head in heads {
                head.restore(format, position, &mut from)?;
            }
        }
        if !from.is_empty() {
            return Err(StateError::Corrupt("bytes follow its end".to_owned()));
        }
        Ok(cache)
    }
}

/// What of a layer's shape must be the same; 0 where there is no window.
fn dimensions(layer: &LayerShape) -> [(&'static str, u64); 5] {
    [
        ("query heads", layer.heads as u64),
        ("KV heads", layer.kv_heads as u64),
        ("dimensions a key", layer.key_dim as u64),
        ("dimensions a value", layer.value_dim as u64),
        ("tokens in its window", layer.window.unwrap_or(0) as u64),
    ]
}

fn check(name: &str, expected: u64, from: &mut Reader<'_>) -> Result<(), StateError> {
    let found = from.u64()?;
    if found != expected {
        let what = format!("it is of a model with {found} {name}, this one has {expected}");
        return Err(StateError::Mismatch(what));
    }
    Ok(())
}

impl Head {
    fn save(&self, out: &mut Writer) {
        out.u64(self.evicted);
        out.u64(self.expired);
        if let Some(grading) = &self.slots.grading {
            grading.save(out);
        }
        out.u64(self.slots.rung() as u64);
        out.u64(self.slots.pages().len() as u64);
        for (page, &live) in self.slots.pages().iter().zip(self.slots.live()) {
            page.save(out);
            out.u64(live);
        }
        out.words(self.slots.positions());
        out.words(&self.slots.state);
        self.keep.save(out);
        if let Some(tail) = &self.tail {
            tail.save(out);
        }
        if let Some(index) = &self.slots.index {
            index.save(out);
        }
    }

    /// Reads into an empty head what [`Head::save`] wrote, trusting nothing.
    fn restore(&mut self, format: &Format, position: usize, from: &mut Reader<'_>) -> Result<(), StateError> {
        let corrupt = |what: &str| Err(StateError::Corrupt(what.to_owned()));
        let (evicted, expired) = (from.u64()?, from.u64()?);
        if let Some(grading) = &mut self.slots.grading {
            grading.load(from)?;
        }
        let rung = from.length(format.rungs() - 1)?;
        let count = from.length(position)?;
        let (mut pages, mut live) = (vec![], vec![]);
        for index in 0..count {
            let page = Page::restore(format, index == 0, self.slots.grading.as_deref_mut(), from)?;
            let mask = from.u64()?;
            let room = page.strips() * STRIP;
            if index + 1 < count && room != PAGE || room < PAGE && mask >> room != 0 {
                return corrupt("a page has room where there is none");
            }
            if index + 1 < count && page.open() > 0 {
                return corrupt("a page before the last has open strips");
            }
            pages.push(Arc::new(page));
            live.push(mask);
        }
        let slots = pages.iter().map(|page| page.strips() * STRIP).sum::<usize>();
        let positions = from.words(slots)?;
        for (slot, &p) in positions.iter().enumerate() {
            let holds = live[slot / PAGE] >> (slot % PAGE) & 1 == 1;
            let valid = if holds { (p as usize) < position } else { p == EMPTY };
            if !valid {
                return corrupt("a slot holds a token that was never seen");
            }
        }
        let state = from.words(slots * self.keep.words())?;
        pages.shrink_to_fit();
        live.shrink_to_fit();
        (self.evicted, self.expired) = (evicted, expired);
        self.slots.restore(rung, pages, live, positions, state);
        self.keep.load(from)?;
        if let Some(tail) = &mut self.tail {
            tail.load(from)?;
        }
        if let Some(index) = &mut self.slots.index {
            index.resize(slots);
            index.load(from)?;
        }
        Ok(())
    }
}

impl Page {
    fn save(&self, out: &mut Writer) {
        out.u64(self.rung() as u64);
        out.u64(self.open() as u64);
        out.u64(self.strips() as u64);
        let (keys, values, grid) = self.parts();
        out.raw(keys);
        out.raw(values);
        grid.iter().for_each(|x| out.raw(&x.to_le_bytes()));
    }

    /// `grading` is the head's; `first` says whether it is its first page.
    fn restore(
        format: &Format,
        first: bool,
        grading: Option<&mut Grading>,
        from: &mut Reader<'_>,
    ) -> Result<Page, StateError> {
        let rung = from.length(format.rungs() - 1)?;
        let open = from.length(PAGE_STRIPS)?;
        let strips = from.length(PAGE_STRIPS)?;
        let front = usize::from(first && format.keeps_front()).min(strips);
        if open > strips - front || open > 0 && !format.opens() {
            return Err(StateError::Corrupt("an open strip where none is kept open".to_owned()));
        }
        let grades = grading.map(|grading| grading.on_rung(rung));
        let mut page = Page::empty(format, first, rung).zeros(format, strips, open, grades.as_ref());
        let (keys, values, grid) = page.parts_mut();
        keys.copy_from_slice(from.raw(keys.len())?);
        values.copy_from_slice(from.raw(values.len())?);
        let bytes = from.raw(2 * grid.len())?;
        for (x, bytes) in grid.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *x = f16::from_le_bytes(*bytes);
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sketchkv_kernels::ThreadPool;

    fn shape() -> CacheShape {
        CacheShape::uniform(1, LayerShape::new(2, 1, 32), 512)
    }

    /// After a hundred tokens.
    fn used(spec: &str) -> Cache {
        let pool = ThreadPool::new(1);
        let mut cache = Cache::new(shape(), &spec.parse().unwrap(), 3).unwrap();
        let numbers: Vec<f32> = (0..100 * 64).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let mut out = vec![0.0; 6400];
        let mut workspace = crate::AttentionWorkspace::new();
        let mut pass = cache.begin(100, &mut workspace).unwrap();
        let (keys, values) = numbers.split_at(3200);
        pass.attend(0, &pool, &mut workspace, &numbers, keys, values, &mut out).unwrap();
        pass.finish(&pool, &mut workspace).unwrap();
        cache
    }

    #[test]
    fn the_version_before_is_read_where_nothing_has_changed() {
        for (spec, is_read) in [("h2o+kivi4@40tok", true), ("full+k=progressive+v=q8", false)] {
            let mut bytes = used(spec).to_bytes();
            bytes[8..12].copy_from_slice(&EARLIER.0.to_le_bytes());
            let error = Cache::from_bytes(&bytes, shape()).err().map(|error| error.to_string());
            assert_eq!(error.is_none(), is_read, "{spec}: {error:?}");
            assert!(error.is_none_or(|error| error.contains("version 7, this program reads version 8")));
        }
    }

    #[test]
    fn damage_is_an_error_and_no_panic() {
        let bytes = used("h2o+kivi4@40tok").to_bytes();
        assert_eq!(Cache::from_bytes(&bytes, shape()).unwrap().to_bytes(), bytes);
        for end in 0..bytes.len() {
            assert!(Cache::from_bytes(&bytes[..end], shape()).is_err());
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x41;
            assert!(Cache::from_bytes(&damaged, shape()).is_err(), "byte {at}");
            // With the checksum made right, too, nothing may panic.
            let sum = crc32fast::hash(&damaged[HEADER..]);
            damaged[12..16].copy_from_slice(&sum.to_le_bytes());
            let _ = Cache::from_bytes(&damaged, shape());
        }
        let other = CacheShape::uniform(1, LayerShape::new(4, 1, 32), 512);
        let error = Cache::from_bytes(&bytes, other).err().unwrap().to_string();
        assert!(error.contains("2 query heads, this one has 4"), "{error}");
    }
}
