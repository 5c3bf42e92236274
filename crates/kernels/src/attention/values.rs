//! Weighted sums of the values of a page, and values decoded for dense products.

use super::floats::{Bf16, F16, F32, Float, copy_floats};
use super::layout::{BLOCK, Codes, Encoding, Layout, Levels, STRIP, ScaleGroup, Side};
use super::packed::{self, ByteLevels, fetch_group, fetch_lines, for_each_kind};
use super::simd::Simd;
use super::strips::Stream;
use crate::cpu::Level;

/// Strips that share the unit of their weights.
const RUN: usize = 4;

/// `out[query][dim] += Σ_slot weights[query · stride + slot] · value(slot)` over consecutive strips.
///
/// `out` is `[query][dim]`, as many queries as it holds. A weight of 0 takes a slot out. Codes are multiplied as integers:
/// weights, times their scales, are rounded to 1/127 of the largest of 64 slots.
///
/// # Panics
/// When sizes do not fit.
pub fn value_sums(
    level: Level,
    layout: &Layout,
    weights: &[f32],
    stride: usize,
    strips: Stream<'_>,
    out: &mut [f32],
) {
    let count = strips.strips.len() / layout.strip_bytes();
    let queries = out.len() / layout.dim;
    assert!(layout.side == Side::Values && strips.strips.len() == count * layout.strip_bytes());
    assert!(queries == 0 || weights.len() >= (queries - 1) * stride + count * STRIP);
    // SAFETY: the level was detected on this CPU, and the sizes are checked above.
    dispatch!(level, value_sums_kernel(layout, weights, stride, strips, out))
}

#[inline(always)]
unsafe fn value_sums_kernel<S: Simd>(
    layout: &Layout,
    weights: &[f32],
    stride: usize,
    strips: Stream<'_>,
    out: &mut [f32],
) {
    let dim = layout.dim;
    let queries = out.len() / dim;
    for first in (0..queries).step_by(4) {
        let (weights, out) = (&weights[first * stride..], &mut out[first * dim..]);
        // SAFETY: as the caller's.
        unsafe {
            match queries - first {
                1 => value_sums_group::<S, 1>(layout, weights, stride, strips, out),
                2 => value_sums_group::<S, 2>(layout, weights, stride, strips, out),
                3 => value_sums_group::<S, 3>(layout, weights, stride, strips, out),
                _ => value_sums_group::<S, 4>(layout, weights, stride, strips, out),
            }
        }
    }
}

#[inline(always)]
unsafe fn value_sums_group<S: Simd, const G: usize>(
    layout: &Layout,
    weights: &[f32],
    stride: usize,
    strips: Stream<'_>,
    out: &mut [f32],
) {
    // Dimensions go in pieces of 64 or 32, so that all sums of a piece stay in registers.
    let mut first = 0;
    while first < layout.dim {
        // SAFETY: as the caller's.
        unsafe {
            if first + 64 <= layout.dim {
                piece::<S, G, 4>(layout, weights, stride, strips, out, first);
                first += 64;
            } else {
                piece::<S, G, 2>(layout, weights, stride, strips, out, first);
                first += 32;
            }
        }
    }
}

/// Dimensions `first .. first + 16 C` of the weighted sums of `G` queries.
#[inline(always)]
unsafe fn piece<S: Simd, const G: usize, const C: usize>(
    layout: &Layout,
    weights: &[f32],
    stride: usize,
    strips: Stream<'_>,
    out: &mut [f32],
    first: usize,
) {
    let dim = layout.dim;
    let out = out.as_mut_ptr();
    // SAFETY: strips, weights and out are as long as `value_sums` checked.
    unsafe {
        let mut sums = [[S::splat(0.0); C]; G];
        for (g, sums) in sums.iter_mut().enumerate() {
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum = S::load(out.add(g * dim + first + 16 * c));
            }
        }
        match layout.encoding {
            Encoding::Codes(codes) => for_each_kind!(codes, |BITS, TABLE| {
                code_sums::<S, G, C, BITS, TABLE>(layout, &codes, weights, stride, strips, first, &mut sums)
            }),
            Encoding::F32 => float_sums::<S, F32, G, C>(layout, weights, stride, strips, first, &mut sums),
            Encoding::F16 => float_sums::<S, F16, G, C>(layout, weights, stride, strips, first, &mut sums),
            Encoding::Bf16 => float_sums::<S, Bf16, G, C>(layout, weights, stride, strips, first, &mut sums),
        }
        for (g, sums) in sums.iter().enumerate() {
            for (c, sum) in sums.iter().enumerate() {
                S::store(out.add(g * dim + first + 16 * c), *sum);
            }
        }
    }
}

