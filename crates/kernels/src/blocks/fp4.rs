//! Blocks of 32 floats of 4 bits, E2M1, under a power of two: MXFP4.
//!
//! | format | bytes | weight |
//! |---|---|---|
//! | MXFP4 | exponent e, 16 nibble pairs | 2^(e − 128)·v(q) |
//!
//! The table v has the floats doubled, which makes them integers. Nibble pairs are as in Q4_0. The exponent 255 is NaN, as
//! the specification of the OCP says; ggml does not look for it.

use super::{Group, nibbles};
use ::half::f16;

/// Weights in a block.
pub(super) const LEN: usize = 32;

/// What the codes stand for.
const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Decodes one block.
pub(super) fn dequantize(block: &[u8], out: &mut [f32]) {
    let scale = power(block[0]);
    let codes = nibbles(&block[1..17]);
    out.iter_mut().zip(codes).for_each(|(o, q)| *o = scale * f32::from(VALUES[usize::from(q)]));
}

/// The block's codes, places in the table; the scale is the exponent as it is. One that makes a value of the table infinite
/// has a d that is not finite.
pub(super) fn group(block: &[u8]) -> Group {
    let is_finite = (power(block[0]) * 12.0).is_finite();
    let d = if is_finite { f16::ONE } else { f16::INFINITY };
    Group { codes: nibbles(&block[1..17]), d, scales: [block[0] as i8; 2], ..Group::default() }
}

/// 2^(exponent − 128), the lowest two of which are subnormal; NaN for 255.
pub(crate) fn power(exponent: u8) -> f32 {
    match exponent {
        0 | 1 => f32::from_bits(0x0020_0000 << exponent),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(exponent - 1) << 23),
    }
}
