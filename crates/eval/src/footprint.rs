use crate::format;
use serde::{Deserialize, Deserializer, Serialize};
use sketchkv_cache::{Cache, CacheError, CacheShape, Cap, Ledger, Spec};
use std::collections::BTreeMap;

/// What a cache takes, beside an uncompressed one, what it was asked to take, and the least that it can.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Footprint {
    /// Tokens seen.
    pub kv_tokens: usize,
    /// Bytes of the cache, everything counted.
    pub kv_bytes: usize,
    /// The same in percent of an f16 cache of all tokens seen.
    pub kv_percent: f64,
    /// The cap, in bytes; `None` without a cap, and for one in tokens.
    // A cell of a version that did not say this is not read as one without a cap.
    #[serde(deserialize_with = "required")]
    pub asked_bytes: Option<usize>,
    /// The same in percent of an f16 cache of all tokens seen.
    pub asked_percent: Option<f64>,
    /// The least that the methods need on this model, in bytes; `None` without a cap.
    pub floor_bytes: Option<usize>,
}

fn required<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    Option::deserialize(from)
}

/// What a cache may take over its cap before it counts as having missed it.
const TOLERANCE: f64 = 1.02;

impl Footprint {
    /// Of `cache` as it is now.
    pub fn of(cache: &Cache) -> Self {
        Footprint::at(cache, cache.position(), cache.ledger().total())
    }

    /// Of `cache` as it will be when it has seen `kv_tokens` tokens and takes `kv_bytes` bytes.
    pub(crate) fn at(cache: &Cache, kv_tokens: usize, kv_bytes: usize) -> Self {
        let full = full_bytes(cache.shape(), kv_tokens).max(1);
        let percent = |bytes: usize| 100.0 * bytes as f64 / full as f64;
        let asked_bytes = cache.asked_bytes(kv_tokens);
        Footprint {
            kv_tokens,
            kv_bytes,
            kv_percent: percent(kv_bytes),
            asked_bytes,
            asked_percent: asked_bytes.map(percent),
            floor_bytes: cache.spec().evicts().then(|| cache.floor_bytes()),
        }
    }

    /// Whether the cache took over 2 % more than its cap: no result of it may stand for that cap.
    pub fn missed(&self) -> bool {
        self.asked_bytes.is_some_and(|asked| self.kv_bytes as f64 > TOLERANCE * asked as f64)
    }

    /// Whether it takes no more than `bytes`, within the same 2 %.
    pub fn is_within(&self, bytes: usize) -> bool {
        self.kv_bytes as f64 <= TOLERANCE * bytes as f64
    }

    /// What marks a cache that missed its cap: `took 23.3 %, asked 6.25 %`.
    pub fn mark(&self) -> Option<String> {
        let asked = self.asked_percent.filter(|_| self.missed())?;
        Some(format!("took {} %, asked {} %", format::trimmed(self.kv_percent), format::trimmed(asked)))
    }

    /// What to tell whoever asked `spec` for less than its methods need: the floor, and from where on the share holds.
    pub fn warning(&self, spec: &str) -> Option<String> {
        let (asked, percent) = (self.asked_bytes?, self.asked_percent?);
        let floor = self.floor_bytes.filter(|&floor| floor > asked);
        let bytes = |bytes: usize| format::bytes(bytes as u64);
        match floor {
            Some(floor) => Some(format!(
                "`{spec}` needs at least {} on this model, more than the {} % of {} tokens it was asked to keep to ({}); \
                 it keeps to the share from {} tokens on",
                bytes(floor),
                format::trimmed(percent),
                format::count(self.kv_tokens as u64),
                bytes(asked),
                format::count((floor as f64 / asked as f64 * self.kv_tokens as f64).ceil() as u64),
            )),
            None => self.mark().map(|mark| format!("`{spec}` {mark}")),
        }
    }
}

/// What an f16 cache of `tokens` tokens takes, in bytes.
pub(crate) fn full_bytes(shape: &CacheShape, tokens: usize) -> usize {
    shape.f16_bytes(tokens)
}

/// The smallest cap in bytes that the methods of `spec` accept for a model of this `shape`; `None` without a cap.
pub fn floor_bytes(shape: &CacheShape, spec: &Spec) -> Option<usize> {
    if !spec.evicts() {
        return None;
    }
    match Cache::new(shape.clone(), &Spec { cap: Cap::Bytes(1), ..spec.clone() }, 0) {
        Err(CacheError::CapTooSmall { minimum, .. }) => Some(minimum),
        _ => None,
    }
}

/// The items of a ledger and their `total`, in bytes, by name.
pub type LedgerBytes = BTreeMap<String, usize>;

/// The items of `ledger`, and `total`.
pub fn ledger_bytes(ledger: &Ledger) -> LedgerBytes {
    let total = [("total", ledger.total())];
    ledger.items().into_iter().chain(total).map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

#[cfg(test)]
pub(crate) fn example(tokens: usize, full: usize, bytes: usize, asked: Option<usize>) -> Footprint {
    let percent = |bytes: usize| 100.0 * bytes as f64 / full as f64;
    Footprint {
        kv_tokens: tokens,
        kv_bytes: bytes,
        kv_percent: percent(bytes),
        asked_bytes: asked,
        asked_percent: asked.map(percent),
        floor_bytes: asked.map(|_| bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_percent_over_the_cap_is_a_miss() {
        for (bytes, asked, missed) in [
            (10_000, Some(10_000), false),
            (10_200, Some(10_000), false),
            (10_201, Some(10_000), true),
            (99_000, None, false),
        ] {
            let footprint = example(100, 100_000, bytes, asked);
            assert_eq!(footprint.missed(), missed, "{footprint:?}");
            assert_eq!(footprint.mark().is_some(), missed, "{footprint:?}");
        }
        let missed = example(512, 1_000_000, 233_000, Some(62_500));
        assert_eq!(missed.mark().unwrap(), "took 23.3 %, asked 6.25 %");
    }

    #[test]
    fn a_warning_names_the_floor_and_where_the_share_holds() {
        let footprint = example(512, 1_048_576, 256 << 10, Some(64 << 10));
        let text = footprint.warning("h2o@6.25%").unwrap();
        for part in ["`h2o@6.25%`", "256 KiB", "6.25 % of 512 tokens", "64 KiB", "from 2,048 tokens on"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(example(512, 1_048_576, 64 << 10, Some(64 << 10)).warning("h2o@6.25%"), None);
        assert_eq!(example(512, 1_048_576, 1 << 20, None).warning("full"), None);
    }

    #[test]
    fn a_cell_that_does_not_say_what_was_asked_is_not_read() {
        let mut json = serde_json::to_value(example(1, 100, 10, None)).unwrap();
        assert!(serde_json::from_value::<Footprint>(json.clone()).is_ok());
        json.as_object_mut().unwrap().remove("asked_bytes");
        assert!(serde_json::from_value::<Footprint>(json).is_err());
    }
}
