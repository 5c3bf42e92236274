//! Codes of 4 bits into a table of 16 values: IQ4_NL and IQ4_XS.
//!
//! | format | weights | bytes | weight |
//! |---|---|---|---|
//! | IQ4_NL | 32 | d, 16 nibble pairs | d·v(q) |
//! | IQ4_XS | 256 | d, u16 of 8 × 2 high bits of scale, 8 × 4 low bits, 8 × 16 nibble pairs | d·(scale − 32)·v(q), for each 32 |
//!
//! Nibble pairs are as in Q4_0.

use super::{BlockFormat, Group, nibbles, scale_at};

/// What the codes stand for.
const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Decodes one block.
pub(super) fn dequantize(format: BlockFormat, block: &[u8], out: &mut [f32]) {
    for (index, out) in out.chunks_exact_mut(32).enumerate() {
        let Group { codes, d, scales, .. } = group(format, block, index);
        let d = d.to_f32() * f32::from(scales[0]);
        out.iter_mut().zip(codes).for_each(|(o, q)| *o = d * f32::from(VALUES[usize::from(q)]));
    }
}

/// Group `group` of 32 weights; codes are places in the table.
pub(super) fn group(format: BlockFormat, block: &[u8], group: usize) -> Group {
    let d = scale_at(block, 0);
    if format == BlockFormat::IQ4_NL {
        return Group { codes: nibbles(&block[2..18]), d, ..Group::default() };
    }
    let high = u16::from_le_bytes([block[2], block[3]]) >> (2 * group) & 3;
    let low = block[4 + group / 2] >> (group % 2 * 4) & 15;
    let scale = (high << 4) as i8 + low as i8 - 32;
    Group { codes: nibbles(&block[8 + 16 * group..][..16]), d, scales: [scale; 2], ..Group::default() }
}
