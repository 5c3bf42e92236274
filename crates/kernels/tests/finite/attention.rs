//! Scores, sums of values, softmax and estimates.

use super::{Numbers, Sum, half_step, largest};
use proptest::prelude::*;
use sketchkv_kernels::attention::codes::{CODE_PAGE, CodeQueries, code_page_bytes, code_scores, put_code};
use sketchkv_kernels::attention::layout::{
    BLOCK, Codes, Encoding, Grid, Levels, STRIP, ScaleGroup, Side, StripLayout,
};
use sketchkv_kernels::attention::{
    Queries, add_scaled, decode_keys, decode_values, dense_scores, dense_values, exponentials, key_scores,
    maximum, strip_exponentials, value_sums,
};
use sketchkv_kernels::cpu::Level;
use sketchkv_kernels::half::{f16, to_f16};

/// Strips whose weights are rounded together.
const RUN: usize = 4;

fn encodings(side: Side) -> Vec<Encoding> {
    let codes = |bits: u32, group, minimum| {
        let levels = Levels::Linear { offset: if minimum { 0 } else { 1u8 << (bits - 1) } };
        Encoding::Codes(Codes { bits, levels, group, minimum })
    };
    let table = |bits| {
        let levels = Levels::Table(std::array::from_fn(|i| (i as f32 - 7.3) * 0.31));
        Encoding::Codes(Codes { bits, levels, group: ScaleGroup::Slot, minimum: false })
    };
    let mut all = vec![Encoding::F32, Encoding::F16, Encoding::Bf16];
    all.extend([4, 8].map(|bits| codes(bits, ScaleGroup::Block, false)));
    all.extend([2, 3, 4].map(table));
    match side {
        Side::Keys => all.extend([2, 3, 4].map(|bits| codes(bits, ScaleGroup::Channel, false))),
        Side::Values => all.extend([2, 3, 4].map(|bits| codes(bits, ScaleGroup::Block, true))),
    }
    all
}

/// Strips of a page and what they hold.
struct Page {
    layout: StripLayout,
    bytes: Vec<u8>,
    /// Scale and zero of every dimension, `[2][dim]`, for codes that have a grid.
    grid: Vec<f32>,
}

impl Page {
    fn new(side: Side, encoding: Encoding, dim: usize, strips: usize, numbers: &mut Numbers) -> Page {
        let layout = StripLayout::new(side, encoding, dim);
        let mut bytes = vec![0; strips * layout.strip_bytes()];
        for slot in 0..strips * STRIP {
            let strip = &mut bytes[slot / STRIP * layout.strip_bytes()..][..layout.strip_bytes()];
            match encoding {
                Encoding::Codes(codes) => {
                    let last = codes.max_code() as usize;
                    let u: Vec<u8> = (0..dim).map(|_| (numbers.bits() % (last + 1)) as u8).collect();
                    let scales = numbers.vector(layout.groups());
                    let minima = numbers.vector(if codes.minimum { layout.groups() } else { 0 });
                    layout.put_codes(strip, slot % STRIP, &u, &scales, &minima);
                }
                _ => layout.put(strip, slot % STRIP, &numbers.vector(dim)),
            }
        }
        let grid = numbers.vector(2 * dim).into_iter().map(|x| to_f16(x).to_f32()).collect();
        Page { layout, bytes, grid }
    }