/// Adds the weighted floats of some strips to `sums`.
#[inline(always)]
unsafe fn float_sums<S: Simd, E: Float, const G: usize, const C: usize>(
    layout: &Layout,
    weights: &[f32],
    stride: usize,
    strips: Stream<'_>,
    first: usize,
    sums: &mut [[S::F; C]; G],
) {
    for (index, (strip, ahead)) in strips.each(layout.strip_bytes()).enumerate() {
        for slot in 0..STRIP {
            let at = slot * layout.dim + first;
            // SAFETY: strips and weights are as long as `value_sums` checked.
            unsafe {
                fetch_lines(ahead.wrapping_add(at * E::BYTES), 16 * C * E::BYTES);
                let mut row = [S::splat(0.0); C];
                for (c, row) in row.iter_mut().enumerate() {
                    *row = E::load::<S>(strip.as_ptr(), at + 16 * c);
                }
                for (g, sums) in sums.iter_mut().enumerate() {
                    let weight = S::splat(*weights.get_unchecked(g * stride + index * STRIP + slot));
                    for (sum, row) in sums.iter_mut().zip(row) {
                        *sum = S::fma(row, weight, *sum);
                    }
                }
            }
        }
    }
}

/// Weights of one query and strip, times the scales of one group, as signed bytes: four slots a word.
type Packed = [i32; STRIP / 4];

/// Adds the weighted codes of some strips to `sums`, [`RUN`] strips at a time.
///
/// With w' = w·s and w' ≈ u·b for |b| ≤ 127 and one u a query and run, Σ w·s·level = u·unit·(Σ b·byte − offset·Σ b). The
/// same b stand in both sums, so that an error of b meets a level and not a byte, and is at most 0.4 % of the largest w'
/// of the run.
#[inline(always)]
unsafe fn code_sums<S: Simd, const G: usize, const C: usize, const BITS: u32, const TABLE: bool>(
    layout: &Layout,
    codes: &Codes,
    weights: &[f32],
    stride: usize,
    strips: Stream<'_>,
    first: usize,
    sums: &mut [[S::F; C]; G],
) {
    let (dim, bytes, code_bytes, groups) =
        (layout.dim, layout.strip_bytes(), layout.code_bytes(), layout.groups());
    let levels = ByteLevels::new(codes);
    // The scales of each 32 dimensions of this piece, which may be the same ones.
    let first_scale = first / BLOCK;
    let scale_at = |i: usize| if codes.group == ScaleGroup::Block { first_scale + i } else { 0 };
    // SAFETY: strips, weights and scales are as long as `value_sums` checked; C is 2 or 4.
    unsafe {
        let table = S::table(&levels.table.unwrap_or_default());
        // What does not depend on the codes: minima, and the share of the levels' offset.
        let mut rest = [[S::splat(0.0); 2]; G];
        for (index, run) in strips.runs(RUN * bytes).enumerate() {
            let weights = weights.as_ptr().add(index * RUN * STRIP);
            let mut scaled = [[[S::splat(0.0); 2]; G]; RUN];
            let mut largest = [S::splat(0.0); G];
            for ((index, strip), scaled) in run.strips.chunks_exact(bytes).enumerate().zip(&mut scaled) {
                let scales = strip.as_ptr().add(code_bytes).cast::<u16>();
                for i in 0..C / 2 {
                    let scale = S::load_f16(scales.add(scale_at(i) * STRIP));
                    for g in 0..G {
                        let weight = S::load(weights.add(g * stride + index * STRIP));
                        scaled[g][i] = S::mul(weight, scale);
                        let negative = S::sub(S::splat(0.0), scaled[g][i]);
                        largest[g] = S::max(largest[g], S::max(scaled[g][i], negative));
                        if codes.minimum {
                            let minimum = S::load_f16(scales.add((groups + scale_at(i)) * STRIP));
                            rest[g][i] = S::fma(weight, minimum, rest[g][i]);
                        }
                    }
                }
            }
            let mut unit = [0.0f32; G];
            let mut inverse = [0.0f32; G];
            for g in 0..G {
                let max = S::maximum(largest[g]);
                unit[g] = max / 127.0 * levels.unit;
                inverse[g] = if max > f32::MIN_POSITIVE { 127.0 / max } else { 0.0 };
            }

            let mut products = [[S::zero_i(); C]; G];
            let mut totals = [[S::splat(0.0); 2]; G];
            for ((strip, ahead), scaled) in run.each(bytes).zip(&scaled) {
                let mut packed: [[Packed; 2]; G] = [[[0; STRIP / 4]; 2]; G];
                for g in 0..G {
                    for i in 0..C / 2 {
                        let rounded = S::round(S::mul(scaled[g][i], S::splat(inverse[g])));
                        totals[g][i] = S::add(totals[g][i], rounded);
                        S::store_i8(packed[g][i].as_mut_ptr().cast(), rounded);
                    }
                }
                if first == 0 {
                    fetch_lines(ahead.wrapping_add(code_bytes), bytes - code_bytes);
                }
                #[allow(clippy::needless_range_loop)] // `slots` indexes the inner dimension of `packed`
                for slots in 0..STRIP / 4 {
                    for c in 0..C {
                        let group = slots * (dim / 16) + first / 16 + c;
                        fetch_group::<BITS>(ahead, dim, group);
                        let code = packed::load::<S, BITS, TABLE>(strip.as_ptr(), dim, group, table);
                        for g in 0..G {
                            products[g][c] = S::dot4(products[g][c], code, packed[g][c / 2][slots]);
                        }
                    }
                }
            }
            for g in 0..G {
                for i in 0..C / 2 {
                    rest[g][i] = S::fma(totals[g][i], S::splat(-unit[g] * levels.offset), rest[g][i]);
                }
                for c in 0..C {
                    sums[g][c] = S::fma(S::to_f(products[g][c]), S::splat(unit[g]), sums[g][c]);
                }
            }
        }
        for (sums, rest) in sums.iter_mut().zip(&rest) {
            for i in 0..C / 2 {
                let rest = S::splat(S::sum(rest[i]));
                sums[2 * i] = S::add(sums[2 * i], rest);
                sums[2 * i + 1] = S::add(sums[2 * i + 1], rest);
            }
        }
    }
}

