//! Weighted sums of values as integer products: four slots at a time, by VNNI.
//!
//! Weights are rounded to signed bytes, scale by scale: with w' = w·s, w' ≈ u·b for |b| ≤ 127 and one u a query and run of
//! strips, Σ w·s·(code − offset) = u·(Σ b·code − offset·Σ b). The same b stand in both sums, so that an error of b meets a
//! level and not a code, and is at most 0.4 % of the largest w' of the run.

use super::keys::ByteLevels;
use super::strips::Stream;
use super::values::fetch_row;
use super::layout::{BLOCK, Codes, Encoding, Layout, STRIP, ScaleGroup};
use std::arch::x86_64::*;

/// Dimensions of a piece: one register of bytes.
const PIECE: usize = 64;
/// Strips that share the unit of their weights.
const RUN: usize = 4;

/// The codes that [`sums`] multiplies.
pub(super) fn takes(layout: &Layout) -> Option<Codes> {
    match layout.encoding {
        Encoding::Codes(codes) if matches!(codes.bits, 4 | 8) && layout.dim.is_multiple_of(PIECE) => {
            Some(codes)
        }
        _ => None,
    }
}

/// As [`super::value_sums`], for the layouts that it [`takes`].
///
/// # Safety
/// The CPU has the features named below; the sizes are those that `value_sums` checked.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn sums(
    layout: &Layout,
    codes: &Codes,
    weights: &[f32],
    stride: usize,
    strips: Stream<'_>,
    out: &mut [f32],
) {
    let queries = out.len() / layout.dim;
    for first in (0..queries).step_by(4) {
        let (weights, out) = (&weights[first * stride..], &mut out[first * layout.dim..]);
        // SAFETY: as the caller's.
        unsafe {
            match (queries - first, codes.bits) {
                (1, 8) => group::<1, 8>(layout, codes, weights, stride, strips, out),
                (2, 8) => group::<2, 8>(layout, codes, weights, stride, strips, out),
                (3, 8) => group::<3, 8>(layout, codes, weights, stride, strips, out),
                (_, 8) => group::<4, 8>(layout, codes, weights, stride, strips, out),
                (1, _) => group::<1, 4>(layout, codes, weights, stride, strips, out),
                (2, _) => group::<2, 4>(layout, codes, weights, stride, strips, out),
                (3, _) => group::<3, 4>(layout, codes, weights, stride, strips, out),
                _ => group::<4, 4>(layout, codes, weights, stride, strips, out),
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn group<const G: usize, const BITS: u32>(
    layout: &Layout,
    codes: &Codes,
    weights: &[f32],
    stride: usize,
    strips: Stream<'_>,
    out: &mut [f32],
) {
    let bytes = layout.strip_bytes();
    for first in (0..layout.dim).step_by(PIECE) {
        for (index, run) in strips.runs(RUN * bytes).enumerate() {
            // SAFETY: as the caller's.
            unsafe {
                piece::<G, BITS>(layout, codes, &weights[index * RUN * STRIP..], stride, run, out, first)
            };
        }
    }
}

/// Dimensions `first .. first + 64` of the weighted sums of `G` queries over at most [`RUN`] strips.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn piece<const G: usize, const BITS: u32>(
    layout: &Layout,
    codes: &Codes,
    weights: &[f32],
    stride: usize,
    run: Stream<'_>,
    out: &mut [f32],
    first: usize,
) {
    let (bytes, row_bytes) = (layout.strip_bytes(), layout.row_bytes());
    let levels = ByteLevels::new(codes);
    let by_block = codes.group == ScaleGroup::Block;
    let first_group = if by_block { first / BLOCK } else { 0 };
    let local = if by_block { 2 } else { 1 };
    // SAFETY: run, weights, scales and out are as long as `value_sums` checked.
    unsafe {
        // Weights times scales, and what the minima add.
        let mut scaled = [[[_mm512_setzero_ps(); 2]; G]; RUN];
        let mut largest = [_mm512_setzero_ps(); G];
        let mut minima = [[_mm512_setzero_ps(); 2]; G];
        for ((index, strip), scaled) in run.strips.chunks_exact(bytes).enumerate().zip(&mut scaled) {
            let scales = strip.as_ptr().add(layout.code_bytes()).cast::<u16>();
            for half in 0..local {
                let scale = floats(scales.add((first_group + half) * STRIP));
                for g in 0..G {
                    let weight = _mm512_loadu_ps(weights.as_ptr().add(g * stride + index * STRIP));
                    scaled[g][half] = _mm512_mul_ps(weight, scale);
                    largest[g] = _mm512_max_ps(largest[g], _mm512_abs_ps(scaled[g][half]));
                    if codes.minimum {
                        let minimum = floats(scales.add((layout.groups() + first_group + half) * STRIP));
                        minima[g][half] = _mm512_fmadd_ps(weight, minimum, minima[g][half]);
                    }
                }
            }
            if local == 1 {
                scaled.iter_mut().for_each(|scaled| scaled[1] = scaled[0]);
            }
        }
        let mut unit = [0.0f32; G];
        let mut inverse = [_mm512_setzero_ps(); G];
        for g in 0..G {
            let max = _mm512_reduce_max_ps(largest[g]);
            unit[g] = max / 127.0 * levels.unit;
            inverse[g] = _mm512_set1_ps(if max > f32::MIN_POSITIVE { 127.0 / max } else { 0.0 });
        }

        let table = _mm512_broadcast_i32x4(_mm_loadu_si128(levels.table.unwrap_or_default().as_ptr().cast()));
        let ones = _mm512_set1_epi8(1);
        let mut products = [[_mm512_setzero_si512(); 4]; G];
        let mut totals = [_mm512_setzero_si512(); G];
        for ((strip, ahead), scaled) in run.each(bytes).zip(&scaled) {
            // Of each query, the weights of its 16 slots as bytes: for the first 32 dimensions in the lower half.
            let mut packed = [_mm512_setzero_si512(); G];
            for g in 0..G {
                let low = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(scaled[g][0], inverse[g])));
                let high = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(scaled[g][1], inverse[g])));
                let (low, high) = (_mm256_broadcastsi128_si256(low), _mm256_broadcastsi128_si256(high));
                packed[g] = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
                totals[g] = _mm512_dpbusd_epi32(totals[g], ones, packed[g]);
            }
            macro_rules! four_slots {
                ($t:literal) => {
                    let mut rows = [_mm512_setzero_si512(); 4];
                    for (i, row) in rows.iter_mut().enumerate() {
                        if first == 0 {
                            fetch_row(ahead, 4 * $t + i, layout);
                        }
                        let at = strip.as_ptr().add((4 * $t + i) * row_bytes + first * BITS as usize / 8);
                        *row = if BITS == 8 { _mm512_loadu_si512(at.cast()) } else { nibbles(at) };
                        if levels.table.is_some() {
                            *row = _mm512_shuffle_epi8(table, *row);
                        }
                    }
                    let columns = interleaved(rows);
                    for (products, packed) in products.iter_mut().zip(&packed) {
                        let weights = _mm512_shuffle_epi32::<{ 0b01_01_01_01 * $t }>(*packed);
                        for (product, column) in products.iter_mut().zip(columns) {
                            *product = _mm512_dpbusd_epi32(*product, column, weights);
                        }
                    }
                };
            }
            four_slots!(0);
            four_slots!(1);
            four_slots!(2);
            four_slots!(3);
        }

        for g in 0..G {
            let lanes = totals[g];
            let low = sum_of_four(_mm512_castsi512_si128(lanes));
            let high = sum_of_four(_mm512_extracti32x4_epi32::<2>(lanes));
            let rest = [low, high].map(|total| -(unit[g] * (levels.offset * total) as f32));
            let unit = _mm512_set1_ps(unit[g]);
            let sums = untangled(products[g].map(|product| _mm512_cvtepi32_ps(product)));
            for (c, sum) in sums.into_iter().enumerate() {
                let at = out.as_mut_ptr().add(g * layout.dim + first + 16 * c);
                let half = c / 2;
                let mut rest = rest[half];
                if codes.minimum {
                    rest += _mm512_reduce_add_ps(minima[g][if by_block { half } else { 0 }]);
                }
                let sum =
                    _mm512_fmadd_ps(sum, unit, _mm512_add_ps(_mm512_loadu_ps(at), _mm512_set1_ps(rest)));
                _mm512_storeu_ps(at, sum);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn floats(at: *const u16) -> __m512 {
    // SAFETY: the caller vouches for 16 of them.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
}

/// The sum of four lanes.
#[inline]
#[target_feature(enable = "sse4.1")]
fn sum_of_four(x: __m128i) -> i32 {
    let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
    _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x)))
}

