//! Blocks of 256 weights, eights of which are vectors of a grid: IQ1, IQ2 and IQ3.
//!
//! | format | bytes | weights under a scale | weight |
//! |---|---|---|---|
//! | IQ2_XXS | d, 8 × (4 indices, u32: 4 × 7 bits of signs, 4 of scale) | 32 | ±d/4·(scale + ½)·g |
//! | IQ2_XS | d, 32 × u16: 9 bits of index, 7 of signs; 16 scales of 4 bits | 16 | ±d/4·(scale + ½)·g |
//! | IQ2_S | d, 32 indices, 32 × 8 signs, 2 high bits of each index, 16 scales of 4 bits | 16 | ±d/4·(scale + ½)·g |
//! | IQ3_XXS | d, 64 indices, 8 × u32: 4 × 7 bits of signs, 4 of scale | 32 | ±d/2·(scale + ½)·g |
//! | IQ3_S | d, 64 indices, 1 high bit of each, 32 × 8 signs, 8 scales of 4 bits | 32 | ±d·(2·scale + 1)·g |
//! | IQ1_S | d, 32 indices, 8 × u16: 4 × 3 high bits of index, 3 of scale, the sign of ⅛ | 32 | d·(2·scale + 1)·(g ± ⅛) |
//! | IQ1_M | 32 indices, 32 nibbles: 3 high bits of index, the sign of ⅛; 4 × u16: 4 × 3 bits of scale, 4 of d | 16 | d·(2·scale + 1)·(g ± ⅛) |
//!
//! An index stands for eight magnitudes g, in IQ3 for four. Seven signs have an eighth, which makes the number of minuses
//! even. The first of several fields in a number has the lowest bits.

use super::{BlockFormat, Group, grids, scale_at};
use ::half::f16;

/// Weights in a block.
pub(super) const LEN: usize = 256;

/// The magnitudes of the codes of the IQ2 grids, which have no code 3.
const IQ2: [i8; 4] = [8, 25, 43, 0];
const IQ3_XXS: [i8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
const IQ3_S: [i8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

/// Decodes one block.
pub(super) fn dequantize(format: BlockFormat, block: &[u8], out: &mut [f32]) {
    let d = scale(format, block).to_f32() * 0.125;
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let (scale, values) = eight(format, block, i);
        out.iter_mut().zip(values).for_each(|(o, v)| *o = d * f32::from(scale) * f32::from(v));
    }
}

/// Group `group` of 32 weights: codes are around 128, scales are in eighths.
pub(super) fn group(format: BlockFormat, block: &[u8], group: usize) -> Group {
    let eights: [_; 4] = std::array::from_fn(|i| eight(format, block, group * 4 + i));
    let codes = std::array::from_fn(|i| eights[i / 8].1[i % 8] as u8 ^ 0x80);
    Group { codes, d: scale(format, block), scales: [eights[0].0, eights[2].0], ..Group::default() }
}

/// The scale of a block.
fn scale(format: BlockFormat, block: &[u8]) -> f16 {
    if format != BlockFormat::IQ1_M {
        return scale_at(block, 0);
    }
    let words: [u16; 4] = std::array::from_fn(|word| u16_at(block, 48 + 2 * word));
    f16::from_bits(words.iter().rev().fold(0, |d, word| d << 4 | word >> 12))
}

/// Weights 8i to 8i + 7: a scale in eighths of the block's, and what it multiplies.
fn eight(format: BlockFormat, block: &[u8], i: usize) -> (i8, [i8; 8]) {
    match format {
        BlockFormat::IQ2_XXS => iq2_xxs(block, i),
        BlockFormat::IQ2_XS => iq2_xs(block, i),
        BlockFormat::IQ2_S => iq2_s(block, i),
        BlockFormat::IQ3_XXS => iq3_xxs(block, i),
        BlockFormat::IQ3_S => iq3_s(block, i),
        BlockFormat::IQ1_S => iq1_s(block, i),
        _ => iq1_m(block, i),
    }
}

fn iq2_xxs(block: &[u8], i: usize) -> (i8, [i8; 8]) {
    let group = &block[2 + i / 4 * 8..][..8];
    let (scale, signs) = scale_and_signs(&group[4..], i % 4);
    let entry = grids::IQ2_XXS[usize::from(group[i % 4])];
    (odd(scale), signed(magnitudes(entry), signs))
}

fn iq2_xs(block: &[u8], i: usize) -> (i8, [i8; 8]) {
    let word = u16_at(block, 2 + 2 * i);
    let entry = grids::IQ2_XS[usize::from(word & 511)];
    (odd(nibble(&block[66..], i / 2)), signed(magnitudes(entry), even((word >> 9) as u8)))
}

fn iq2_s(block: &[u8], i: usize) -> (i8, [i8; 8]) {
    let high = block[66 + i / 4] >> (i % 4 * 2) & 3;
    let entry = grids::IQ2_S[index(high, block[2 + i])];
    (odd(nibble(&block[74..], i / 2)), signed(magnitudes(entry), block[34 + i]))
}

fn iq3_xxs(block: &[u8], i: usize) -> (i8, [i8; 8]) {
    let (scale, signs) = scale_and_signs(&block[66 + i / 4 * 4..], i % 4);
    let entries = [0, 1].map(|half| grids::IQ3_XXS[usize::from(block[2 + 2 * i + half])]);
    (2 * odd(scale), signed(two_fours(entries, &IQ3_XXS), signs))
}

fn iq3_s(block: &[u8], i: usize) -> (i8, [i8; 8]) {
    let high = block[66 + i / 4] >> (i % 4 * 2);
    let entries = [0, 1].map(|half| grids::IQ3_S[index(high >> half & 1, block[2 + 2 * i + half])]);
    let values = two_fours(entries, &IQ3_S).map(|v| 8 * v);
    (odd(nibble(&block[106..], i / 4)), signed(values, block[74 + i]))
}

fn iq1_s(block: &[u8], i: usize) -> (i8, [i8; 8]) {
    let word = u16_at(block, 34 + i / 4 * 2);
    let high = (word >> (i % 4 * 3) & 7) as u8;
    (odd((word >> 12 & 7) as u8), eighths(index(high, block[2 + i]), word >> 15 != 0))
}

fn iq1_m(block: &[u8], i: usize) -> (i8, [i8; 8]) {
    let word = u16_at(block, 48 + i / 8 * 2);
    let high = nibble(&block[32..], i);
    (odd((word >> (i / 2 % 4 * 3) & 7) as u8), eighths(index(high & 7, block[i]), high & 8 != 0))
}

/// The scale of 32 weights of IQ2_XXS or IQ3_XXS, and the signs of their eight number `i`.
fn scale_and_signs(word: &[u8], i: usize) -> (u8, u8) {
    let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
    ((word >> 28) as u8, even((word >> (7 * i)) as u8))
}

fn odd(scale: u8) -> i8 {
    2 * scale as i8 + 1
}

fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

fn nibble(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 2] >> (i % 2 * 4) & 15
}

