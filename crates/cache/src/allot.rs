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

/// Steps from all tokens of a window to none.
const PARTS: usize = 64;

/// What windows keep: this part of their tokens, on no finer rung.
#[derive(Clone, Copy)]
struct Level {
    rung: usize,
    part: f64,
}

impl LayerAllotment {
    /// Slots for this part of a window.
    fn part_of_window(&self, part: f64) -> usize {
        let slots = (self.most as f64 * part) as usize / STRIP * STRIP;
        slots.max(self.least.next_multiple_of(STRIP)).min(self.most)
    }

    fn bytes(&self, slots: usize) -> usize {
        self.kv_heads * self.cost.of(slots)
    }

    /// What the layer may hold when it has `surplus` bytes beyond its least.
    fn limit(&self, surplus: f64) -> Limit {
        let bytes = self.cost.of(self.least) + surplus as usize / self.kv_heads;
        let slots = self.cost.slots_within(bytes).max(self.least.next_multiple_of(STRIP)).min(self.most);
        self.limited(slots, bytes)
    }

    /// What `slots` slots make of `bytes` bytes.
    fn limited(&self, slots: usize, bytes: usize) -> Limit {
        Limit { slots, bytes: bytes.clamp(self.cost.of(slots), self.cost.of_finest(slots)) }
    }
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
    /// goes to the others. Windows come no better off than they: they have no finer codes than there is room for with all
    /// tokens of the others, and where tokens must go they keep the same part of what they see.
    fn share_out(&self, asked: usize, seen: usize, limits: &mut Vec<Limit>) {
        let windows = self.layers.iter().filter(|layer| layer.most != usize::MAX);
        let Some(rungs) = windows.map(|layer| layer.cost.rungs()).max() else {
            return self.share_out_on(Level { rung: 0, part: 1.0 }, asked, limits);
        };
        // All tokens on each rung from the finest, then fewer and fewer on the coarsest.
        let level = |step: usize| {
            let part = (rungs + PARTS - 1 - step.max(rungs - 1)) as f64 / PARTS as f64;
            Level { rung: step.min(rungs - 1), part }
        };
        let (mut low, mut high) = (0, rungs + PARTS - 2);
        while low < high {
            let middle = (low + high) / 2;
            self.share_out_on(level(middle), asked, limits);
            if self.is_fair(level(middle), seen, limits) { high = middle } else { low = middle + 1 }
        }
        self.share_out_on(level(low), asked, limits);
    }

    /// Whether layers without a window have room for as much as those with one.
    fn is_fair(&self, level: Level, seen: usize, limits: &[Limit]) -> bool {
        let mut open = self.layers.iter().zip(limits).filter(|(layer, _)| layer.most == usize::MAX);
        open.all(|(layer, limit)| {
            let rung = level.rung.min(layer.cost.rungs() - 1);
            limit.bytes >= layer.cost.on(rung, (level.part * seen as f64) as usize)
        })
    }

    /// As [`Allotment::share_out`], with all windows on one level.
    fn share_out_on(&self, level: Level, asked: usize, limits: &mut Vec<Limit>) {
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
                let slots = layer.part_of_window(level.part);
                let bytes = layer.cost.all_on(level.rung, slots);
                let use_for = (layer.kv_heads * bytes).saturating_sub(layer.bytes(layer.least)) as f64;
                if before * (layer.share / open) >= use_for {
                    *limit = layer.limited(slots, bytes);
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
