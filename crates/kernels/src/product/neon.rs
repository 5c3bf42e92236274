//! aarch64 with the dot product extension: a quarter of a tile at a time, a row in each of four lanes. `sdot` multiplies
//! four bytes of each row with one word of the activations, which it picks out of a register itself.
//!
//! `sdot` takes signed bytes, so byte codes are multiplied around zero, as u − 128.

use super::{FloatKernel, IntegerKernel, RUN, Sums, for_tokens};
use crate::aarch64::{dot_word, load_halves};
use crate::activations::Group;
use crate::matrix::tile::{BLOCK, LANES, TileFormat};
use std::arch::aarch64::*;

/// Rows in a register.
const ROWS: usize = 4;
/// Registers in a row of a tile.
const QUARTERS: usize = LANES / ROWS;

pub(super) fn integer_kernel(format: TileFormat, tokens: usize) -> IntegerKernel {
    const NIBBLES: bool = true;
    const BYTES: bool = false;
    const AFFINE: bool = true;
    const SYMMETRIC: bool = false;
    match format {
        TileFormat::U4 => for_tokens!(tokens, integers, NIBBLES, SYMMETRIC),
        TileFormat::U4M => for_tokens!(tokens, integers, NIBBLES, AFFINE),
        TileFormat::U8 => for_tokens!(tokens, integers, BYTES, SYMMETRIC),
        _ => for_tokens!(tokens, integers, BYTES, AFFINE),
    }
}

pub(super) fn float_kernel(format: TileFormat, tokens: usize) -> FloatKernel {
    match format {
        TileFormat::F16 => for_tokens!(tokens, halves),
        TileFormat::BF16 => for_tokens!(tokens, brains),
        _ => for_tokens!(tokens, singles),
    }
}

/// # Safety
/// See [`IntegerKernel`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn integers<const TOKENS: usize, const NIBBLES: bool, const AFFINE: bool>(
    tile: &[u8],
    x: &Group,
    sums: &mut Sums,
) {
    for first in (0..TOKENS).step_by(4) {
        for quarter in 0..QUARTERS {
            // SAFETY: as promised to this function; there are `TOKENS` tokens from 0.
            unsafe {
                match TOKENS - first {
                    1 => some_tokens::<1, NIBBLES, AFFINE>(tile, x, first, quarter, sums),
                    2 => some_tokens::<2, NIBBLES, AFFINE>(tile, x, first, quarter, sums),
                    3 => some_tokens::<3, NIBBLES, AFFINE>(tile, x, first, quarter, sums),
                    _ => some_tokens::<4, NIBBLES, AFFINE>(tile, x, first, quarter, sums),
                }
            }
        }
    }
}

/// A quarter of the tile with the group's tokens from `first` on.
///
/// # Safety
/// See [`IntegerKernel`]; the group has `TOKENS` tokens from `first` on.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn some_tokens<const TOKENS: usize, const NIBBLES: bool, const AFFINE: bool>(
    tile: &[u8],
    x: &Group,
    first: usize,
    quarter: usize,
    sums: &mut Sums,
) {
    let scale_bytes = if AFFINE { 4 * LANES } else { 2 * LANES };
    let block_bytes = scale_bytes + if NIBBLES { LANES * BLOCK / 2 } else { LANES * BLOCK };
    // What a code is short of in `dot`, times the sum of the activations, is added back.
    let offset = match (NIBBLES, AFFINE) {
        (true, true) | (false, false) => 0,
        (true, false) => -8,
        (false, true) => 128,
    };
    let mut total = [vdupq_n_f32(0.0); TOKENS];
    for block in 0..tile.len() / block_bytes {
        let place = block * x.tokens + first;
        // SAFETY: `block` runs over the blocks of the tile and `place` over `[block][token]`, both as long as the caller
        // promises.
        unsafe {
            let at = tile.as_ptr().add(block * block_bytes);
            let d = load_halves(at.add(2 * ROWS * quarter));
            let codes = at.add(scale_bytes + 4 * ROWS * quarter);
            let quants: [*const i8; TOKENS] =
                std::array::from_fn(|t| x.quants.as_ptr().add((place + t) * BLOCK));
            let dots = dot::<TOKENS, NIBBLES>(codes, quants);
            for (t, (total, dot)) in total.iter_mut().zip(dots).enumerate() {
                let sum = -*x.negative_sums.get_unchecked(place + t);
                let dot = vaddq_s32(dot, vdupq_n_s32(offset * sum));
                // The scale of the activations comes last: products of the others do not leave f32.
                let mut product = vmulq_f32(d, vcvtq_f32_s32(dot));
                if AFFINE {
                    let m = load_halves(at.add(2 * (LANES + ROWS * quarter)));
                    product = vfmaq_n_f32(product, m, *x.sums.get_unchecked(place + t));
                }
                *total = vfmaq_n_f32(*total, product, *x.scales.get_unchecked(place + t));
            }
        }
    }
    for (t, total) in total.iter().enumerate() {
        let place = &mut sums.0[(first + t) * LANES + quarter * ROWS..][..ROWS];
        // SAFETY: the place has four values.
        unsafe { vst1q_f32(place.as_mut_ptr(), *total) };
    }
}

