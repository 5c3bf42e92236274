//! From a cap to what every head may hold.

use crate::budget::{Budget, Rivals};
use crate::cost::HeadCost;
use crate::plan::Limit;
use crate::spec::{Cap, Spec};
use crate::{CacheError, CacheShape};
use sketchkv_kernels::attention::layout::STRIP;

/// How the cap is shared out.
pub(crate) struct Allotment {
    layers: Vec<LayerAllotment>,
    /// Bytes of the cache that belong to no head.
    base: usize,
}

/// What a layer gets.
struct LayerAllotment {
    cost: HeadCost,
    kv_heads: usize,
    /// Of what is left when every head has its least; the shares of all layers sum to 1.
    share: f64,
    /// The fewest slots a head works with.
    least: usize,
    /// The most slots a head has use for: those of its sliding window.
    most: usize,
}

/// How often the range of what windows may hold is halved.
const HALVINGS: usize = 20;

impl LayerAllotment {
    /// Bytes of a head with a window at this coarseness: all its tokens on the rung of that number, or between two, and beyond the
    /// last rung less and less of them.
    fn of_window(&self, coarseness: f64) -> usize {
        let (rung, part) = self.rung(coarseness);
        let less = if rung + 1 < self.cost.rungs() {
            self.cost.all_on(rung + 1, self.most)
        } else {
            self.cost.of(self.least.next_multiple_of(STRIP).min(self.most))
        };
        between(self.cost.all_on(rung, self.most), less, part)
    }

    /// The rung of a coarseness, and how far it is to the next, or to no tokens.
    fn rung(&self, coarseness: f64) -> (usize, f64) {
        let rung = (coarseness as usize).min(self.cost.rungs() - 1);
        (rung, coarseness - rung as f64)
    }

    /// Bytes that a head without a window is to have beside windows of this coarseness, when `seen` tokens have been seen: all of them
    /// on the same rung, or half the part of them that a window keeps.
    fn beside_windows(&self, coarseness: f64, seen: usize) -> usize {
        let (rung, part) = self.rung(coarseness);
        if rung + 1 < self.cost.rungs() {
            return between(self.cost.on(rung, seen), self.cost.on(rung + 1, seen), part);
        }
        self.cost.on(rung, ((1.0 - part).max(0.0) / 2.0 * seen as f64) as usize)
    }

    fn bytes(&self, slots: usize) -> usize {
        self.kv_heads * self.cost.of(slots)
    }

    /// What the layer may hold when it has `surplus` bytes beyond its least.
    fn limit(&self, surplus: f64) -> Limit {
        self.within(self.cost.of(self.least) + surplus as usize / self.kv_heads)
    }

    /// What a head may hold in `bytes` bytes.
    fn within(&self, bytes: usize) -> Limit {
        let slots = self
            .cost
            .slots_within(self.cost.rungs() - 1, bytes)
            .max(self.least.next_multiple_of(STRIP))
            .min(self.most);
        Limit { slots, bytes: bytes.clamp(self.cost.of(slots), self.cost.of_finest(slots)) }
    }
}

/// From `a` bytes to `b`.
fn between(a: usize, b: usize, part: f64) -> usize {
    (a as f64 + (b as f64 - a as f64) * part) as usize
}

impl Allotment {
    /// `heads` are the cost of a head and its fewest slots, layer by layer; `base` what the cache takes beside its heads, in
    /// bytes.
    pub(crate) fn new(
        shape: &CacheShape,
        budget: &dyn Budget,
        base: usize,
        heads: Vec<(HeadCost, usize)>,
    ) -> Allotment {
        let count = shape.layers.len();
        let sum: f64 = (0..count).map(|layer| budget.share(layer, count)).sum();
        // Heads that compete may each leave all but one slot of a strip empty.
        let ragged = if matches!(budget.competition(), Some((Rivals::InLayer, _))) { STRIP - 1 } else { 0 };
        let layers = shape.layers.iter().zip(heads).enumerate().map(|(layer, (shape, (cost, least)))| {
            let most = match shape.window {
                Some(_) => (shape.visible(usize::MAX).max(1) + ragged).next_multiple_of(STRIP),
                None => usize::MAX,
            };
            let (share, least) = (budget.share(layer, count) / sum, (least + ragged).min(most));
            LayerAllotment { cost, kv_heads: shape.kv_heads, share, least, most }
        });
        Allotment { base, layers: layers.collect() }
    }

    /// What a head of a layer costs.
    pub(crate) fn cost(&self, layer: usize) -> &HeadCost {
        &self.layers[layer].cost
    }

    /// Bytes of the cache that belong to no head.
    pub(crate) fn base(&self) -> usize {
        self.base
    }

    /// The smallest cap in bytes: every head gets its least.
    pub(crate) fn minimum(&self) -> usize {
        self.base + self.layers.iter().map(|layer| layer.bytes(layer.least)).sum::<usize>()
    }

