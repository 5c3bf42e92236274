//! Blocks of 32 weights: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! | format | bytes | weight i |
//! |---|---|---|
//! | Q4_0 | d, 16 nibble pairs | d·(q − 8) |
//! | Q4_1 | d, m, 16 nibble pairs | d·q + m |
//! | Q5_0 | d, 32 fifth bits, 16 nibble pairs | d·(q − 16) |
//! | Q5_1 | d, m, 32 fifth bits, 16 nibble pairs | d·q + m |
//! | Q8_0 | d, 32 signed bytes | d·q |
//!
//! The low nibble of byte i is weight i, the high nibble weight i + 16; d and m are f16.

use super::{BlockFormat, Group, nibbles, scale_at};
use crate::Scale;
use crate::half::{f16, to_f16};

/// Weights in a block.
pub(super) const LEN: usize = 32;

/// Decodes one block.
pub(super) fn dequantize(format: BlockFormat, block: &[u8], out: &mut [f32]) {
    let Group { codes, d, m, .. } = group(format, block);
    let (offset, m) = (offset(format), m.to_f32());
    out.iter_mut().zip(codes).for_each(|(o, u)| *o = d.to_f32() * (i32::from(u) - offset) as f32 + m);
}

/// The code that stands for zero in the symmetric formats.
fn offset(format: BlockFormat) -> i32 {
    match format {
        BlockFormat::Q4_0 => 8,
        BlockFormat::Q5_0 => 16,
        BlockFormat::Q8_0 => 128,
        _ => 0,
    }
}

/// The block's codes, scale and constant.
pub(super) fn group(format: BlockFormat, block: &[u8]) -> Group {
    let d = scale_at(block, 0);
    let (codes, m) = match format {
        BlockFormat::Q4_0 => (nibbles(&block[2..18]), f16::ZERO),
        BlockFormat::Q4_1 => (nibbles(&block[4..20]), scale_at(block, 2)),
        BlockFormat::Q5_0 => (five_bits(&block[2..6], &block[6..]), f16::ZERO),
        BlockFormat::Q5_1 => (five_bits(&block[4..8], &block[8..]), scale_at(block, 2)),
        _ => (array::<LEN>(&block[2..]).map(|b| b ^ 0x80), f16::ZERO),
    };
    Group { codes, d, m, ..Group::default() }
}

fn five_bits(high: &[u8], low: &[u8]) -> [u8; LEN] {
    let (high, low) = (u32::from_le_bytes(array(high)), nibbles(low));
    std::array::from_fn(|i| low[i] | ((high >> i & 1) << 4) as u8)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("a block has the bytes of its format")
}

/// Encodes `weights` as Q8_0: per block of 32 the f16 scale max|w|/127, then 32 signed bytes. What is beyond the reach of
/// that scale becomes the largest number in reach.
///
/// # Panics
/// When `weights` is not a multiple of 32 long, or `out` not 34 bytes for each block.
pub fn quantize_q8_0(weights: &[f32], out: &mut [u8]) {
    assert_eq!(weights.len() % LEN, 0, "Q8_0 takes whole blocks of 32 weights");
    assert_eq!(weights.len() / LEN * 34, out.len(), "Q8_0 takes 34 bytes for 32 weights");
    for (weights, block) in weights.chunks_exact(LEN).zip(out.chunks_exact_mut(34)) {
        let largest = weights.iter().fold(0.0_f32, |a, w| a.max(w.abs()));
        // gguf rounds by the scale as it was before f16, unless that would be out of f16's range.
        let Scale { scale, inverse } = Scale::new(largest.min(127.0 * f16::MAX.to_f32()), 127.0);
        let (d, codes) = block.split_at_mut(2);
        d.copy_from_slice(&to_f16(scale).to_le_bytes());
        let code = |w: &f32| (w * inverse).round().clamp(-127.0, 127.0) as i8 as u8;
        codes.iter_mut().zip(weights).for_each(|(c, w)| *c = code(w));
    }
}
