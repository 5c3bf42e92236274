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

impl LayerAllotment {
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
                self.share_out(Self::asked_bytes(cap, shape, seen).unwrap_or(0), limits);
            }
        }
    }

    /// What is left when every head has its least goes to the layers by their shares; what a sliding window has no use for
    /// goes to the others.
    fn share_out(&self, asked: usize, limits: &mut Vec<Limit>) {
        let (mut left, mut shares) = (asked.saturating_sub(self.minimum()) as f64, 1.0);
        // Layers that have all they can use, so far.
        limits.extend(self.layers.iter().map(|_| Limit::NONE));
        let is_open = |limit: &Limit| *limit == Limit::NONE;
        loop {
            let (before, open, mut changed) = (left, shares, false);
            for (layer, limit) in self.layers.iter().zip(limits.iter_mut()) {
                if layer.most == usize::MAX || !is_open(limit) {
                    continue;
                }
                let most = layer.kv_heads * layer.cost.of_finest(layer.most);
                let use_for = (most - layer.bytes(layer.least)) as f64;
                if before * (layer.share / open) >= use_for {
                    *limit = layer.limited(layer.most, usize::MAX);
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
