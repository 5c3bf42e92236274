//! Codes of 4 bits into a table of 16 values: IQ4_NL and IQ4_XS.
//!
//! | format | weights | bytes | weight |
//! |---|---|---|---|
//! | IQ4_NL | 32 | d, 16 nibble pairs | d·v(q) |
//! | IQ4_XS | 256 | d, u16 of 8 × 2 high bits of scale, 8 × 4 low bits, 8 × 16 nibble pairs | d·(scale − 32)·v(q), for each 32 |
//!
//! Nibble pairs are as in Q4_0.

use super::{BlockFormat, Codes, Units, scale_at};
use ::half::f16;

/// What the codes stand for.
const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Decodes one block.
pub(super) fn dequantize(format: BlockFormat, block: &[u8], out: &mut [f32]) {
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, values) = group_values(format, block, group);
        out.iter_mut().zip(values).for_each(|(o, v)| *o = scale * f32::from(v));
    }
}

/// The codes of group `group`; IQ4_XS has its scale rounded to f16.
pub(super) fn codes(format: BlockFormat, block: &[u8], group: usize) -> Codes {
    let (scale, values) = group_values(format, block, group);
    Codes::signed(f16::from_f32(scale), |i| values[i])
}

/// The scale of a group of 32, and what it multiplies.
fn group_values(format: BlockFormat, block: &[u8], group: usize) -> (f32, [i8; 32]) {
    let d = scale_at(block, 0).to_f32();
    let (scale, nibbles) = match format {
        BlockFormat::IQ4_XS => {
            let high = u16::from_le_bytes([block[2], block[3]]) >> (2 * group) & 3;
            let low = block[4 + group / 2] >> (group % 2 * 4) & 15;
            (d * (f32::from(high << 4) + f32::from(low) - 32.0), &block[8 + 16 * group..])
        }
        _ => (d, &block[2..]),
    };
    let codes = Units::Pairs(std::array::from_fn(|i| nibbles[i])).bytes();
    (scale, codes.map(|q| VALUES[usize::from(q)]))
}