    /// The bytes that a cap asks for when `seen` tokens have been seen.
    pub(crate) fn asked_bytes(cap: Cap, shape: &CacheShape, seen: usize) -> Option<usize> {
        match cap {
            Cap::Bytes(cap) => Some(cap),
            Cap::None | Cap::Tokens(_) => None,
            Cap::Percent(percent) | Cap::PercentSeen(percent) => {
                Some((percent / 100.0 * shape.f16_bytes(seen) as f64) as usize)
            }
        }
    }

    /// The cap in bytes when `seen` tokens have been seen; at the start, a share is no less than the minimum.
    pub(crate) fn cap_bytes(&self, cap: Cap, shape: &CacheShape, seen: usize) -> Option<usize> {
        Self::asked_bytes(cap, shape, seen).map(|asked| asked.max(self.minimum()))
    }

    /// # Errors
    /// When the cap, in bytes or tokens, is below the minimum.
    pub(crate) fn check(&self, spec: &Spec) -> Result<(), CacheError> {
        let least = self.layers.iter().map(|layer| layer.least).max().unwrap_or(0);
        match spec.cap {
            Cap::Bytes(cap) if cap < self.minimum() => {
                Err(CacheError::CapTooSmall { spec: spec.to_string(), cap, minimum: self.minimum() })
            }
            Cap::Tokens(slots) if slots < least => Err(CacheError::Spec(format!(
                "`{spec}`: {slots} tokens are below the minimum of {least} for this keep: raise the cap to @{least}tok"
            ))),
            _ => Ok(()),
        }
    }

    /// What a head of each layer may hold when `seen` tokens have been seen. In a pooled layer this is a head's equal
    /// part; the sum over the heads is what binds.
    pub(crate) fn limits(&self, cap: Cap, shape: &CacheShape, seen: usize, limits: &mut Vec<Limit>) {
        limits.clear();
        match cap {
            Cap::None => limits.extend(self.layers.iter().map(|_| Limit::NONE)),
            Cap::Tokens(tokens) => {
                let count = self.layers.len() as f64;
                limits.extend(self.layers.iter().map(|layer| {
                    let slots = (tokens as f64 * layer.share * count).round() as usize;
                    Limit { slots: slots.max(layer.least).min(layer.most), bytes: usize::MAX }
                }));
            }
            Cap::Bytes(_) | Cap::Percent(_) | Cap::PercentSeen(_) => {
                self.share_out(Self::asked_bytes(cap, shape, seen).unwrap_or(0), seen, limits);
            }
        }
    }

    /// What is left when every head has its least goes to the layers by their shares; what a sliding window has no use for
    /// goes to the others. Windows have no finer codes than there is room for with all tokens of the others, and where those
    /// are left with less than half of what they see, windows keep twice the part that they do.
    fn share_out(&self, asked: usize, seen: usize, limits: &mut Vec<Limit>) {
        let windows = self.layers.iter().filter(|layer| layer.most != usize::MAX);
        let Some(rungs) = windows.map(|layer| layer.cost.rungs()).max() else {
            return self.share_out_at(0.0, asked, limits);
        };
        let mut is_fair = |coarseness: f64| {
            self.share_out_at(coarseness, asked, limits);
            let mut open = self.layers.iter().zip(&*limits).filter(|(layer, _)| layer.most == usize::MAX);
            open.all(|(layer, limit)| limit.bytes >= layer.beside_windows(coarseness, seen))
        };
        if is_fair(0.0) {
            return;
        }
        let (mut low, mut high) = (0.0, rungs as f64);
        for _ in 0..HALVINGS {
            let middle = (low + high) / 2.0;
            *if is_fair(middle) { &mut high } else { &mut low } = middle;
        }
        self.share_out_at(high, asked, limits);
    }

    /// As [`Allotment::share_out`], with all windows at one coarseness.
    fn share_out_at(&self, coarseness: f64, asked: usize, limits: &mut Vec<Limit>) {
        let (mut left, mut shares) = (asked.saturating_sub(self.minimum()) as f64, 1.0);
        // Layers that have all they can use, so far.
        limits.clear();
        limits.extend(self.layers.iter().map(|_| Limit::NONE));
        let is_open = |limit: &Limit| *limit == Limit::NONE;
        loop {
            let (before, open, mut changed) = (left, shares, false);
            for (layer, limit) in self.layers.iter().zip(limits.iter_mut()) {
                if layer.most == usize::MAX || !is_open(limit) {
                    continue;
                }
                let bytes = layer.of_window(coarseness);
                let use_for = (layer.kv_heads * bytes).saturating_sub(layer.bytes(layer.least)) as f64;
                if before * (layer.share / open) >= use_for {
                    *limit = layer.within(bytes);
                    (left, shares, changed) = (left - use_for, shares - layer.share, true);
                }
            }
            if !changed {
                break;
            }
        }
        for (layer, limit) in self.layers.iter().zip(limits).filter(|(_, limit)| is_open(limit)) {
            *limit = layer.limit(left * (layer.share / shares));
        }
    }
}
