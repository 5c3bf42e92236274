//! 256-bit vectors: half a tile at a time, a row in each of eight lanes. Two instruction sets share everything but the
//! way four bytes are multiplied and added up.
//!
//! AVX2 has only `vpmaddubsw`, whose sums of two products are 16 bits wide and saturate: with codes up to 255 they would.
//! Codes are therefore multiplied as nibbles. 32 columns of products of a nibble (≤ 15) and an activation (≤ 127), of
//! which a lane of 16 bits takes 16, come to at most 30,480, so that a whole block is added up in 16 bits and widened once.

use super::{FloatKernel, IntegerKernel, RUN, Sums, for_tokens};
use crate::activations::Group;
use crate::matrix::tile::{BLOCK, LANES, TileFormat};
use std::arch::x86_64::*;

const PREFETCH_BYTES: usize = 2048;
const HALF: usize = LANES / 2;

const NIBBLES: bool = true;
const BYTES: bool = false;
const AFFINE: bool = true;
const SYMMETRIC: bool = false;

/// Kernels of one instruction set: a module, since target features cannot be generic.
macro_rules! integer_kernels {
    ($module:ident, $features:literal, $dot:ident) => {
        pub(super) mod $module {
            use super::*;

            pub(in crate::product) fn integer_kernel(format: TileFormat, tokens: usize) -> IntegerKernel {
                match format {
                    TileFormat::U4 => for_tokens!(tokens, integers, NIBBLES, SYMMETRIC),
                    TileFormat::U4M => for_tokens!(tokens, integers, NIBBLES, AFFINE),
                    TileFormat::U8 => for_tokens!(tokens, integers, BYTES, SYMMETRIC),
                    _ => for_tokens!(tokens, integers, BYTES, AFFINE),
                }
            }

            /// # Safety
            /// See [`IntegerKernel`].
            #[target_feature(enable = $features)]
            unsafe fn integers<const TOKENS: usize, const NIBBLES: bool, const AFFINE: bool>(
                tile: &[u8],
                x: &Group,
                sums: &mut Sums,
            ) {
                // Four tokens at a time are what sixteen registers hold.
                for first in (0..TOKENS).step_by(4) {
                    for half in 0..2 {
                        // SAFETY: as promised to this function; there are `TOKENS` tokens from 0.
                        unsafe {
                            match TOKENS - first {
                                1 => some_tokens::<1, NIBBLES, AFFINE>(tile, x, first, half, sums),
                                2 => some_tokens::<2, NIBBLES, AFFINE>(tile, x, first, half, sums),
                                3 => some_tokens::<3, NIBBLES, AFFINE>(tile, x, first, half, sums),
                                _ => some_tokens::<4, NIBBLES, AFFINE>(tile, x, first, half, sums),
                            }
                        }
                    }
                }
            }

            /// Half `half` of the tile with the group's tokens from `first` on.
            ///
            /// # Safety
            /// See [`IntegerKernel`]; the group has `TOKENS` tokens from `first` on.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn some_tokens<const TOKENS: usize, const NIBBLES: bool, const AFFINE: bool>(
                tile: &[u8],
                x: &Group,
                first: usize,
                half: usize,
                sums: &mut Sums,
            ) {
                let scale_bytes = if AFFINE { 4 * LANES } else { 2 * LANES };
                let code_bytes = if NIBBLES { LANES * BLOCK / 2 } else { LANES * BLOCK };
                let blocks = tile.len() / (scale_bytes + code_bytes);
                let mut at = tile.as_ptr();
                let mut total = [_mm256_setzero_ps(); TOKENS];
                for block in 0..blocks {
                    let place = block * x.tokens + first;
                    // SAFETY: `at` runs over the blocks of the tile and `place` over `[block][token]`, both as long as
                    // the caller promises; a prefetch may name any address.
                    unsafe {
                        if half == 0 && first == 0 {
                            for line in (0..scale_bytes + code_bytes).step_by(64) {
                                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(PREFETCH_BYTES + line).cast());
                            }
                        }
                        let d = _mm256_cvtph_ps(_mm_loadu_si128(at.add(2 * HALF * half).cast()));
                        let codes = at.add(scale_bytes + 4 * HALF * half);
                        let quants: [*const i32; TOKENS] =
                            std::array::from_fn(|t| x.quants.as_ptr().add((place + t) * BLOCK).cast());
                        let dots = $dot::<TOKENS, NIBBLES>(codes, quants);
                        for (t, (total, dot)) in total.iter_mut().zip(dots).enumerate() {
                            let dot = if AFFINE {
                                dot
                            } else {
                                // −offset·Σq: the offset is 8 or 128.
                                let sum = _mm256_set1_epi32(*x.negative_sums.get_unchecked(place + t));
                                let shift = if NIBBLES { 3 } else { 7 };
                                _mm256_add_epi32(dot, _mm256_sll_epi32(sum, _mm_cvtsi32_si128(shift)))
                            };
                            // The scale of the activations comes last: products of the others do not leave f32.
                            let mut product = _mm256_mul_ps(d, _mm256_cvtepi32_ps(dot));
                            if AFFINE {
                                let m = _mm256_cvtph_ps(_mm_loadu_si128(
                                    at.add(2 * (LANES + HALF * half)).cast(),
                                ));
                                let sum = _mm256_set1_ps(*x.sums.get_unchecked(place + t));
                                product = _mm256_fmadd_ps(m, sum, product);
                            }
                            let scale = _mm256_set1_ps(*x.scales.get_unchecked(place + t));
                            *total = _mm256_fmadd_ps(product, scale, *total);
                        }
                        at = at.add(scale_bytes + code_bytes);
                    }
                }
                store(&total, first, half, sums);
            }
        }
    };
}

