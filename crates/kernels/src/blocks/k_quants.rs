//! Blocks of 256 weights in groups of 16 or 32, whose scales are themselves quantized: Q2_K to Q6_K.
//!
//! | format | group | weight |
//! |---|---|---|
//! | Q2_K | 16 | d·(scale & 15)·q − dmin·(scale >> 4) |
//! | Q3_K | 16 | d·(scale − 32)·(q − 4 or 0), the third bit inverted |
//! | Q4_K | 32 | d·scale·q − dmin·min |
//! | Q5_K | 32 | d·scale·q − dmin·min |
//! | Q6_K | 16 | d·scale·(q − 32) |

use super::{BlockFormat, Codes, Units, scale_at};
use ::half::f16;

/// Weights in a block.
pub(super) const LEN: usize = 256;

/// Decodes one block.
pub(super) fn dequantize(format: BlockFormat, block: &[u8], out: &mut [f32]) {
    match format {
        BlockFormat::Q2_K => q2(block, out),
        BlockFormat::Q3_K => q3(block, out),
        BlockFormat::Q6_K => q6(block, out),
        _ => {
            for (group, out) in out.chunks_exact_mut(32).enumerate() {
                let (d, m) = group_scale(block, group);
                let u = group_codes(format, block, group);
                out.iter_mut().zip(u).for_each(|(o, u)| *o = d * f32::from(u) - m);
            }
        }
    }
}

/// The codes of group `group` of a Q4_K or Q5_K block; scale and minimum are rounded to f16.
pub(super) fn codes(format: BlockFormat, block: &[u8], group: usize) -> Codes {
    let (d, m) = group_scale(block, group);
    let u = group_codes(format, block, group);
    let units = match format {
        BlockFormat::Q5_K => Units::Bytes(u),
        _ => Units::Pairs(std::array::from_fn(|i| u[i] | u[i + 16] << 4)),
    };
    Codes { units, d: f16::from_f32(d), m: f16::from_f32(-m) }
}

/// Scale and (positive) minimum of a group of Q4_K or Q5_K: 6 bits each, packed over 12 bytes.
fn group_scale(block: &[u8], group: usize) -> (f32, f32) {
    let packed = &block[4..16];
    let (scale, min) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        (low & 15 | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
    };
    (scale_at(block, 0).to_f32() * f32::from(scale), scale_at(block, 2).to_f32() * f32::from(min))
}

/// Groups 2i and 2i + 1 share 32 bytes, low nibbles first; Q5_K keeps its fifth bits in 32 bytes, one bit a group.
fn group_codes(format: BlockFormat, block: &[u8], group: usize) -> [u8; 32] {
    let shift = group % 2 * 4;
    let (fifth, nibbles) = match format {
        BlockFormat::Q5_K => (Some(&block[16..48]), &block[48..176]),
        _ => (None, &block[16..144]),
    };
    let nibbles = &nibbles[group / 2 * 32..][..32];
    std::array::from_fn(|i| {
        let high = fifth.map_or(0, |bits| (bits[i] >> group & 1) << 4);
        nibbles[i] >> shift & 15 | high
    })
}

/// 16 bytes of scales, 64 of 2-bit codes, d, dmin. Two halves of 128 weights share 32 bytes by bit pairs.
fn q2(block: &[u8], out: &mut [f32]) {
    let (scales, codes) = (&block[..16], &block[16..80]);
    let (d, dmin) = (scale_at(block, 80).to_f32(), scale_at(block, 82).to_f32());
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        let (bytes, shift) = crumbs(codes, group);
        let (scale, min) = (d * f32::from(scales[group] & 15), dmin * f32::from(scales[group] >> 4));
        out.iter_mut().zip(bytes).for_each(|(o, b)| *o = scale * f32::from(b >> shift & 3) - min);
    }
}

/// 32 bytes of third bits, 64 of 2-bit codes, 12 of 6-bit scales, d.
fn q3(block: &[u8], out: &mut [f32]) {
    let (third, codes, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let d = scale_at(block, 108).to_f32();
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        let low = packed[group % 8] >> (group / 8 * 4) & 15;
        let high = packed[8 + group % 4] >> (group / 4 * 2) & 3;
        let scale = d * (i32::from(low | high << 4) - 32) as f32;
        let (bytes, shift) = crumbs(codes, group);
        let third = &third[group % 2 * 16..][..16];
        for ((o, b), t) in out.iter_mut().zip(bytes).zip(third) {
            let missing = 4 * (1 - i32::from(t >> (group / 2) & 1));
            *o = scale * (i32::from(b >> shift & 3) - missing) as f32;
        }
    }
}

/// The 16 bytes, and the shift in them, that hold the 2-bit codes of a group of 16.
fn crumbs(codes: &[u8], group: usize) -> (&[u8], usize) {
    (&codes[group / 8 * 32 + group % 2 * 16..][..16], group % 8 / 2 * 2)
}

/// 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, d. Two halves of 128 weights.
fn q6(block: &[u8], out: &mut [f32]) {
    let d = scale_at(block, 208).to_f32();
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        let (half, within) = (group / 8, group % 8);
        // Within a half, 64 bytes hold weights 0 to 63 low and 64 to 127 high; 32 bytes hold the top bit pairs.
        let low = &block[half * 64 + within % 4 * 16..][..16];
        let top = &block[128 + half * 32 + within % 2 * 16..][..16];
        let (low_shift, top_shift) = (within / 4 * 4, within / 2 * 2);
        let scale = d * f32::from(block[192 + group] as i8);
        for ((o, l), t) in out.iter_mut().zip(low).zip(top) {
            let code = l >> low_shift & 15 | (t >> top_shift & 3) << 4;
            *o = scale * (i32::from(code) - 32) as f32;
        }
    }
}
