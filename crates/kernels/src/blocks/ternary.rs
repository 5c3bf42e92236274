//! Blocks of 256 weights of three values: TQ1_0 and TQ2_0.
//!
//! | format | bytes | weight |
//! |---|---|---|
//! | TQ1_0 | 32 + 16 bytes of 5 digits, 4 bytes of 4 digits, d | d·(digit − 1) |
//! | TQ2_0 | 2 × 32 bytes of 4 bit pairs, d | d·(q − 1) |
//!
//! Digit n of all bytes of a run comes before digit n + 1. A byte of TQ1_0 is a fraction of 256, in base 3 with the first
//! digit the highest: times 3ⁿ, modulo 256, it begins with digit n.

use super::{BlockFormat, Group, scale_at};
use ::half::f16;

/// Weights in a block.
pub(super) const LEN: usize = 256;

/// Decodes one block.
pub(super) fn dequantize(format: BlockFormat, block: &[u8], out: &mut [f32]) {
    let d = scale(block).to_f32();
    for (i, o) in out.iter_mut().enumerate() {
        *o = d * (i32::from(digit(format, block, i)) - 1) as f32;
    }
}

/// Group `group` of 32 weights; codes are around 8.
pub(super) fn group(format: BlockFormat, block: &[u8], group: usize) -> Group {
    let codes = std::array::from_fn(|i| digit(format, block, 32 * group + i) + 7);
    Group { codes, d: scale(block), ..Group::default() }
}

fn scale(block: &[u8]) -> f16 {
    scale_at(block, block.len() - 2)
}

fn digit(format: BlockFormat, block: &[u8], i: usize) -> u8 {
    if format == BlockFormat::TQ2_0 {
        return block[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
    }
    let (byte, n) = match i {
        0..160 => (block[i % 32], i / 32),
        160..240 => (block[32 + (i - 160) % 16], (i - 160) / 16),
        _ => (block[48 + (i - 240) % 4], (i - 240) / 4),
    };
    let fraction = byte.wrapping_mul([1, 3, 9, 27, 81][n]);
    ((u16::from(fraction) * 3) >> 8) as u8
}
