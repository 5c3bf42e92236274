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

use super::{BlockFormat, Codes, Units, scale_at};
use crate::Scale;
use crate::half::{f16, to_f16};

/// Weights in a block.
pub(super) const LEN: usize = 32;

/// Decodes one block.
pub(super) fn dequantize(format: BlockFormat, block: &[u8], out: &mut [f32]) {
    let Codes { units, d, m } = codes(format, block);
    let d = d.to_f32();
    // The symmetric formats are exact as d·(u − offset); d·u + m would round twice.
    let (offset, m) = match format {
        BlockFormat::Q4_1 | BlockFormat::Q5_1 => (0, m.to_f32()),
        _ => (offset(format), 0.0),
    };
    out.iter_mut().zip(units.bytes()).for_each(|(o, u)| *o = d * (i32::from(u) - offset) as f32 + m);
}

/// The code that stands for zero in the symmetric formats.
fn offset(format: BlockFormat) -> i32 {
    match format {
        BlockFormat::Q4_0 => 8,
        BlockFormat::Q5_0 | BlockFormat::Q8_0 => 128,
        _ => 0,
    }
}

/// The block's codes, scale and constant. The symmetric formats give m = −offset·d, which f16 holds to rounding.
pub(super) fn codes(format: BlockFormat, block: &[u8]) -> Codes {
    let d = scale_at(block, 0);
    let symmetric = f16::from_f32(-(offset(format) as f32) * d.to_f32());
    let (units, m) = match format {
        BlockFormat::Q4_0 => (Units::Pairs(array(&block[2..])), symmetric),
        BlockFormat::Q4_1 => (Units::Pairs(array(&block[4..])), scale_at(block, 2)),
        // From around 16 to around 128, where the symmetric tiles of bytes have their zero.
        BlockFormat::Q5_0 => (Units::Bytes(five_bits(&block[2..6], &block[6..]).map(|u| u + 112)), symmetric),
        BlockFormat::Q5_1 => (Units::Bytes(five_bits(&block[4..8], &block[8..])), scale_at(block, 2)),
        _ => (Units::Bytes(array(&block[2..]).map(|b| b ^ 0x80)), symmetric),
    };
    Codes { units, d, m }
}

fn five_bits(high: &[u8], low: &[u8]) -> [u8; LEN] {
    let high = u32::from_le_bytes(array(high));
    let low = Units::Pairs(array(low)).bytes();
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