integer_kernels!(avx2, "avx2,fma,f16c", dot_by_nibbles);
integer_kernels!(avx_vnni, "avx2,fma,f16c,avxvnni", dot_by_vnni);

/// Dot products of a block of half a tile with the blocks of some tokens.
///
/// # Safety
/// A block of codes begins at `codes`, lines 64 bytes apart, and 32 quants lie at each of `quants`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dot_by_nibbles<const TOKENS: usize, const NIBBLES: bool>(
    codes: *const u8,
    quants: [*const i32; TOKENS],
) -> [__m256i; TOKENS] {
    let low_bits = _mm256_set1_epi8(15);
    // Sums of 16 bits, of low and high nibbles: in nibble tiles both are columns, in byte tiles digits of one code.
    let mut low = [_mm256_setzero_si256(); TOKENS];
    let mut high = low;
    for j in 0..if NIBBLES { 4 } else { 8 } {
        // SAFETY: see above.
        let line = unsafe { _mm256_loadu_si256(codes.add(64 * j).cast()) };
        let low_nibbles = _mm256_and_si256(line, low_bits);
        let high_nibbles = _mm256_and_si256(_mm256_srli_epi16::<4>(line), low_bits);
        for t in 0..TOKENS {
            // SAFETY: see above.
            let (for_low, for_high) = unsafe {
                let quants = |j: usize| _mm256_set1_epi32(quants[t].add(j).read_unaligned());
                (quants(j), quants(if NIBBLES { 4 + j } else { j }))
            };
            low[t] = _mm256_add_epi16(low[t], _mm256_maddubs_epi16(low_nibbles, for_low));
            let products = _mm256_maddubs_epi16(high_nibbles, for_high);
            if NIBBLES {
                low[t] = _mm256_add_epi16(low[t], products);
            } else {
                high[t] = _mm256_add_epi16(high[t], products);
            }
        }
    }
    let widen = |sums, factor| _mm256_madd_epi16(sums, _mm256_set1_epi16(factor));
    std::array::from_fn(|t| {
        if NIBBLES { widen(low[t], 1) } else { _mm256_add_epi32(widen(low[t], 1), widen(high[t], 16)) }
    })
}

/// [`dot_by_nibbles`] by `vpdpbusd`.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn dot_by_vnni<const TOKENS: usize, const NIBBLES: bool>(
    codes: *const u8,
    quants: [*const i32; TOKENS],
) -> [__m256i; TOKENS] {
    // SAFETY: as promised to this function.
    unsafe { dot_by_words::<TOKENS, NIBBLES>(codes, quants, |dot, w, q| _mm256_dpbusd_avx_epi32(dot, w, q)) }
}