    fn grid(&self) -> Option<Grid<'_>> {
        let (scale, zero) = self.grid.split_at(self.layout.dim());
        Some(Grid { scale, zero, grades: None })
    }

    fn codes(&self) -> Option<Codes> {
        let Encoding::Codes(codes) = self.layout.encoding() else { return None };
        Some(codes)
    }

    /// The largest level, and by how much one may be off where levels are rounded to 8 bits.
    fn levels(&self) -> (f64, f64) {
        let Some(codes) = self.codes() else { return (0.0, 0.0) };
        match codes.levels {
            Levels::Linear { .. } => {
                (f64::from(codes.level(0).abs().max(codes.level(codes.max_code()).abs())), 0.0)
            }
            Levels::Table(table) => (largest(&table), half_step(largest(&table))),
        }
    }

    fn strip(&self, slot: usize) -> &[u8] {
        &self.bytes[slot / STRIP * self.layout.strip_bytes()..][..self.layout.strip_bytes()]
    }

    /// A slot as it reads.
    fn slot(&self, slot: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.layout.dim()];
        self.layout.get(self.strip(slot), slot % STRIP, self.grid(), &mut out);
        out
    }

    /// Levels of the codes of a slot, without their scales.
    fn level(&self, slot: usize, dim: usize) -> f64 {
        let code = self.layout.code(self.strip(slot), slot % STRIP, dim);
        f64::from(self.codes().expect("of codes").level(code))
    }

    /// Scale and minimum of a number of a slot.
    fn scale(&self, slot: usize, dim: usize) -> (f64, f64) {
        let codes = self.codes().expect("of codes");
        let group = match codes.group {
            ScaleGroup::Channel => return (f64::from(self.grid[dim]), 0.0),
            ScaleGroup::Block => dim / BLOCK,
            ScaleGroup::Slot => 0,
        };
        let half = |row: usize| {
            let at = self.layout.code_bytes() + 2 * (row * STRIP + slot % STRIP);
            let bytes = &self.strip(slot)[at..at + 2];
            f16::from_le_bytes([bytes[0], bytes[1]]).to_f64()
        };
        let minimum = if codes.minimum { half(self.layout.groups() + group) } else { 0.0 };
        (half(group), minimum)
    }

    /// query · key(slot).
    fn score(&self, query: &[f32], slot: usize) -> Sum {
        let (key, mut sum) = (self.slot(slot), Sum::default());
        query.iter().zip(&key).for_each(|(q, k)| sum.add(*q, *k));
        let Some(codes) = self.codes() else { return sum };
        let ((most, off), by_channel) = (self.levels(), codes.group == ScaleGroup::Channel);
        for (block, q) in query.chunks(BLOCK).enumerate() {
            let dims = block * BLOCK..(block + 1) * BLOCK;
            // What is rounded to 8 bits: the query, with its scales folded in where they are the dimensions'.
            let folded = |dim: usize| if by_channel { self.grid[dim] } else { 1.0 };
            let rounded = q
                .iter()
                .zip(dims.clone())
                .fold(0.0f64, |m, (q, dim)| m.max(f64::from((q * folded(dim)).abs())));
            let scale = |dim: usize| if by_channel { 1.0 } else { self.scale(slot, dim).0.abs() };
            for dim in dims {
                sum.size += rounded * scale(dim) * most;
                sum.rounding +=
                    scale(dim) * (half_step(rounded) * self.level(slot, dim).abs() + off * rounded);
                if by_channel {
                    sum.size +=
                        f64::from(q[dim % BLOCK].abs()) * f64::from(self.grid[self.layout.dim() + dim].abs());
                }
            }
        }
        sum
    }

    /// before + Σ weight · value.
    fn weighted(&self, before: f32, weights: &[f32], dim: usize) -> Sum {
        let mut sum = Sum::default();
        sum.add(before, 1.0);
        for (slot, weight) in weights.iter().enumerate() {
            sum.add(*weight, self.slot(slot)[dim]);
        }
        if self.codes().is_none() {
            return sum;
        }
        let (most, off) = self.levels();
        for (run, weights) in weights.chunks(RUN * STRIP).enumerate() {
            // Pieces of 64 dimensions have one unit.
            let slots = || weights.iter().zip(run * RUN * STRIP..);
            let piece = dim / 64 * 64..(dim / 64 * 64 + 64).min(self.layout.dim());
            let rounded = slots().fold(0.0f64, |m, (w, slot)| {
                piece
                    .clone()
                    .step_by(BLOCK)
                    .fold(m, |m, dim| m.max((f64::from(*w) * self.scale(slot, dim).0).abs()))
            });
            for (weight, slot) in slots() {
                sum.size += rounded * most + (f64::from(*weight) * self.scale(slot, dim).1).abs();
                sum.rounding += half_step(rounded) * self.level(slot, dim).abs() + off * rounded;
            }
        }
        sum
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn scores_of_keys(mut of_queries in Numbers::any(), mut of_keys in Numbers::any(), blocks in 1usize..4, count in 1usize..6, strips in 1usize..3) {
        let dim = blocks * BLOCK;
        let q = of_queries.vector(count * dim);
        let mut queries = Queries::default();
        queries.set(&q, dim);
        for encoding in encodings(Side::Keys) {
            let page = Page::new(Side::Keys, encoding, dim, strips, &mut of_keys);
            let slots = strips * STRIP;
            for &level in Level::available() {
                let (mut out, mut decoded) = (vec![f32::NAN; count * slots], vec![f32::NAN; slots * dim]);
                key_scores(level, &page.layout, page.grid(), &queries, page.bytes[..].into(), &mut out, slots);
                decode_keys(level, &page.layout, page.grid(), &page.bytes, &mut decoded);
                for slot in 0..slots {
                    for (row, q) in q.chunks_exact(dim).enumerate() {
                        let (got, want) = (out[row * slots + slot], page.score(q, slot));
                        prop_assert!(want.admits(got), "{encoding:?} {level:?}: {got} is not {want:?}");
                    }
                    for (i, key) in page.slot(slot).into_iter().enumerate() {
                        let got = decoded[(slot / STRIP * dim + i) * STRIP + slot % STRIP];
                        let mut want = Sum::default();
                        want.add(key, 1.0);
                        if page.codes().is_some() {
                            let (most, off) = page.levels();
                            want.size += page.scale(slot, i).0.abs() * most;
                            want.rounding = page.scale(slot, i).0.abs() * off;
                        }
                        prop_assert!(key.is_finite() && want.admits(got), "{encoding:?} {level:?}: {got} is not {want:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn sums_of_values(mut of_weights in Numbers::any(), mut of_values in Numbers::any(), blocks in 1usize..4, count in 1usize..6, strips in 1usize..6) {
        let (dim, slots) = (blocks * BLOCK, strips * STRIP);
        let weights = of_weights.vector(count * slots);
        for encoding in encodings(Side::Values) {
            let page = Page::new(Side::Values, encoding, dim, strips, &mut of_values);
            let before = of_values.vector(count * dim);
            for &level in Level::available() {
                let (mut out, mut decoded) = (before.clone(), vec![f32::NAN; slots * dim]);
                value_sums(level, &page.layout, &weights, slots, page.bytes[..].into(), &mut out);
                decode_values(level, &page.layout, &page.bytes, &mut decoded);
                for at in (0..count * dim).step_by(11) {
                    let want = page.weighted(before[at], &weights[at / dim * slots..][..slots], at % dim);
                    prop_assert!(want.admits(out[at]), "{encoding:?} {level:?}: {} is not {want:?}", out[at]);
                }
                for slot in 0..slots {
                    for (i, value) in page.slot(slot).into_iter().enumerate() {
                        let mut want = Sum::default();
                        want.add(value, 1.0);
                        if page.codes().is_some() {
                            let ((most, off), (scale, minimum)) = (page.levels(), page.scale(slot, i));
                            want.size += scale.abs() * most + minimum.abs();
                            want.rounding = scale.abs() * off;
                        }
                        let got = decoded[slot * dim + i];
                        prop_assert!(value.is_finite() && want.admits(got), "{encoding:?} {level:?}: {got} is not {want:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn dense_products(mut a in Numbers::any(), mut b in Numbers::any(), chunks in 1usize..5, count in 1usize..8, strips in 1usize..6) {
        let (dim, slots) = (16 * chunks, strips * STRIP);
        let (queries, keys) = (a.vector(count * dim), b.vector(slots * dim));
        let (weights, values, before) = (a.vector(count * slots), b.vector(slots * dim), b.vector(count * dim));
        for &level in Level::available() {
            let (mut scores, mut sums) = (vec![f32::NAN; count * slots], before.clone());
            dense_scores(level, dim, &queries, &keys, &mut scores, slots);
            dense_values(level, dim, &weights, slots, &values, dim, slots, &mut sums);
            for row in 0..count {
                for slot in 0..slots {
                    let mut want = Sum::default();
                    let key = |i: usize| keys[(slot / STRIP * dim + i) * STRIP + slot % STRIP];
                    (0..dim).for_each(|i| want.add(queries[row * dim + i], key(i)));
                    let got = scores[row * slots + slot];
                    prop_assert!(want.admits(got), "{level:?}: {got} is not {want:?}");
                }
                for i in 0..dim {
                    let mut want = Sum::default();
                    want.add(before[row * dim + i], 1.0);
                    (0..slots).for_each(|s| want.add(weights[row * slots + s], values[s * dim + i]));
                    prop_assert!(want.admits(sums[row * dim + i]), "{level:?}: {} is not {want:?}", sums[row * dim + i]);
                }
            }
        }
    }

    #[test]
    fn scaled_additions(mut a in Numbers::any(), mut b in Numbers::any(), len in 0usize..70) {
        let (y, x, factor) = (a.vector(len), b.vector(len), a.next());
        for &level in Level::available() {
            let mut sum = y.clone();
            add_scaled(level, &mut sum, factor, &x);
            for (got, (y, x)) in sum.iter().zip(y.iter().zip(&x)) {
                let mut want = Sum::default();
                want.add(*y, 1.0);
                want.add(factor, *x);
                prop_assert!(want.admits(*got), "{level:?}: {got} is not {want:?}");
            }
        }
    }

    #[test]
    fn rows_of_scores(mut of_scores in Numbers::any(), strips in 1usize..9, hidden in 0u32..4) {
        let mut scores = of_scores.vector(strips * STRIP);
        for score in &mut scores {
            // None, some, or all of them.
            if of_scores.bits() as u32 % 3 < hidden {
                *score = f32::NEG_INFINITY;
            }
        }
        for &level in Level::available() {
            let max = maximum(level, &scores);
            prop_assert_eq!(max, scores.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let (mut got, mut sums) = (scores.clone(), vec![f32::NAN; strips]);
            let sum = exponentials(level, &mut got, max);
            let all = strip_exponentials(level, &scores, max, &mut sums);
            let want = |s: f32| if max == f32::NEG_INFINITY { 0.0 } else { f64::from(s - max).exp() };
            for (got, s) in got.iter().zip(&scores) {
                prop_assert!((f64::from(*got) - want(*s)).abs() <= 4e-7 * want(*s) + 1e-37, "{level:?}: {s}, {max}, {got}");
            }
            for (sum, scores) in sums.iter().zip(scores.chunks_exact(STRIP)) {
                let want: f64 = scores.iter().map(|s| want(*s)).sum();
                prop_assert!((f64::from(*sum) - want).abs() <= 1e-4 * want + 1e-37, "{level:?}: {sum} for {want}");
            }
            let want: f64 = scores.iter().map(|s| want(*s)).sum();
            prop_assert!((f64::from(sum) - want).abs() <= 1e-5 * want, "{level:?}: {sum} for {want}");
            prop_assert!((f64::from(all) - want).abs() <= 1e-4 * want, "{level:?}: {all} for {want}");
        }
    }

    #[test]
    fn estimates_by_codes(mut of_queries in Numbers::any(), mut of_keys in Numbers::any(), lines in 1usize..17, count in 1usize..5) {
        let bits = 8 * lines;
        let (p, keys) = (of_queries.vector(count * bits), of_keys.vector(CODE_PAGE * bits));
        let mut codes = vec![0; code_page_bytes(bits)];
        let mut factors = vec![];
        for (slot, key) in keys.chunks_exact(bits).enumerate() {
            let mean = put_code(&mut codes, slot, key);
            let want = key.iter().map(|x| f64::from(x.abs())).sum::<f64>() / bits as f64;
            prop_assert!(mean.is_finite() && (f64::from(mean) - want).abs() <= 1e-5 * want + 1e-42, "{mean} for {want}");
            factors.push(to_f16(mean));
        }
        for &level in Level::available() {
            let mut queries = CodeQueries::default();
            queries.set(level, &p, bits);
            let mut out = vec![f32::NAN; count * CODE_PAGE];
            code_scores(level, &queries, &codes, &factors, &mut out, CODE_PAGE);
            for (row, p) in p.chunks_exact(bits).enumerate() {
                let reach = p.chunks_exact(4).map(|p| p.iter().map(|p| f64::from(p.abs())).sum::<f64>());
                let step = (2.0 * reach.fold(0.0, f64::max) / 127.0).max(f64::from(f32::MIN_POSITIVE));
                for (slot, key) in keys.chunks_exact(bits).enumerate() {
                    let (factor, got) = (factors[slot].to_f64(), out[row * CODE_PAGE + slot]);
                    let signed = |(p, x): (&f32, &f32)| f64::from(if *x >= 0.0 { *p } else { -*p });
                    let estimate: f64 = p.iter().zip(key).map(signed).sum();
                    let size = step * 127.0 * (bits / 4) as f64;
                    // Beyond that, queries are taken for smaller ones.
                    let whole = size < super::LIMIT;
                    let want = Sum { value: estimate * factor, size: size * factor.max(1.0), rounding: 0.51 * step * (bits / 4) as f64 * factor };
                    prop_assert!(!got.is_nan() && (!whole || want.admits(got)), "{level:?}: {got} is not {want:?}");
                }
            }
        }
    }
}