/// 64 codes of four bits, one a byte: each 16 bytes hold 16 dimensions low and the next 16 high.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn nibbles(at: *const u8) -> __m512i {
    // SAFETY: the caller vouches for 32 bytes.
    let bytes = unsafe { _mm256_loadu_si256(at.cast()) };
    let twice =
        _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3), _mm512_castsi256_si512(bytes));
    let down = _mm512_srlv_epi64(twice, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4));
    _mm512_and_si512(down, _mm512_set1_epi8(15))
}

/// Four rows of 64 bytes as four registers of 16 lanes, each lane the bytes of one dimension: lane 4L + i of register j is
/// dimension 16L + 4j + i.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn interleaved([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
    let (ab_high, cd_high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
    [
        _mm512_unpacklo_epi16(ab, cd),
        _mm512_unpackhi_epi16(ab, cd),
        _mm512_unpacklo_epi16(ab_high, cd_high),
        _mm512_unpackhi_epi16(ab_high, cd_high),
    ]
}

/// The lanes of [`interleaved`] back in the order of dimensions.
#[inline]
#[target_feature(enable = "avx512f")]
fn untangled([a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
    let (ab, cd) = (_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0x44>(c, d));
    let (ab_high, cd_high) = (_mm512_shuffle_f32x4::<0xee>(a, b), _mm512_shuffle_f32x4::<0xee>(c, d));
    [
        _mm512_shuffle_f32x4::<0x88>(ab, cd),
        _mm512_shuffle_f32x4::<0xdd>(ab, cd),
        _mm512_shuffle_f32x4::<0x88>(ab_high, cd_high),
        _mm512_shuffle_f32x4::<0xdd>(ab_high, cd_high),
    ]
}
