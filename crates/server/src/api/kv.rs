//! What a cache takes and holds.

use serde::Serialize;
use sketchkv_cache::Cache;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a cache takes and holds.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Kv {
    /// The composition of methods, its cap with it.
    pub(crate) spec: String,
    /// All of it.
    pub(crate) bytes: usize,
    /// The most bytes it may take at this length, if it has a cap.
    pub(crate) cap: Option<usize>,
    /// What an uncompressed cache of the same tokens takes, in f16.
    pub(crate) full_bytes: usize,
    /// Tokens seen.
    pub(crate) tokens: usize,
    /// Tokens held, in the mean over the heads of the layers without sliding windows.
    pub(crate) kept: f64,
    /// Of those, the ones held in 8 bits or more, as they came or nearly so: the first and the newest.
    pub(crate) exact: f64,
    /// Bits of a number of their keys and values, in the mean, scales not counted.
    pub(crate) exact_bits: f64,
    /// Bits of a number of the others' keys, in the mean, scales not counted.
    pub(crate) key_bits: f64,
    /// Bits of a number of the others' values.
    pub(crate) value_bits: f64,
    /// The bytes by item.
    pub(crate) ledger: BTreeMap<&'static str, usize>,
}

impl Kv {
    /// Of `cache` as it is now.
    pub(crate) fn of(cache: &Cache) -> Self {
        let (ledger, holding, tokens) = (cache.ledger(), cache.holding(), cache.position());
        Kv {
            spec: cache.spec().to_string(),
            bytes: ledger.total(),
            cap: cache.cap_bytes(),
            full_bytes: cache.shape().f16_bytes(tokens),
            tokens,
            kept: holding.kept,
            exact: holding.exact,
            exact_bits: holding.exact_bits,
            key_bits: holding.key_bits,
            value_bits: holding.value_bits,
            ledger: ledger.items().into_iter().collect(),
        }
    }
}