/// Decodes the values of consecutive strips to `out`, `[slot][dim]`, for [`super::dense_values`].
///
/// # Panics
/// When sizes do not fit.
pub fn decode_values(level: Level, layout: &Layout, strips: &[u8], out: &mut [f32]) {
    let count = strips.len() / layout.strip_bytes();
    assert!(layout.side == Side::Values && strips.len() == count * layout.strip_bytes());
    assert!(out.len() >= count * STRIP * layout.dim);
    // SAFETY: the level was detected on this CPU, and the sizes are checked above.
    dispatch!(level, decode_values_kernel(layout, strips, out))
}

#[inline(always)]
unsafe fn decode_values_kernel<S: Simd>(layout: &Layout, strips: &[u8], out: &mut [f32]) {
    let dim = layout.dim;
    for (strip, out) in strips.chunks_exact(layout.strip_bytes()).zip(out.chunks_exact_mut(STRIP * dim)) {
        // SAFETY: the chunks have the sizes of the layout.
        unsafe {
            match layout.encoding {
                Encoding::Codes(codes) => for_each_kind!(codes, |BITS, TABLE| {
                    decode_value_codes::<S, BITS, TABLE>(layout, &codes, strip, out)
                }),
                Encoding::F32 => copy_floats::<S, F32>(strip, out),
                Encoding::F16 => copy_floats::<S, F16>(strip, out),
                Encoding::Bf16 => copy_floats::<S, Bf16>(strip, out),
            }
        }
    }
}

#[inline(always)]
unsafe fn decode_value_codes<S: Simd, const BITS: u32, const TABLE: bool>(
    layout: &Layout,
    codes: &Codes,
    strip: &[u8],
    out: &mut [f32],
) {
    let (dim, groups) = (layout.dim, layout.groups());
    let levels = ByteLevels::new(codes);
    // SAFETY: strip and out have the sizes of the layout.
    unsafe {
        let table = S::table(&levels.table.unwrap_or_default());
        let tail = strip.as_ptr().add(layout.code_bytes()).cast::<u16>();
        // value = byte · scale + minimum
        let mut scales = [[0.0f32; STRIP]; 16];
        let mut minima = [[0.0f32; STRIP]; 16];
        for group in 0..groups {
            let scale = S::mul(S::load_f16(tail.add(group * STRIP)), S::splat(levels.unit));
            let mut rest = S::mul(scale, S::splat(-levels.offset));
            if codes.minimum {
                rest = S::add(rest, S::load_f16(tail.add((groups + group) * STRIP)));
            }
            S::store(scales[group].as_mut_ptr(), scale);
            S::store(minima[group].as_mut_ptr(), rest);
        }
        for slots in 0..STRIP / 4 {
            for chunk in 0..dim / 16 {
                let code =
                    packed::load::<S, BITS, TABLE>(strip.as_ptr(), dim, slots * (dim / 16) + chunk, table);
                let group = if codes.group == ScaleGroup::Block { chunk / 2 } else { 0 };
                for i in 0..4 {
                    let slot = 4 * slots + i;
                    // A product with a one-hot vector picks one byte of each lane.
                    let byte = S::to_f(S::dot4(S::zero_i(), code, 1 << (8 * i)));
                    let value = S::fma(byte, S::splat(scales[group][slot]), S::splat(minima[group][slot]));
                    S::store(out.as_mut_ptr().add(slot * dim + 16 * chunk), value);
                }
            }
        }
    }
}
