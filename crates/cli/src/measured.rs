//! What a run took: bytes of the cache, tokens per second, memory.

use serde_json::{Value, json};
use sketchkv_cache::{Cache, Ledger};
use sketchkv_model::Timing;
use std::{fs, time::Duration};

/// The size of a cache beside that of an uncompressed one.
pub(crate) struct Footprint {
    /// What the cache takes now.
    pub(crate) bytes: u64,
    /// The same in percent of an f16 cache of all tokens seen.
    pub(crate) percent: f64,
}

impl Footprint {
    /// Of `cache` as it is now.
    pub(crate) fn of(cache: &Cache) -> Self {
        let full = cache.position() * cache.shape().f16_bytes_per_token();
        let bytes = cache.ledger().total() as u64;
        Footprint { bytes, percent: 100.0 * bytes as f64 / full.max(1) as f64 }
    }
}

/// Every item of a ledger and their sum, in bytes.
pub(crate) fn ledger(ledger: &Ledger) -> Value {
    json!({
        "keys": ledger.keys,
        "values": ledger.values,
        "scales": ledger.scales,
        "positions": ledger.positions,
        "scores": ledger.scores,
        "codes": ledger.codes,
        "sketches": ledger.sketches,
        "tail": ledger.tail,
        "tables": ledger.tables,
        "slack": ledger.slack,
        "total": ledger.total(),
    })
}

/// Tokens of the prompt per second, `None` when there was none.
pub(crate) fn prefill_rate(timing: &Timing) -> Option<f64> {
    rate(timing.prefill_tokens, timing.prefill)
}

/// Tokens of the answer per second, `None` when there was none.
pub(crate) fn decode_rate(timing: &Timing) -> Option<f64> {
    rate(timing.decode_tokens, timing.decode)
}

fn rate(tokens: usize, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}

/// The most memory this process has had resident; `None` where the system does not say.
pub(crate) fn peak_resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
