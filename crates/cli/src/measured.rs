//! What a run took: bytes of the cache, tokens per second, memory.

use sketchkv_cache::{Cache, Ledger};
use std::fs;

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

/// Every item of a ledger that is not zero, by name, and their sum, in bytes.
pub(crate) fn ledger_items(ledger: &Ledger) -> Vec<(&'static str, usize)> {
    let Ledger { keys, values, scales, positions, scores, codes, sketches, tail, tables, slack } = *ledger;
    let items = [
        ("keys", keys),
        ("values", values),
        ("scales", scales),
        ("positions", positions),
        ("scores", scores),
        ("codes", codes),
        ("sketches", sketches),
        ("tail", tail),
        ("tables", tables),
        ("slack", slack),
    ];
    let total = [("total", ledger.total())];
    items.into_iter().filter(|(_, bytes)| *bytes > 0).chain(total).collect()
}

/// The most memory this process has had resident; `None` where the system does not say.
pub(crate) fn peak_resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