/// Dot products of a block of four rows with the blocks of some tokens.
///
/// # Safety
/// A block of codes begins at `codes`, lines 64 bytes apart, and 32 quants lie at each of `quants`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn dot<const TOKENS: usize, const NIBBLES: bool>(
    codes: *const u8,
    quants: [*const i8; TOKENS],
) -> [int32x4_t; TOKENS] {
    // SAFETY: see above.
    let line = |j: usize| unsafe { vld1q_u8(codes.add(64 * j)) };
    let lines: [int8x16_t; 8] = if NIBBLES {
        std::array::from_fn(|j| {
            let nibbles =
                if j < 4 { vandq_u8(line(j), vdupq_n_u8(15)) } else { vshrq_n_u8::<4>(line(j - 4)) };
            vreinterpretq_s8_u8(nibbles)
        })
    } else {
        std::array::from_fn(|j| vreinterpretq_s8_u8(veorq_u8(line(j), vdupq_n_u8(0x80))))
    };
    let [l0, l1, l2, l3, l4, l5, l6, l7] = lines;
    let mut dots = [vdupq_n_s32(0); TOKENS];
    for (dot, quants) in dots.iter_mut().zip(quants) {
        // SAFETY: see above.
        let (low, high) = unsafe { (vld1q_s8(quants), vld1q_s8(quants.add(16))) };
        let first = dot_word::<1>(dot_word::<0>(*dot, l0, low), l1, low);
        let second = dot_word::<3>(dot_word::<2>(first, l2, low), l3, low);
        let third = dot_word::<1>(dot_word::<0>(second, l4, high), l5, high);
        *dot = dot_word::<3>(dot_word::<2>(third, l6, high), l7, high);
    }
    dots
}

/// # Safety
/// See [`FloatKernel`].
#[target_feature(enable = "neon")]
unsafe fn singles<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 4 bytes.
    unsafe { floats::<TOKENS, 4>(tile, x, sums, |values| vld1q_f32(values.cast())) }
}

/// # Safety
/// See [`FloatKernel`].
#[target_feature(enable = "neon")]
unsafe fn halves<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 2 bytes.
    unsafe { floats::<TOKENS, 2>(tile, x, sums, |values| load_halves(values)) }
}

/// # Safety
/// See [`FloatKernel`].
#[target_feature(enable = "neon")]
unsafe fn brains<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 2 bytes.
    unsafe {
        floats::<TOKENS, 2>(tile, x, sums, |values| {
            vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(vld1_u16(values.cast()))))
        })
    }
}

/// # Safety
/// `tile` is made of blocks of 16 values of `WIDTH` bytes, four of which `load` reads; `x` has a value for each block
/// and token.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn floats<const TOKENS: usize, const WIDTH: usize>(
    tile: &[u8],
    x: &[f32],
    sums: &mut Sums,
    load: impl Fn(*const u8) -> float32x4_t,
) {
    let cols = tile.len() / (LANES * WIDTH);
    debug_assert_eq!(x.len(), cols * TOKENS);
    for token in 0..TOKENS {
        let x = &x[token * cols..][..cols];
        let mut total = [vdupq_n_f32(0.0); QUARTERS];
        for (run, x) in x.chunks(RUN).enumerate() {
            let mut sums = [vdupq_n_f32(0.0); QUARTERS];
            for (col, x) in x.iter().enumerate() {
                let block = (run * RUN + col) * LANES;
                for (quarter, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: within the tile, see above.
                    let weights = unsafe { load(tile.as_ptr().add((block + quarter * ROWS) * WIDTH)) };
                    *sum = vfmaq_n_f32(*sum, weights, *x);
                }
            }
            for (total, sum) in total.iter_mut().zip(sums) {
                *total = vaddq_f32(*total, sum);
            }
        }
        for (place, total) in sums.0[token * LANES..][..LANES].chunks_exact_mut(ROWS).zip(total) {
            // SAFETY: the place has four values.
            unsafe { vst1q_f32(place.as_mut_ptr(), total) };
        }
    }
}
