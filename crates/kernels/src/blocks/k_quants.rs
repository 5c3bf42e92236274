//! Blocks of 256 weights in groups of 16 or 32, whose scales are themselves quantized: Q2_K to Q6_K.
//!
//! | format | group | weight |
//! |---|---|---|
//! | Q2_K | 16 | d·(scale & 15)·q − dmin·(scale >> 4) |
//! | Q3_K | 16 | d·(scale − 32)·(q − 4 or 0), the third bit inverted |
//! | Q4_K | 32 | d·scale·q − dmin·min |
//! | Q5_K | 32 | d·scale·q − dmin·min |
//! | Q6_K | 16 | d·scale·(q − 32) |

use super::{BlockFormat, Group, scale_at};

/// Weights in a block.
pub(super) const LEN: usize = 256;

/// Decodes one block.
pub(super) fn dequantize(format: BlockFormat, block: &[u8], out: &mut [f32]) {
    let offset = match format {
        BlockFormat::Q3_K => 8,
        BlockFormat::Q6_K => 32,
        _ => 0,
    };
    for (index, out) in out.chunks_exact_mut(32).enumerate() {
        let group = group(format, block, index);
        let halves = out.chunks_exact_mut(16).zip(group.codes.chunks_exact(16));
        for (half, (out, codes)) in halves.enumerate() {
            let d = group.d.to_f32() * f32::from(group.scales[half]);
            let m = group.m.to_f32() * f32::from(group.constants[half]);
            out.iter_mut().zip(codes).for_each(|(o, u)| *o = d * (i32::from(*u) - offset) as f32 + m);
        }
    }
}

/// Group `group` of 32 weights. Minima are positive in the file: what is given is added.
pub(super) fn group(format: BlockFormat, block: &[u8], group: usize) -> Group {
    match format {
        BlockFormat::Q2_K => q2(block, group),
        BlockFormat::Q3_K => q3(block, group),
        BlockFormat::Q6_K => q6(block, group),
        _ => q4_or_q5(format, block, group),
    }
}

/// d, dmin, 12 bytes of scales and minima of 6 bits; Q5_K keeps its fifth bits in 32 bytes, one bit a group. Groups 2i and
/// 2i + 1 share 32 bytes of codes, low nibbles first.
fn q4_or_q5(format: BlockFormat, block: &[u8], group: usize) -> Group {
    let packed = &block[4..16];
    let (scale, min) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        (low & 15 | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
    };
    let shift = group % 2 * 4;
    let five = format == BlockFormat::Q5_K;
    let low: &[u8; 32] = array(&block[if five { 48 } else { 16 } + group / 2 * 32..]);
    let mut codes = low.map(|pair| pair >> shift & 15);
    if five {
        let fifth: &[u8; 32] = array(&block[16..]);
        codes.iter_mut().zip(fifth).for_each(|(code, bits)| *code |= (bits >> group & 1) << 4);
    }
    Group {
        codes,
        d: scale_at(block, 0),
        m: -scale_at(block, 2),
        scales: [scale as i8; 2],
        constants: [min as i8; 2],
    }
}

/// 16 bytes of scales, 64 of 2-bit codes, d, dmin. Two halves of 128 weights share 32 bytes by bit pairs.
fn q2(block: &[u8], group: usize) -> Group {
    let scales: &[u8; 2] = array(&block[2 * group..]);
    Group {
        codes: crumbs(array(&block[16 + group / 4 * 32..]), group),
        d: scale_at(block, 80),
        m: -scale_at(block, 82),
        scales: scales.map(|s| (s & 15) as i8),
        constants: scales.map(|s| (s >> 4) as i8),
    }
}

/// 32 bytes of third bits, 64 of 2-bit codes, 12 of 6-bit scales, d. Codes are around 8.
fn q3(block: &[u8], group: usize) -> Group {
    let (third, packed): (&[u8; 32], _) = (array(block), &block[96..108]);
    let mut codes = crumbs(array(&block[32 + group / 4 * 32..]), group);
    codes.iter_mut().zip(third).for_each(|(code, bits)| *code += 4 + 4 * (bits >> group & 1));
    let scales = [2 * group, 2 * group + 1].map(|i| {
        let low = packed[i % 8] >> (i / 8 * 4) & 15;
        let high = packed[8 + i % 4] >> (i / 4 * 2) & 3;
        (low | high << 4) as i8 - 32
    });
    Group { codes, d: scale_at(block, 108), scales, ..Group::default() }
}

/// The 2-bit codes of a group, which share their bytes with three others.
fn crumbs(bytes: &[u8; 32], group: usize) -> [u8; 32] {
    bytes.map(|b| b >> (group % 4 * 2) & 3)
}

/// 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, d. Two halves of 128 weights: within one, 64 bytes hold
/// weights 0 to 63 low and 64 to 127 high; 32 bytes hold the top bit pairs. Codes are around 32.
fn q6(block: &[u8], group: usize) -> Group {
    let (half, within) = (group / 4, group % 4);
    let low: &[u8; 32] = array(&block[half * 64 + within % 2 * 32..]);
    let top: &[u8; 32] = array(&block[128 + half * 32..]);
    let (low_shift, top_shift) = (within / 2 * 4, within * 2);
    let mut codes = low.map(|l| l >> low_shift & 15);
    codes.iter_mut().zip(top).for_each(|(code, t)| *code |= (t >> top_shift & 3) << 4);
    let scales: &[u8; 2] = array(&block[192 + 2 * group..]);
    Group { codes, d: scale_at(block, 208), scales: scales.map(|s| s as i8), ..Group::default() }
}

/// The first bytes of `bytes`.
fn array<const N: usize>(bytes: &[u8]) -> &[u8; N] {
    bytes.first_chunk().expect("a block has the bytes of its format")
}