fn index(high: u8, low: u8) -> usize {
    usize::from(high) << 8 | usize::from(low)
}

/// Seven signs and the eighth.
fn even(signs: u8) -> u8 {
    let seven = signs & 127;
    seven | (seven.count_ones() as u8 & 1) << 7
}

/// Set bits of `signs` are minuses.
fn signed(magnitudes: [i8; 8], signs: u8) -> [i8; 8] {
    std::array::from_fn(|k| if signs >> k & 1 == 0 { magnitudes[k] } else { -magnitudes[k] })
}

/// An entry of an IQ2 grid.
fn magnitudes(entry: u16) -> [i8; 8] {
    std::array::from_fn(|k| IQ2[usize::from(entry >> (2 * k) & 3)])
}

/// Two entries of an IQ3 grid.
fn two_fours(entries: [u16; 2], values: &[i8; 8]) -> [i8; 8] {
    std::array::from_fn(|k| values[usize::from(entries[k / 4] >> (k % 4 * 4) & 7)])
}

/// Eight times what is in an entry of IQ1's grid, −1, 0 or 1, moved by ⅛.
fn eighths(index: usize, minus: bool) -> [i8; 8] {
    let (entry, delta) = (grids::IQ1[index], if minus { -1 } else { 1 });
    std::array::from_fn(|k| 8 * ((entry >> (2 * k) & 3) as i8 - 1) + delta)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_sorted_and_have_no_other_codes() {
        let twos: [&[u16]; 4] = [&grids::IQ1, &grids::IQ2_XXS, &grids::IQ2_XS, &grids::IQ2_S];
        let fours: [&[u16]; 2] = [&grids::IQ3_XXS, &grids::IQ3_S];
        for grid in twos.iter().chain(&fours) {
            assert!(grid.is_sorted_by(|a, b| a < b));
        }
        assert!(twos.iter().copied().flatten().all(|entry| entry & entry >> 1 & 0x5555 == 0));
        assert!(fours.iter().copied().flatten().all(|entry| entry & 0x8888 == 0));
    }
}
