//! What a cap means, counted before a text is there.

use crate::{Cache, Cap, LayerShape};

/// What a cache will hold when so many tokens have been seen, in the mean over the layers without sliding windows (over all where
/// all have them).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// Tokens seen.
    pub tokens: usize,
    /// Tokens in slots of a head.
    pub kept: f64,
    /// Of those, the newest that are held in 8 bits or more, where others are codes.
    pub exact: f64,
    /// Bits of a number of the other tokens' keys, scales not counted.
    pub key_bits: f64,
    /// Bits of a number of the other tokens' values, scales not counted.
    pub value_bits: f64,
    /// About the bytes that all of it takes.
    pub bytes: usize,
}

/// Bits of a key's number in which a head's pages are in the mean when tokens begin to go.
const FEWEST: f64 = 3.0;

impl Cache {
    /// The most bytes that a cache of this spec and shape takes while it sees `tokens` tokens: its cap, or what all of them take
    /// where that is less.
    pub fn most_bytes(&self, tokens: usize) -> usize {
        let (common, layers) = (&*self.common, &self.shape.layers);
        let mut limits = vec![];
        common.allotment.limits(self.spec.cap, &self.shape, tokens, &mut limits);
        let of_layer = |(number, layer): (usize, &LayerShape)| {
            let slots = match self.spec.cap {
                Cap::Tokens(_) => layer.visible(tokens).min(limits[number].slots),
                _ => layer.visible(tokens),
            };
            layer.kv_heads * common.allotment.cost(number).on_unlimited(0, slots)
        };
        let all = common.allotment.base() + layers.iter().enumerate().map(of_layer).sum::<usize>();
        common.allotment.cap_bytes(self.spec.cap, &self.shape, tokens).map_or(all, |cap| all.min(cap))
    }

    /// What a cache of this spec and shape will hold after `tokens` tokens: how many are kept, and in how many bits. Reckoned as
    /// if all heads of a layer had equal parts, and all pages were on one rung, of 3 bits or more.
    pub fn forecast(&self, tokens: usize) -> Forecast {
        let (common, layers) = (&*self.common, &self.shape.layers);
        let mut limits = vec![];
        common.allotment.limits(self.spec.cap, &self.shape, tokens, &mut limits);
        let mut sum = Forecast {
            tokens,
            kept: 0.0,
            exact: 0.0,
            key_bits: 0.0,
            value_bits: 0.0,
            bytes: common.allotment.base(),
        };
        let all_slide = layers.iter().all(|layer| layer.window.is_some());
        let counts = |layer: &LayerShape| all_slide || layer.window.is_none();
        let counted = layers.iter().filter(|layer| counts(layer)).count() as f64;
        for (number, (layer, limit)) in layers.iter().zip(&limits).enumerate() {
            let (cost, format) = (common.allotment.cost(number), &common.formats[number]);
            // A head's pages seldom go further down before tokens go.
            let last =
                (0..cost.rungs()).find(|&rung| format.keys.bits(rung) <= FEWEST).unwrap_or(cost.rungs() - 1);
            let slots = layer.visible(tokens).min(limit.slots);
            let slots = if limit.bytes == usize::MAX {
                slots
            } else {
                slots.min(cost.slots_within(last, limit.bytes))
            };
            let rung = (0..last).find(|&rung| cost.on(rung, slots) <= limit.bytes).unwrap_or(last);
            let is_free = limit.bytes == usize::MAX;
            let bytes = if is_free { cost.on_unlimited(rung, slots) } else { cost.on(rung, slots) };
            sum.bytes += layer.kv_heads * bytes;
            if counts(layer) {
                sum.kept += slots as f64 / counted;
                sum.exact += cost.open_slots(slots, is_free) as f64 / counted;
                sum.key_bits += format.keys.bits(rung) / counted;
                sum.value_bits += format.values.bits(rung) / counted;
            }
        }
        if let Some(cap) = common.allotment.cap_bytes(self.spec.cap, &self.shape, tokens) {
            sum.bytes = sum.bytes.min(cap);
        }
        sum
    }
}
