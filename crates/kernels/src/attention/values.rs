//! Weighted sums of the values of a page, and values decoded for dense products.

use super::layout::{BLOCK, Codes, Encoding, Layout, Levels, STRIP, ScaleGroup, Side};
use super::simd::{Simd, fetch};
use super::strips::Stream;
use crate::cpu::Level;

/// `out[query][dim] += Σ_slot weights[query · stride + slot] · value(slot)` over consecutive strips.
///
/// `out` is `[query][dim]`, as many queries as it holds. A weight of 0 takes a slot out. With AVX-512, codes of 4 and 8 bits
/// are multiplied as integers: weights, times their scales, are rounded to 1/127 of the largest of 64 slots.
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
    #[cfg(target_arch = "x86_64")]
    if level.clamp() == Level::Avx512
        && let Some(codes) = super::value_products::takes(layout)
    {
        // SAFETY: `clamp` gives a level that this machine runs, and the sizes are checked above.
        return unsafe { super::value_products::sums(layout, &codes, weights, stride, strips, out) };
    }
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
            Encoding::Codes(codes) => match codes.bits {
                8 => code_rows::<S, G, C, 8>(layout, &codes, weights, stride, strips, first, &mut sums),
                4 => code_rows::<S, G, C, 4>(layout, &codes, weights, stride, strips, first, &mut sums),
                3 => code_rows::<S, G, C, 3>(layout, &codes, weights, stride, strips, first, &mut sums),
                _ => code_rows::<S, G, C, 2>(layout, &codes, weights, stride, strips, first, &mut sums),
            },
            encoding => {
                let element = layout.strip_bytes() / STRIP / dim;
                for (index, (strip, ahead)) in strips.each(layout.strip_bytes()).enumerate() {
                    for slot in 0..STRIP {
                        let at = slot * dim + first;
                        for line in (0..16 * C * element).step_by(64) {
                            fetch(ahead.wrapping_add(at * element + line));
                        }
                        let mut row = [S::splat(0.0); C];
                        for (c, row) in row.iter_mut().enumerate() {
                            *row = load_floats::<S>(encoding, strip.as_ptr(), at + 16 * c);
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
        for (g, sums) in sums.iter().enumerate() {
            for (c, sum) in sums.iter().enumerate() {
                S::store(out.add(g * dim + first + 16 * c), *sum);
            }
        }
    }
}

/// Sixteen consecutive floats, the first being number `at`.
#[inline(always)]
unsafe fn load_floats<S: Simd>(encoding: Encoding, floats: *const u8, at: usize) -> S::F {
    // SAFETY: the caller vouches for the 16 floats.
    unsafe {
        match encoding {
            Encoding::F32 => S::load(floats.cast::<f32>().add(at)),
            Encoding::F16 => S::load_f16(floats.cast::<u16>().add(at)),
            _ => S::load_bf16(floats.cast::<u16>().add(at)),
        }
    }
}

/// Sixteen codes of a value row as lanes: dimensions `16 chunk ..`.
#[inline(always)]
unsafe fn load_chunk<S: Simd, const BITS: u32>(row: *const u8, masks: usize, chunk: usize) -> S::I {
    // SAFETY: the caller vouches for the chunk within the row.
    unsafe {
        match BITS {
            8 => S::load_u8(row.add(16 * chunk)),
            4 => S::field_i(S::load_u8(row.add(16 * (chunk / 2))), (chunk % 2) as u32 * 4, 15),
            _ => {
                let low = S::field_i(S::load_u8(row.add(16 * (chunk / 4))), (chunk % 4) as u32 * 2, 3);
                if BITS == 2 {
                    return low;
                }
                S::join_i(low, row.add(masks + 2 * chunk).cast::<u16>().read_unaligned())
            }
        }
    }
}

/// Asks for what is new of a row at this slot: its lines, and at the first slot the scales.
#[inline(always)]
pub(super) fn fetch_row(strip: *const u8, slot: usize, layout: &Layout) {
    let row = layout.row_bytes();
    for line in (slot * row).div_ceil(64)..((slot + 1) * row).div_ceil(64) {
        fetch(strip.wrapping_add(64 * line));
    }
    if slot == 0 {
        for at in (layout.code_bytes()..layout.strip_bytes()).step_by(64) {
            fetch(strip.wrapping_add(at));
        }
    }
}

#[inline(always)]
fn table_of(codes: &Codes) -> [f32; 16] {
    match codes.levels {
        Levels::Table(table) => table,
        Levels::Linear { .. } => [0.0; 16],
    }
}

/// Σ w·(s·level + m) = Σ (w s)·code + (Σ w (m − offset·s)): weights and scales are multiplied 16 slots at a time, and
/// what does not depend on the code is summed once a strip.
#[inline(always)]
unsafe fn code_rows<S: Simd, const G: usize, const C: usize, const BITS: u32>(
    layout: &Layout,
    codes: &Codes,
    weights: &[f32],
    stride: usize,
    strips: Stream<'_>,
    first: usize,
    sums: &mut [[S::F; C]; G],
) {
    let (row_bytes, groups) = (layout.row_bytes(), layout.groups());
    let masks = 16 * layout.dim.div_ceil(64);
    let offset = match codes.levels {
        Levels::Linear { offset } => offset as f32,
        Levels::Table(_) => 0.0,
    };
    let first_group = if codes.group == ScaleGroup::Block { first / BLOCK } else { 0 };
    // Scale groups within this piece: one of 32 dimensions each, or one for all.
    let local_groups = if codes.group == ScaleGroup::Block { C / 2 } else { 1 };
    // SAFETY: strips, weights and scales are as long as `value_sums` checked; C ≤ 4, so two groups at most.
    unsafe {
        let table = S::table_f(&table_of(codes));
        let mut constant = [[S::splat(0.0); 2]; G];
        for (index, (strip, ahead)) in strips.each(layout.strip_bytes()).enumerate() {
            let scales = strip.as_ptr().add(layout.code_bytes()).cast::<u16>();
            let mut scaled = [[[0.0f32; STRIP]; 2]; G];
            for group in 0..local_groups {
                let scale = S::load_f16(scales.add((first_group + group) * STRIP));
                let mut rest = S::mul(scale, S::splat(-offset));
                if codes.minimum {
                    rest = S::add(rest, S::load_f16(scales.add((groups + first_group + group) * STRIP)));
                }
                for g in 0..G {
                    let weight = S::load(weights.as_ptr().add(g * stride + index * STRIP));
                    S::store(scaled[g][group].as_mut_ptr(), S::mul(weight, scale));
                    constant[g][group] = S::fma(weight, rest, constant[g][group]);
                }
            }
            #[allow(clippy::needless_range_loop)] // `slot` indexes the inner dimension of `scaled`
            for slot in 0..STRIP {
                let row = strip.as_ptr().add(slot * row_bytes);
                if first == 0 {
                    fetch_row(ahead, slot, layout);
                }
                let mut levels = [S::splat(0.0); C];
                for (c, level) in levels.iter_mut().enumerate() {
                    let code = load_chunk::<S, BITS>(row, masks, first / 16 + c);
                    *level = match codes.levels {
                        Levels::Linear { .. } => S::to_f(code),
                        Levels::Table(_) => S::lookup_f(table, code),
                    };
                }
                for (g, sums) in sums.iter_mut().enumerate() {
                    for (c, sum) in sums.iter_mut().enumerate() {
                        let group = if local_groups == 2 { c / 2 } else { 0 };
                        *sum = S::fma(levels[c], S::splat(scaled[g][group][slot]), *sum);
                    }
                }
            }
        }
        for (g, sums) in sums.iter_mut().enumerate() {
            for (c, sum) in sums.iter_mut().enumerate() {
                let group = if local_groups == 2 { c / 2 } else { 0 };
                *sum = S::add(*sum, S::splat(S::sum(constant[g][group])));
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
                Encoding::Codes(codes) => match codes.bits {
                    8 => decode_rows::<S, 8>(layout, &codes, strip, out),
                    4 => decode_rows::<S, 4>(layout, &codes, strip, out),
                    3 => decode_rows::<S, 3>(layout, &codes, strip, out),
                    _ => decode_rows::<S, 2>(layout, &codes, strip, out),
                },
                encoding => {
                    for at in (0..STRIP * dim).step_by(16) {
                        let row = load_floats::<S>(encoding, strip.as_ptr(), at);
                        S::store(out.as_mut_ptr().add(at), row);
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn decode_rows<S: Simd, const BITS: u32>(
    layout: &Layout,
    codes: &Codes,
    strip: &[u8],
    out: &mut [f32],
) {
    let (dim, row_bytes, groups) = (layout.dim, layout.row_bytes(), layout.groups());
    let masks = 16 * dim.div_ceil(64);
    let offset = match codes.levels {
        Levels::Linear { offset } => offset as f32,
        Levels::Table(_) => 0.0,
    };
    // SAFETY: strip and out have the sizes of the layout.
    unsafe {
        let table = S::table_f(&table_of(codes));
        let tail = strip.as_ptr().add(layout.code_bytes()).cast::<u16>();
        let mut scales = [[0.0f32; STRIP]; 16];
        let mut minima = [[0.0f32; STRIP]; 16];
        for group in 0..groups {
            let scale = S::load_f16(tail.add(group * STRIP));
            let mut rest = S::mul(scale, S::splat(-offset));
            if codes.minimum {
                rest = S::add(rest, S::load_f16(tail.add((groups + group) * STRIP)));
            }
            S::store(scales[group].as_mut_ptr(), scale);
            S::store(minima[group].as_mut_ptr(), rest);
        }
        for slot in 0..STRIP {
            let row = strip.as_ptr().add(slot * row_bytes);
            for chunk in 0..dim / 16 {
                let code = load_chunk::<S, BITS>(row, masks, chunk);
                let level = match codes.levels {
                    Levels::Linear { .. } => S::to_f(code),
                    Levels::Table(_) => S::lookup_f(table, code),
                };
                let group = if codes.group == ScaleGroup::Block { chunk / 2 } else { 0 };
                let value = S::fma(level, S::splat(scales[group][slot]), S::splat(minima[group][slot]));
                S::store(out.as_mut_ptr().add(slot * dim + 16 * chunk), value);
            }
        }
    }
}
