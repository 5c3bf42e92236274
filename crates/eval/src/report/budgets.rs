use super::data::Measured;
use crate::{advise::UNNOTICED, experiments::Scored};

/// Shares of an uncompressed cache that the page answers for, in percent.
const SHARES: [f64; 3] = [50.0, 25.0, 12.5];

/// An amount of bytes, and all caches that took no more, whatever they were asked to take.
pub(super) struct Budget<'a, 'b> {
    pub(super) bytes: usize,
    /// The same in percent of an f16 cache.
    pub(super) percent: f64,
    /// By bytes taken.
    pub(super) within: Vec<&'a Measured<'b, Scored>>,
}

impl<'a, 'b> Budget<'a, 'b> {
    /// What to use: the fastest of those whose loss nobody notices, else the cache of least divergence.
    pub(super) fn best(&self) -> Option<&'a Measured<'b, Scored>> {
        let rate = |s: &&Measured<'b, Scored>| s.of.row.decode_tps;
        let unnoticed = self.within.iter().copied().filter(|s| s.of.row.kl_mean < UNNOTICED);
        unnoticed.max_by(|a, b| rate(a).total_cmp(&rate(b))).or_else(|| {
            self.within.iter().copied().min_by(|a, b| a.of.row.kl_mean.total_cmp(&b.of.row.kl_mean))
        })
    }
}

/// The caches that kept to their caps, by bytes: one that took over 2 % more than it was asked to counts for no budget.
pub(super) struct Kept<'a, 'b>(Vec<&'a Measured<'b, Scored>>);

impl<'a, 'b> Kept<'a, 'b> {
    pub(super) fn of(scored: &[&'a Measured<'b, Scored>]) -> Self {
        let mut kept: Vec<&Measured<'b, Scored>> =
            scored.iter().copied().filter(|s| !s.of.row.footprint.missed()).collect();
        kept.sort_by_key(|s| s.of.row.footprint.kv_bytes);
        Kept(kept)
    }

    pub(super) fn smallest(&self) -> Option<&'a Measured<'b, Scored>> {
        self.0.first().copied()
    }

    /// Bytes of one percent of an f16 cache; the largest cache tells it most exactly.
    fn one_percent(&self) -> Option<f64> {
        let footprint = &self.0.last()?.of.row.footprint;
        Some(footprint.kv_bytes as f64 / footprint.kv_percent)
    }

    /// What fits in `bytes`; it can be asked of caches only.
    fn budget(&self, bytes: usize, one_percent: f64) -> Budget<'a, 'b> {
        Budget {
            bytes,
            percent: bytes as f64 / one_percent,
            within: self.0.iter().copied().filter(|s| s.of.row.footprint.is_within(bytes)).collect(),
        }
    }

    /// The amounts that caches were held to, the largest first; those within 2 % of each other are one.
    fn amounts(&self) -> Vec<usize> {
        let cap = |s: &Measured<'b, Scored>| s.of.row.spec.rsplit_once('@').map(|(_, cap)| cap.to_owned());
        // A cap in tokens is as many bytes as the largest of its caches took.
        let taken = |of: &str| {
            let alike = self.0.iter().filter(|s| cap(s).as_deref() == Some(of));
            alike.map(|s| s.of.row.footprint.kv_bytes).max()
        };
        let asked = |s: &&Measured<'b, Scored>| s.of.row.footprint.asked_bytes.or_else(|| taken(&cap(s)?));
        let mut amounts: Vec<usize> = self.0.iter().filter_map(asked).collect();
        amounts.sort_unstable_by(|a, b| b.cmp(a));
        amounts.dedup_by(|smaller, larger| *smaller as f64 * 1.02 >= *larger as f64);
        amounts
    }

    /// Every budget that was asked for and kept to.
    pub(super) fn asked(&self) -> Vec<Budget<'a, 'b>> {
        let Some(one_percent) = self.one_percent() else { return Vec::new() };
        self.amounts().into_iter().map(|bytes| self.budget(bytes, one_percent)).collect()
    }

    /// Three budgets, the largest first: those asked for where they are near to a half, a quarter and an eighth.
    pub(super) fn three(&self) -> Vec<Budget<'a, 'b>> {
        let Some(one_percent) = self.one_percent() else { return Vec::new() };
        let amounts = self.amounts();
        let near = |share: f64| {
            let off = |&bytes: &usize| (bytes as f64 / one_percent / share).ln().abs();
            let nearest = amounts.iter().copied().min_by(|a, b| off(a).total_cmp(&off(b)));
            nearest.filter(|bytes| off(bytes) < 0.2).unwrap_or((one_percent * share).round() as usize)
        };
        SHARES.iter().map(|&share| self.budget(near(share), one_percent)).collect()
    }
}