/// Dot products by an instruction that multiplies four bytes a lane with four others and adds them to 32 bits.
///
/// # Safety
/// As [`dot_by_nibbles`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dot_by_words<const TOKENS: usize, const NIBBLES: bool>(
    codes: *const u8,
    quants: [*const i32; TOKENS],
    multiply_add: impl Fn(__m256i, __m256i, __m256i) -> __m256i,
) -> [__m256i; TOKENS] {
    let low_bits = _mm256_set1_epi8(15);
    let mut dots = [_mm256_setzero_si256(); TOKENS];
    for j in 0..if NIBBLES { 4 } else { 8 } {
        // SAFETY: see above.
        let line = unsafe { _mm256_loadu_si256(codes.add(64 * j).cast()) };
        for (dot, quants) in dots.iter_mut().zip(quants) {
            // SAFETY: see above.
            let quants = |j: usize| unsafe { _mm256_set1_epi32(quants.add(j).read_unaligned()) };
            if NIBBLES {
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(line), low_bits);
                *dot = multiply_add(*dot, _mm256_and_si256(line, low_bits), quants(j));
                *dot = multiply_add(*dot, high, quants(4 + j));
            } else {
                *dot = multiply_add(*dot, line, quants(j));
            }
        }
    }
    dots
}

#[inline]
#[target_feature(enable = "avx")]
fn store<const TOKENS: usize>(total: &[__m256; TOKENS], first: usize, half: usize, sums: &mut Sums) {
    for (t, total) in total.iter().enumerate() {
        let place = &mut sums.0[(first + t) * LANES + half * HALF..][..HALF];
        // SAFETY: the place has eight values.
        unsafe { _mm256_storeu_ps(place.as_mut_ptr(), *total) };
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
/// See [`FloatKernel`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn singles<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 4 bytes.
    unsafe { floats::<TOKENS, 4>(tile, x, sums, |values| _mm256_loadu_ps(values.cast())) }
}

/// # Safety
/// See [`FloatKernel`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn halves<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 2 bytes.
    unsafe { floats::<TOKENS, 2>(tile, x, sums, |values| _mm256_cvtph_ps(_mm_loadu_si128(values.cast()))) }
}

/// # Safety
/// See [`FloatKernel`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn brains<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 2 bytes.
    unsafe {
        floats::<TOKENS, 2>(tile, x, sums, |values| {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(values.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        })
    }
}

/// # Safety
/// `tile` is made of blocks of 16 values of `WIDTH` bytes, eight of which `load` reads; `x` has a value for each block
/// and token.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn floats<const TOKENS: usize, const WIDTH: usize>(
    tile: &[u8],
    x: &[f32],
    sums: &mut Sums,
    load: impl Fn(*const u8) -> __m256,
) {
    let cols = tile.len() / (LANES * WIDTH);
    debug_assert_eq!(x.len(), cols * TOKENS);
    // Four tokens at a time, both halves: eight sums.
    for first in (0..TOKENS).step_by(4) {
        let tokens = first..TOKENS.min(first + 4);
        let mut low = [_mm256_setzero_ps(); 4];
        let mut high = low;
        for run in (0..cols).step_by(RUN) {
            let (mut low_run, mut high_run) = ([_mm256_setzero_ps(); 4], [_mm256_setzero_ps(); 4]);
            for col in run..cols.min(run + RUN) {
                // SAFETY: within the tile and the rows, see above; a prefetch may name any address.
                unsafe {
                    let block = tile.as_ptr().add(col * LANES * WIDTH);
                    _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(PREFETCH_BYTES).cast());
                    let (w_low, w_high) = (load(block), load(block.add(HALF * WIDTH)));
                    for (t, token) in tokens.clone().enumerate() {
                        let x = _mm256_set1_ps(*x.get_unchecked(token * cols + col));
                        low_run[t] = _mm256_fmadd_ps(w_low, x, low_run[t]);
                        high_run[t] = _mm256_fmadd_ps(w_high, x, high_run[t]);
                    }
                }
            }
            for t in 0..tokens.len() {
                low[t] = _mm256_add_ps(low[t], low_run[t]);
                high[t] = _mm256_add_ps(high[t], high_run[t]);
            }
        }
        for (t, token) in tokens.enumerate() {
            store(&[low[t]], token, 0, sums);
            store(&[high[t]], token, 1, sums);
        }
    }
}
