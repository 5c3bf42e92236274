//! From a cap to what every head may hold.

use crate::budget::Budget;
use crate::format::Format;
use crate::head::{Head, Limit};
use crate::spec::{Cap, Spec};
use crate::{CacheError, CacheShape};
use sketchkv_kernels::attention::layout::STRIP;

/// How the cap is shared out.
pub(crate) struct Plan {
    cap: Cap,
    /// Share of each layer; they sum to 1.
    shares: Vec<f64>,
    kv_heads: usize,
    /// Bytes of the cache that belong to no head.
    base: usize,
    /// Bytes an f16 cache takes for one token.
    f16_bytes_per_token: usize,
    /// The least a head needs, in slots.
    least: usize,
    /// Whether the heads of a layer compete, and the share of an equal part that each keeps.
    pub(crate) pooled: Option<f32>,
}

impl Plan {
    /// `least` is the fewest slots a head can work with; `base` what the cache takes beside its heads, in bytes.
    pub(crate) fn new(
        shape: &CacheShape,
        spec: &Spec,
        budget: &dyn Budget,
        base: usize,
        least: usize,
    ) -> Plan {
        let shares: Vec<f64> = (0..shape.layers).map(|l| budget.share(l, shape.layers)).collect();
        let sum: f64 = shares.iter().sum();
        let pooled = budget.pooled();
        // Heads that compete may each leave all but one slot of a strip empty.
        let least = if pooled.is_some() { least + STRIP - 1 } else { least };
        Plan {
            cap: spec.cap,
            shares: shares.iter().map(|share| share / sum).collect(),
            kv_heads: shape.kv_heads,
            base,
            f16_bytes_per_token: shape.f16_bytes_per_token(),
            least,
            pooled,
        }
    }

    /// Bytes of the cache that belong to no head.
    pub(crate) fn base(&self) -> usize {
        self.base
    }

    /// The cap in bytes when `seen` tokens have been seen; at the start, a share is no less than the minimum.
    pub(crate) fn cap_bytes(&self, seen: usize, format: &Format, head: &Head) -> Option<usize> {
        match self.cap {
            Cap::Bytes(cap) => Some(cap),
            Cap::Percent(percent) => Some(self.share_of(percent, seen).max(self.minimum(format, head))),
            Cap::None | Cap::Tokens(_) => None,
        }
    }

    fn share_of(&self, percent: f64, seen: usize) -> usize {
        (percent / 100.0 * (seen * self.f16_bytes_per_token) as f64) as usize
    }

    /// The smallest cap in bytes: every head gets its least.
    pub(crate) fn minimum(&self, format: &Format, head: &Head) -> usize {
        self.base + self.shares.len() * self.kv_heads * self.head_bytes(format, head, self.least)
    }

    /// Bytes of a head with `slots` slots.
    fn head_bytes(&self, format: &Format, head: &Head, slots: usize) -> usize {
        // Heads that compete fill their last pages unevenly: room for one more page each.
        let ragged = if self.pooled.is_some() { head.page_cost(format) } else { 0 };
        head.fixed_bytes() + head.cost(format, slots.div_ceil(STRIP)) + ragged
    }

    /// # Errors
    /// When the cap, in bytes or tokens, is below the minimum.
    pub(crate) fn check(&self, spec: &Spec, format: &Format, head: &Head) -> Result<(), CacheError> {
        match self.cap {
            Cap::Bytes(cap) if cap < self.minimum(format, head) => Err(CacheError::CapTooSmall {
                spec: spec.to_string(),
                cap,
                minimum: self.minimum(format, head),
            }),
            Cap::Tokens(slots) if slots < self.least => Err(CacheError::Spec(format!(
                "`{spec}`: {slots} tokens are below the minimum of {} for this keep: raise the cap to @{}tok",
                self.least, self.least
            ))),
            _ => Ok(()),
        }
    }

    /// What a head of `layer` may hold when `seen` tokens have been seen. In a pooled layer this is a head's equal part;
    /// the sum over the heads is what binds.
    pub(crate) fn limit(&self, layer: usize, seen: usize, format: &Format, head: &Head) -> Limit {
        let share = self.shares[layer];
        let slots = match self.cap {
            Cap::None => return Limit::NONE,
            Cap::Tokens(tokens) => {
                let slots = (tokens as f64 * share * self.shares.len() as f64).round() as usize;
                return Limit { slots: slots.max(self.least), bytes: usize::MAX };
            }
            Cap::Bytes(cap) => self.slots_under(cap, share, format, head),
            Cap::Percent(percent) => self.slots_under(self.share_of(percent, seen), share, format, head),
        };
        let slots = slots.max(self.least.next_multiple_of(STRIP));
        Limit { slots, bytes: self.head_bytes(format, head, slots) }
    }

    /// The slots of a head of a layer under a cap in bytes: its least, and the layer's share of what is left.
    fn slots_under(&self, cap: usize, share: f64, format: &Format, head: &Head) -> usize {
        let surplus = cap.saturating_sub(self.minimum(format, head));
        let bytes = self.head_bytes(format, head, self.least);
        self.slots_within(bytes + (surplus as f64 * share) as usize / self.kv_heads, format, head)
    }

    /// The most slots, in whole strips, of a head of `bytes` bytes.
    fn slots_within(&self, bytes: usize, format: &Format, head: &Head) -> usize {
        let fits = |strips: usize| self.head_bytes(format, head, strips * STRIP) <= bytes;
        let (mut low, mut high) = (0, 1 + bytes / (format.strip_bytes() + STRIP * 4));
        while low < high {
            let middle = (low + high).div_ceil(2);
            if fits(middle) { low = middle } else { high = middle - 1 }
        }
        low * STRIP
    }
}
