//! Weighted sums of the values of a page, and values decoded for dense products.

use super::check_rows;
use super::floats::{Float, decode_floats, for_each_float};
use super::layout::{BLOCK, Codes, Encoding, Levels, MAX_DIM, STRIP, ScaleGroup, Side, StripLayout};
use super::packed::{self, ByteLevels, fetch_group, fetch_lines, for_each_kind};
use super::simd::{Cache, Multipliers, Simd};
use super::strips::Stream;
use crate::Scale;
use crate::cpu::Level;
use std::mem::MaybeUninit;

/// Strips that share the unit of their weights.
const RUN: usize = 4;

/// `out[query][dim] += Σ_slot weights[query · stride + slot] · value(slot)` over consecutive strips.
///
/// `out` is `[query][dim]`, as many queries as it holds. A weight of 0 takes a slot out. Codes are multiplied as integers:
/// weights, times their scales, are rounded to 1/127 of the largest of 64 slots.
///
/// # Panics
/// When `strips` is not a whole number of strips of values, or `weights` is too short.
pub fn value_sums(
    level: Level,
    layout: &StripLayout,
    weights: &[f32],
    stride: usize,
    strips: Stream<'_>,
    out: &mut [f32],
) {
    let count = layout.count(Side::Values, strips.strips);
    check_rows("weights", weights.len(), out.len() / layout.dim(), stride, count * STRIP);
    // SAFETY: the level was detected on this CPU, and the sizes are checked above.
    for_level!(level, |S| value_sums_of::<S>(layout, weights, stride, strips, out))
}

/// Nothing here is worth an instruction set; what is runs in [`Simd::run`].
///
/// # Safety
/// As [`Simd`]; sizes are as [`value_sums`] checks them.
unsafe fn value_sums_of<S: Simd>(
    layout: &StripLayout,
    weights: &[f32],
    stride: usize,
    strips: Stream<'_>,
    out: &mut [f32],
) {
    let dim = layout.dim();
    let queries = out.len() / dim;
    for first in (0..queries).step_by(S::QUERIES) {
        let mut wanted = Wanted { layout, weights: &weights[first * stride..], stride, strips, first: 0 };
        let (count, out) = (queries - first, &mut out[first * dim..]);
        let wide = const { S::VALUES >= 32 } || matches!(layout.encoding(), Encoding::Codes(_));
        // Dimensions go in pieces of 64 or 32: as many floats as keep their sums in registers.
        while wanted.first < dim {
            // SAFETY: the caller's.
            unsafe {
                if wide && wanted.first + 64 <= dim {
                    for_queries!(S, count, |G| piece::<S, G, 4>(&wanted, out));
                    wanted.first += 64;
                } else {
                    for_queries!(S, count, |G| piece::<S, G, 2>(&wanted, out));
                    wanted.first += 32;
                }
            }
        }
    }
}

/// What some queries are to be given: the sums of the dimensions from `first` on.
struct Wanted<'a> {
    layout: &'a StripLayout,
    weights: &'a [f32],
    stride: usize,
    strips: Stream<'a>,
    first: usize,
}

/// Dimensions `first .. first + 16 C` of the weighted sums of `G` queries.
///
/// # Safety
/// As [`value_sums_of`].
unsafe fn piece<S: Simd, const G: usize, const C: usize>(wanted: &Wanted<'_>, out: &mut [f32]) {
    // SAFETY: the caller's.
    unsafe {
        for_each_float!(
            wanted.layout.encoding(),
            |E| S::run(
                #[inline(always)]
                || with_sums::<S, G, C>(
                    wanted,
                    out,
                    #[inline(always)]
                    |wanted, sums| float_sums::<S, E, G, C>(wanted, sums)
                )
            ),
            |codes| for_each_kind!(codes, |BITS, TABLE| S::run(
                #[inline(always)]
                || with_sums::<S, G, C>(
                    wanted,
                    out,
                    #[inline(always)]
                    |wanted, sums| code_sums::<S, G, C, BITS, TABLE>(wanted, &codes, sums)
                )
            ))
        )
    }
}

