//! AVX-512 with VNNI: one register holds four columns of 16 rows as bytes; `vpdpbusd` multiplies them with four
//! activation bytes broadcast from memory and adds up 32-bit sums, a row in each lane.

use super::{FloatKernel, IntegerKernel, Sums, for_tokens};
use crate::activations::Group;
use crate::matrix::tile::{BLOCK, LANES, TileFormat};
use std::arch::x86_64::*;

/// How far ahead of its use a tile is fetched. The hardware follows the stream as well, but stops at every page.
const PREFETCH_BYTES: usize = 2048;

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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
unsafe fn integers<const TOKENS: usize, const NIBBLES: bool, const AFFINE: bool>(
    tile: &[u8],
    x: &Group,
    sums: &mut Sums,
) {
    let scale_bytes = if AFFINE { 4 * LANES } else { 2 * LANES };
    let code_bytes = if NIBBLES { LANES * BLOCK / 2 } else { LANES * BLOCK };
    let blocks = tile.len() / (scale_bytes + code_bytes);
    debug_assert_eq!(x.scales.len(), blocks * TOKENS);
    let mut at = tile.as_ptr();
    let mut total = [_mm512_setzero_ps(); TOKENS];
    for block in 0..blocks {
        // SAFETY: `at` runs over the blocks of the tile and `place` over `[block][token]`, both as long as the caller
        // promises; a prefetch may name any address.
        unsafe {
            for line in (0..scale_bytes + code_bytes).step_by(64) {
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(PREFETCH_BYTES + line).cast());
            }
            let d = _mm512_cvtph_ps(_mm256_loadu_si256(at.cast()));
            let m = if AFFINE {
                _mm512_cvtph_ps(_mm256_loadu_si256(at.add(2 * LANES).cast()))
            } else {
                _mm512_setzero_ps()
            };
            let weights = load_codes::<NIBBLES>(at.add(scale_bytes));
            for (token, total) in total.iter_mut().enumerate() {
                let place = block * TOKENS + token;
                let quants = x.quants.as_ptr().add(place * BLOCK).cast::<i32>();
                let mut dot = if AFFINE {
                    _mm512_setzero_si512()
                } else {
                    // −offset·Σq: the offset is 8 or 128.
                    let sum = _mm512_set1_epi32(*x.negative_sums.get_unchecked(place));
                    if NIBBLES { _mm512_slli_epi32::<3>(sum) } else { _mm512_slli_epi32::<7>(sum) }
                };
                for (j, w) in weights.iter().enumerate() {
                    dot = _mm512_dpbusd_epi32(dot, *w, _mm512_set1_epi32(quants.add(j).read_unaligned()));
                }
                // The scale of the activations comes last: products of the others do not leave f32.
                let mut product = _mm512_mul_ps(d, _mm512_cvtepi32_ps(dot));
                if AFFINE {
                    product = _mm512_fmadd_ps(m, _mm512_set1_ps(*x.sums.get_unchecked(place)), product);
                }
                *total = _mm512_fmadd_ps(product, _mm512_set1_ps(*x.scales.get_unchecked(place)), *total);
            }
            at = at.add(scale_bytes + code_bytes);
        }
    }
    store(&total, sums);
}

/// The codes of a block as unsigned bytes: register j has columns 4j to 4j + 3.
///
/// # Safety
/// A whole block of codes lies at `codes`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn load_codes<const NIBBLES: bool>(codes: *const u8) -> [__m512i; 8] {
    // SAFETY: four lines of nibbles or eight of bytes lie there.
    let line = |j: usize| unsafe { _mm512_loadu_si512(codes.add(64 * j).cast()) };
    if NIBBLES {
        let low = _mm512_set1_epi8(15);
        let lines = [line(0), line(1), line(2), line(3)];
        std::array::from_fn(|j| {
            let word = if j < 4 { lines[j] } else { _mm512_srli_epi16::<4>(lines[j - 4]) };
            _mm512_and_si512(word, low)
        })
    } else {
        std::array::from_fn(line)
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store<const TOKENS: usize>(total: &[__m512; TOKENS], sums: &mut Sums) {
    for (total, sums) in total.iter().zip(sums.0.chunks_exact_mut(LANES)) {
        // SAFETY: the chunk holds 16 values.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), *total) };
    }
}

/// # Safety
/// See [`FloatKernel`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
unsafe fn singles<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 4 bytes.
    unsafe { floats::<TOKENS, { 4 * LANES }>(tile, x, sums, |block| _mm512_loadu_ps(block.cast())) }
}

/// # Safety
/// See [`FloatKernel`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
unsafe fn halves<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 2 bytes.
    unsafe {
        floats::<TOKENS, { 2 * LANES }>(tile, x, sums, |block| {
            _mm512_cvtph_ps(_mm256_loadu_si256(block.cast()))
        })
    }
}

/// # Safety
/// See [`FloatKernel`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
unsafe fn brains<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 2 bytes.
    unsafe {
        floats::<TOKENS, { 2 * LANES }>(tile, x, sums, |block| {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(block.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        })
    }
}

/// Even and odd columns are summed apart, to halve the wait for each addition.
///
/// # Safety
/// `tile` is made of blocks of `BYTES` bytes that `load` reads one of; `x` has a value for each block and token.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn floats<const TOKENS: usize, const BYTES: usize>(
    tile: &[u8],
    x: &[f32],
    sums: &mut Sums,
    load: impl Fn(*const u8) -> __m512,
) {
    let cols = tile.len() / BYTES;
    debug_assert_eq!(x.len(), cols * TOKENS);
    let mut even = [_mm512_setzero_ps(); TOKENS];
    let mut odd = even;
    let step = |col: usize, total: &mut [__m512; TOKENS]| {
        // SAFETY: within the tile and the rows, see above; a prefetch may name any address.
        unsafe {
            let block = tile.as_ptr().add(col * BYTES);
            _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(PREFETCH_BYTES).cast());
            let weights = load(block);
            for (token, total) in total.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*x.get_unchecked(token * cols + col));
                *total = _mm512_fmadd_ps(weights, x, *total);
            }
        }
    };
    for pair in 0..cols / 2 {
        step(2 * pair, &mut even);
        step(2 * pair + 1, &mut odd);
    }
    if cols % 2 == 1 {
        step(cols - 1, &mut even);
    }
    store::<TOKENS>(&std::array::from_fn(|token| _mm512_add_ps(even[token], odd[token])), sums);
}
