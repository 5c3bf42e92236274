use super::data::Measured;
use crate::experiments::Scored;

/// An amount of bytes that caches were held to, and all that took no more, whatever they were asked to take.
pub(super) struct Budget<'a, 'b> {
    pub(super) bytes: usize,
    /// The same in percent of an f16 cache.
    pub(super) percent: f64,
    /// By bytes taken.
    pub(super) within: Vec<&'a Measured<'b, Scored>>,
}

/// The budgets that were kept to, the largest first; those within 2 % of each other are one. A cache that missed its own
/// cap belongs to none.
pub(super) fn budgets<'a, 'b>(scored: &[&'a Measured<'b, Scored>]) -> Vec<Budget<'a, 'b>> {
    let mut kept: Vec<&Measured<'b, Scored>> =
        scored.iter().copied().filter(|s| !s.of.row.footprint.missed()).collect();
    kept.sort_by_key(|s| s.of.row.footprint.kv_bytes);
    let Some(&first) = kept.first() else { return Vec::new() };
    let one_percent = first.of.row.footprint.kv_bytes as f64 / first.of.row.footprint.kv_percent;
    let cap = |s: &Measured<'b, Scored>| s.of.row.spec.rsplit_once('@').map(|(_, cap)| cap.to_owned());
    // A cap in tokens is as many bytes as the largest of its caches took.
    let taken = |of: &str| {
        let alike = kept.iter().filter(|s| cap(s).as_deref() == Some(of));
        alike.map(|s| s.of.row.footprint.kv_bytes).max()
    };
    let asked = |s: &&Measured<'b, Scored>| s.of.row.footprint.asked_bytes.or_else(|| taken(&cap(s)?));
    let mut amounts: Vec<usize> = kept.iter().filter_map(asked).collect();
    amounts.sort_unstable_by(|a, b| b.cmp(a));
    amounts.dedup_by(|smaller, larger| *smaller as f64 * 1.02 >= *larger as f64);
    let budget = |bytes: usize| Budget {
        bytes,
        percent: bytes as f64 / one_percent,
        within: kept.iter().copied().filter(|s| s.of.row.footprint.is_within(bytes)).collect(),
    };
    amounts.into_iter().map(budget).collect()
}
