//! Blocks of 32 floats of 4 bits, E2M1, under a power of two: MXFP4.
//!
//! | format | bytes | weight |
//! |---|---|---|
//! | MXFP4 | exponent e, 16 nibble pairs | 2^(e − 128)·v(q) |
//!
//! The table v has the floats doubled, which makes them integers. Nibble pairs are as in Q4_0. The exponent 255 is NaN, as
//! the specification of the OCP says; ggml does not look for it.

use super::{Codes, Units};
use ::half::f16;

/// Weights in a block.
pub(super) const LEN: usize = 32;

/// What the codes stand for.
const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Decodes one block.
pub(super) fn dequantize(block: &[u8], out: &mut [f32]) {
    let scale = scale(block[0]);
    out.iter_mut().zip(values(block)).for_each(|(o, v)| *o = scale * f32::from(v));
}

/// The block's codes, exact for scales from 2⁻²⁴ to 2¹⁸. What is below is rounded to multiples of 2⁻²⁴, the smallest f16,
/// and what is above is cut off at 127 · 2¹⁵.
pub(super) fn codes(block: &[u8]) -> Codes {
    let scale = scale(block[0]);
    let d = scale.clamp(f16::MIN_POSITIVE_SUBNORMAL.to_f32(), 32_768.0);
    let values = values(block);
    let code = |i: usize| (f32::from(values[i]) * (scale / d)).round().clamp(-127.0, 127.0) as i8;
    Codes::signed(f16::from_f32(d), code)
}

/// 2^(exponent − 128), the lowest two of which are subnormal.
fn scale(exponent: u8) -> f32 {
    match exponent {
        0 | 1 => f32::from_bits(0x0020_0000 << exponent),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(exponent - 1) << 23),
    }
}

fn values(block: &[u8]) -> [i8; LEN] {
    Units::Pairs(std::array::from_fn(|i| block[1 + i])).bytes().map(|q| VALUES[usize::from(q)])
}