/// Lets `add` go on with the sums that are in `out`.
#[inline(always)]
unsafe fn with_sums<S: Simd, const G: usize, const C: usize>(
    wanted: &Wanted<'_>,
    out: &mut [f32],
    add: impl FnOnce(&Wanted<'_>, &mut [[S::F; C]; G]),
) {
    let (dim, first) = (wanted.layout.dim(), wanted.first);
    let out = out.as_mut_ptr();
    // SAFETY: `out` is as long as `value_sums` checked.
    unsafe {
        let mut sums = [[S::splat(0.0); C]; G];
        for (g, sums) in sums.iter_mut().enumerate() {
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum = S::load(out.add(g * dim + first + 16 * c));
            }
        }
        add(wanted, &mut sums);
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
    wanted: &Wanted<'_>,
    sums: &mut [[S::F; C]; G],
) {
    let &Wanted { layout, weights, stride, strips, first } = wanted;
    for (index, (strip, ahead)) in strips.each(layout.strip_bytes()).enumerate() {
        for slot in 0..STRIP {
            let at = slot * layout.dim() + first;
            // SAFETY: strips and weights are as long as `value_sums` checked.
            unsafe {
                fetch_lines(ahead.wrapping_add(at * E::BYTES), 16 * C * E::BYTES, Cache::Second);
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

/// Adds the weighted codes of some strips to `sums`, [`RUN`] strips at a time.
///
/// With w' = w·s and w' ≈ u·b for |b| ≤ 127 and one u a query and run, Σ w·s·level = u·unit·(Σ b·byte − offset·Σ b). The
/// same b stand in both sums, so that an error of b meets a level and not a byte, and is at most 0.4 % of the largest w'
/// of the run.
#[inline(always)]
unsafe fn code_sums<S: Simd, const G: usize, const C: usize, const BITS: u32, const TABLE: bool>(
    wanted: &Wanted<'_>,
    codes: &Codes,
    sums: &mut [[S::F; C]; G],
) {
    let &Wanted { layout, weights, stride, strips, first } = wanted;
    let (bytes, code_bytes, groups) = (layout.strip_bytes(), layout.code_bytes(), layout.groups());
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
                        largest[g] = S::max(largest[g], S::abs(scaled[g][i]));
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
                let of_weights = Scale::new(S::maximum(largest[g]), 127.0);
                (unit[g], inverse[g]) = (of_weights.scale * levels.unit, of_weights.inverse);
            }

            let count = run.strips.len() / bytes;
            let mut multipliers = [const { MaybeUninit::uninit() }; RUN];
            let mut totals = [[S::splat(0.0); 2]; G];
            for (place, scaled) in multipliers.iter_mut().zip(&scaled).take(count) {
                let multipliers = place.write([[Multipliers::default(); 2]; G]);
                for g in 0..G {
                    for i in 0..C / 2 {
                        let rounded = S::round(S::mul(scaled[g][i], S::splat(inverse[g])));
                        totals[g][i] = S::add(totals[g][i], rounded);
                        multipliers[g][i] = S::multipliers(rounded);
                    }
                }
            }
            for g in 0..G {
                for i in 0..C / 2 {
                    rest[g][i] =
                        S::fma(totals[g][i], S::splat(-unit[g] * f32::from(levels.offset)), rest[g][i]);
                }
            }
            if first == 0 {
                run.each(bytes).for_each(|(_, ahead)| {
                    fetch_lines(ahead.wrapping_add(code_bytes), bytes - code_bytes, packed::cache(BITS));
                });
            }
            // The first `count` were written.
            let multipliers: &[[[Multipliers; 2]; G]] =
                std::slice::from_raw_parts(multipliers.as_ptr().cast(), count);
            // As many columns at a time as keep their sums in registers.
            if const { S::VALUES >= 32 } {
                let products = columns::<S, G, C, BITS, TABLE>(wanted, run, multipliers, 0, table);
                add_products::<S, G, C, C>(&products, &unit, 0, sums);
            } else {
                for c in 0..C {
                    let products = columns::<S, G, 1, BITS, TABLE>(wanted, run, multipliers, c, table);
                    add_products::<S, G, C, 1>(&products, &unit, c, sums);
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

/// Products of the codes of a run with its multipliers, `[strip][query][32 dimensions]`, in `W` columns of 16 dimensions
/// from column `c` on.
#[inline(always)]
unsafe fn columns<S: Simd, const G: usize, const W: usize, const BITS: u32, const TABLE: bool>(
    wanted: &Wanted<'_>,
    run: Stream<'_>,
    multipliers: &[[[Multipliers; 2]; G]],
    c: usize,
    table: S::B,
) -> [[S::I; W]; G] {
    // Columns come in pairs, so that a nibble's place in its byte is known when this is compiled.
    let (pairs, first) = (wanted.layout.dim() / BLOCK, wanted.first / BLOCK);
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[S::zero_i(); W]; G];
        let mut products = sums;
        let strips = run.each(wanted.layout.strip_bytes()).zip(multipliers);
        for (index, ((strip, ahead), multipliers)) in strips.enumerate() {
            for slots in 0..STRIP / 4 {
                // Whole bytes need no unpacking: all columns are loaded, and few multipliers have to be held.
                if BITS == 8 {
                    let codes: [S::B; W] = std::array::from_fn(
                        #[inline(always)]
                        |w| {
                            column::<S, BITS, TABLE>(
                                wanted,
                                strip,
                                ahead,
                                2 * (slots * pairs + first) + c + w,
                                table,
                            )
                        },
                    );
                    for g in 0..G {
                        for w in 0..W {
                            let x = &multipliers[g][(c + w) / 2];
                            products[g][w] =
                                packed::dot::<S, BITS, TABLE>(products[g][w], codes[w], x, slots);
                        }
                    }
                } else {
                    for w in 0..W {
                        let group = 2 * (slots * pairs + first) + c + w;
                        let code = column::<S, BITS, TABLE>(wanted, strip, ahead, group, table);
                        for g in 0..G {
                            let x = &multipliers[g][(c + w) / 2];
                            products[g][w] = packed::dot::<S, BITS, TABLE>(products[g][w], code, x, slots);
                        }
                    }
                }
            }
            // After every other strip, where sums are short.
            let dots = (index + 1) * (STRIP / 4);
            if packed::small::<BITS, TABLE>() && dots.is_multiple_of(S::SMALL) {
                widen_into::<S, G, W, BITS, TABLE>(&mut sums, &products);
                products = [[S::zero_i(); W]; G];
            }
        }
        widen_into::<S, G, W, BITS, TABLE>(&mut sums, &products);
        sums
    }
}

/// The codes of 4 slots in 16 dimensions; those of the strip that comes next are asked for.
///
/// # Safety
/// As [`columns`]; the strip has this group.
#[inline(always)]
unsafe fn column<S: Simd, const BITS: u32, const TABLE: bool>(
    wanted: &Wanted<'_>,
    strip: &[u8],
    ahead: *const u8,
    group: usize,
    table: S::B,
) -> S::B {
    fetch_group::<BITS>(ahead, wanted.layout.dim(), group);
    // SAFETY: the caller's.
    unsafe { packed::load::<S, BITS, TABLE>(strip.as_ptr(), wanted.layout.dim(), group, table) }
}

#[inline(always)]
unsafe fn widen_into<S: Simd, const G: usize, const W: usize, const BITS: u32, const TABLE: bool>(
    sums: &mut [[S::I; W]; G],
    products: &[[S::I; W]; G],
) {
    for (sums, products) in sums.iter_mut().zip(products) {
        for (sum, product) in sums.iter_mut().zip(products) {
            // SAFETY: the caller's.
            *sum = unsafe { S::add_i(*sum, packed::widen::<S, BITS, TABLE>(*product)) };
        }
    }
}

/// Adds what [`columns`] found, in the units of the queries, to their sums from column `c` on.
#[inline(always)]
unsafe fn add_products<S: Simd, const G: usize, const C: usize, const W: usize>(
    products: &[[S::I; W]; G],
    unit: &[f32; G],
    c: usize,
    sums: &mut [[S::F; C]; G],
) {
    for (g, sums) in sums.iter_mut().enumerate() {
        for (product, sum) in products[g].iter().zip(&mut sums[c..]) {
            // SAFETY: the caller's.
            *sum = unsafe { S::fma(S::to_f(*product), S::splat(unit[g]), *sum) };
        }
    }
}

/// Decodes the values of consecutive strips to `out`, `[slot][dim]`, for [`super::dense_values`].
///
/// # Panics
/// When sizes do not fit.
pub fn decode_values(level: Level, layout: &StripLayout, strips: &[u8], out: &mut [f32]) {
    let count = layout.count(Side::Values, strips);
    check_rows("decoded values", out.len(), 1, 0, count * STRIP * layout.dim());
    // SAFETY: the level was detected on this CPU, and the sizes are checked above.
    for_level!(level, |S| decode_values_of::<S>(layout, strips, out))
}

/// As [`value_sums_of`].
///
/// # Safety
/// As [`Simd`]; sizes are as [`decode_values`] checks them.
unsafe fn decode_values_of<S: Simd>(layout: &StripLayout, strips: &[u8], out: &mut [f32]) {
    let dim = layout.dim();
    for (strip, out) in strips.chunks_exact(layout.strip_bytes()).zip(out.chunks_exact_mut(STRIP * dim)) {
        // SAFETY: the caller's; the chunks have the sizes of the layout.
        unsafe {
            match layout.encoding() {
                Encoding::Codes(codes) => for_each_kind!(codes, |BITS, TABLE| S::run(
                    #[inline(always)]
                    || decode_value_codes::<S, BITS, TABLE>(layout, &codes, strip, out)
                )),
                encoding => S::run(
                    #[inline(always)]
                    || decode_floats::<S>(encoding, strip, out),
                ),
            }
        }
    }
}

#[inline(always)]
unsafe fn decode_value_codes<S: Simd, const BITS: u32, const TABLE: bool>(
    layout: &StripLayout,
    codes: &Codes,
    strip: &[u8],
    out: &mut [f32],
) {
    let (dim, groups) = (layout.dim(), layout.groups());
    let levels = ByteLevels::new(codes);
    // SAFETY: strip and out have the sizes of the layout.
    unsafe {
        let table = S::table(&levels.table.unwrap_or_default());
        let tail = strip.as_ptr().add(layout.code_bytes()).cast::<u16>();
        // value = byte · scale + minimum
        let mut scales = [[0.0f32; STRIP]; MAX_DIM / BLOCK];
        let mut minima = [[0.0f32; STRIP]; MAX_DIM / BLOCK];
        for group in 0..groups {
            let scale = S::mul(S::load_f16(tail.add(group * STRIP)), S::splat(levels.unit));
            let mut rest = S::mul(scale, S::splat(-f32::from(levels.offset)));
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
                    let byte = S::byte(code, i as u32);
                    let value = S::fma(byte, S::splat(scales[group][slot]), S::splat(minima[group][slot]));
                    S::store(out.as_mut_ptr().add(slot * dim + 16 * chunk), value);
                }
            }
        }
    }
}
