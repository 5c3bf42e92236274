//! What a cache holds right now, in how many bits.

use crate::Cache;
use crate::format::Format;

/// What a cache holds, in the mean over the heads of the layers without sliding windows (over all where all have them).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Holding {
    /// Tokens in slots of a head.
    pub kept: f64,
    /// Of those, the ones that are held in 8 bits or more: the first and the newest, where others are codes.
    pub exact: f64,
    /// Bits of a number of their keys and values, scales not counted; 0 where there are none.
    pub exact_bits: f64,
    /// Bits of a number of the other tokens' keys, scales not counted; 0 where there are none.
    pub key_bits: f64,
    /// Bits of a number of the other tokens' values, scales not counted; 0 where there are none.
    pub value_bits: f64,
}

/// Bits from which a number counts as exact.
const EXACT: f64 = 16.0;

impl Cache {
    /// What it holds right now, in how many bits.
    pub fn holding(&self) -> Holding {
        let all_slide = self.shape.layers.iter().all(|layer| layer.window.is_some());
        let (mut heads, mut coded) = (0, 0.0);
        let bits = |format: &Format, sealed| (format.keys.bits_of(sealed), format.values.bits_of(sealed));
        let mut sum = Holding::default();
        for ((shape, layer), format) in self.shape.layers.iter().zip(&self.layers).zip(&self.common.formats) {
            if shape.window.is_some() && !all_slide {
                continue;
            }
            for head in layer {
                heads += 1;
                for (page, &live) in head.slots.pages().iter().zip(head.slots.live()) {
                    let (held, sealed) = (f64::from(live.count_ones()), page.sealed_tokens(live) as f64);
                    let ((key_bits, value_bits), open) =
                        (bits(format, Some(page.rung())), bits(format, None));
                    let codes = if key_bits.min(value_bits) < EXACT { sealed } else { 0.0 };
                    sum.kept += held;
                    sum.exact += held - codes;
                    sum.exact_bits += (held - codes) * (open.0 + open.1) / 2.0;
                    sum.key_bits += codes * key_bits;
                    sum.value_bits += codes * value_bits;
                    coded += codes;
                }
            }
        }
        let mean = |sum: f64, count: f64| if count > 0.0 { sum / count } else { 0.0 };
        Holding {
            kept: mean(sum.kept, f64::from(heads)),
            exact: mean(sum.exact, f64::from(heads)),
            exact_bits: mean(sum.exact_bits, sum.exact),
            key_bits: mean(sum.key_bits, coded),
            value_bits: mean(sum.value_bits, coded),
        }
    }
}
