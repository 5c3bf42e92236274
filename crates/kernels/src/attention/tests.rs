use super::graded::Grades;
use super::layout::{BLOCK, Codes, Encoding, Grid, Levels, STRIP, ScaleGroup, Side, StripLayout, nearest};
use super::*;
use crate::cpu::Level;
use proptest::prelude::*;

/// A small deterministic generator: numbers in [-1, 1).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn vector(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }

    /// Of some bits, whole lines of them, in channels anywhere.
    fn grades(&mut self, dim: usize) -> Grades {
        let mut groups: Vec<u8> = (0..dim / 4).map(|_| ((self.next() + 1.0) * 4.49) as u8).collect();
        let mut over = groups.iter().map(|&bits| usize::from(bits)).sum::<usize>() % 8;
        for bits in &mut groups {
            let less = over.min(usize::from(*bits));
            *bits -= less as u8;
            over -= less;
        }
        if groups.iter().all(|&bits| bits == 0) {
            groups.fill(1);
        }
        let mut places: Vec<usize> = (0..dim).collect();
        places.sort_by_cached_key(|_| self.next().to_bits());
        let mut bits = vec![0; dim];
        places.iter().enumerate().for_each(|(i, &channel)| bits[channel] = groups[i / 4]);
        Grades::new(&bits).unwrap()
    }
}

fn codes(bits: u32, table: bool, group: ScaleGroup, minimum: bool) -> Encoding {
    let levels = if table {
        Levels::Table(std::array::from_fn(|i| (i as f32 - 7.3) * 0.31))
    } else {
        Levels::Linear { offset: if bits == 8 { 128 } else { (1 << bits) / 2 } }
    };
    Encoding::Codes(Codes { bits, levels, group, minimum })
}

fn encodings(side: Side) -> Vec<Encoding> {
    let mut all = vec![Encoding::F32, Encoding::F16, Encoding::Bf16];
    for bits in [2, 3, 4, 8] {
        all.push(codes(bits, false, ScaleGroup::Block, false));
        if side == Side::Keys {
            all.push(codes(bits, false, ScaleGroup::Channel, false));
        } else {
            all.push(codes(bits, false, ScaleGroup::Block, true));
            all.push(codes(bits, false, ScaleGroup::Slot, true));
        }
        if bits < 8 {
            all.push(codes(bits, true, ScaleGroup::Slot, false));
        }
    }
    all
}

fn fill(layout: &StripLayout, strips: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0; strips * layout.strip_bytes()];
    for strip in bytes.chunks_exact_mut(layout.strip_bytes()) {
        for lane in 0..STRIP {
            match layout.encoding() {
                Encoding::Codes(codes) => {
                    let max = codes.max_code() as f32 + 0.999;
                    let u: Vec<u8> =
                        (0..layout.dim()).map(|_| ((random.next() + 1.0) / 2.0 * max) as u8).collect();
                    let scales = random.vector(layout.groups());
                    let minima = random.vector(if codes.minimum { layout.groups() } else { 0 });
                    layout.put_codes(strip, lane, &u, &scales, &minima);
                }
                _ => layout.put(strip, lane, &random.vector(layout.dim())),
            }
        }
    }
    bytes
}

fn slot(layout: &StripLayout, bytes: &[u8], slot: usize, grid: Option<Grid<'_>>) -> Vec<f32> {
    let mut out = vec![0.0; layout.dim()];
    layout.get(&bytes[slot / STRIP * layout.strip_bytes()..], slot % STRIP, grid, &mut out);
    out
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn scores_equal_the_formula(
        seed: u64, dim in prop::sample::select(vec![32usize, 64, 96, 128, 256]),
        count in 1usize..6, strips in 1usize..6, slack in 0usize..3,
    ) {
        let mut random = Random(seed);
        let (scale, zero) = (random.vector(dim), random.vector(dim));
        let grid = Some(Grid { scale: &scale, zero: &zero, grades: None });
        let q = random.vector(count * dim);
        let mut queries = Queries::default();
        queries.set(&q, dim);
        for encoding in encodings(Side::Keys) {
            let layout = StripLayout::new(Side::Keys, encoding, dim);
            let bytes = fill(&layout, strips, &mut random);
            let stride = strips * STRIP + slack;
            for &level in Level::available() {
                let mut out = vec![f32::NAN; count * stride];
                key_scores(level, &layout, grid, &queries, bytes[..].into(), &mut out, stride);
                let mut decoded = vec![0.0; strips * dim * STRIP];
                decode_keys(level, &layout, grid, &bytes, &mut decoded);
                for s in 0..strips * STRIP {
                    let key = slot(&layout, &bytes, s, grid);
                    for (i, key) in key.iter().enumerate() {
                        let got = decoded[(s / STRIP * dim + i) * STRIP + s % STRIP];
                        // Tables are rounded to 8 bits: half a step of the largest level, times the scale.
                        prop_assert!((got - key).abs() < 0.011, "{encoding:?} {level:?}: {got} for {key}");
                    }
                    for (i, q) in q.chunks_exact(dim).enumerate() {
                        let got = out[i * stride + s] as f64;
                        let largest = key.iter().fold(1.0f32, |m, k| m.max(k.abs())) as f64;
                        let tolerance = match encoding {
                            Encoding::Codes(_) => 0.02 * largest * (dim as f64).sqrt(),
                            _ => 1e-4,
                        };
                        let want = dot(q, &key);
                        prop_assert!((got - want).abs() < tolerance, "{encoding:?} {level:?}: {got} for {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn graded_scores_equal_the_formula(
        seed: u64, dim in prop::sample::select(vec![32usize, 64, 96, 128, 256]), count in 1usize..6, strips in 1usize..6,
        slack in 0usize..3,
    ) {
        let mut random = Random(seed);
        let grades = random.grades(dim);
        let (scale, zero) = (random.vector(dim), random.vector(dim));
        let grid = Some(Grid { scale: &scale, zero: &zero, grades: Some(&grades) });
        let q = random.vector(count * dim);
        let mut queries = Queries::default();
        queries.set(&q, dim);
        let bytes = 64 * grades.lines();
        let mut keys = vec![0u8; strips * bytes];
        let mut want = vec![vec![0.0f32; dim]; strips * STRIP];
        for (slot, key) in want.iter_mut().enumerate() {
            for (channel, x) in key.iter_mut().enumerate() {
                let most = (1u32 << grades.bits(channel)) - 1;
                let code = ((random.next() + 1.0) / 2.0 * (most as f32 + 0.999)) as u8;
                let strip = &mut keys[slot / STRIP * bytes..][..bytes];
                grades.place(channel).put(strip, slot % STRIP, code);
                *x = zero[channel] + scale[channel] * f32::from(code);
            }
        }
        for (slot, key) in want.iter().enumerate() {
            for (channel, x) in key.iter().enumerate() {
                let code = grades.place(channel).code(&keys[slot / STRIP * bytes..][..bytes], slot % STRIP);
                prop_assert_eq!(zero[channel] + scale[channel] * f32::from(code), *x);
            }
        }
        let (mut codes, mut moved) = (vec![7; dim], vec![0xa5; bytes]);
        grades.codes(&keys[..bytes], 3, &mut codes);
        grades.put_codes(&mut moved, 11, &codes);
        let (code, put) = (|channel| grades.place(channel).code(&keys, 3), |channel| grades.place(channel).code(&moved, 11));
        prop_assert!((0..dim).all(|channel| codes[channel] == code(channel) && put(channel) == code(channel)));
        let layout = StripLayout::new(Side::Keys, Encoding::Graded { lines: grades.lines() as u16 }, dim);
        prop_assert_eq!(layout.strip_bytes(), bytes);
        for (s, key) in want.iter().enumerate() {
            prop_assert_eq!(&slot(&layout, &keys, s, grid), key);
        }
        let mut copied = vec![0u8; bytes];
        layout.copy(&keys[..bytes], 3, &mut copied, 11);
        prop_assert!((0..dim).all(|channel| grades.place(channel).code(&copied, 11) == grades.place(channel).code(&keys, 3)));
        let stride = strips * STRIP + slack;
        for &level in Level::available() {
            let mut out = vec![f32::NAN; count * stride];
            key_scores(level, &layout, grid, &queries, keys[..].into(), &mut out, stride);
            let mut decoded = vec![f32::NAN; strips * dim * STRIP];
            decode_keys(level, &layout, grid, &keys, &mut decoded);
            for (s, key) in want.iter().enumerate() {
                for (i, key) in key.iter().enumerate() {
                    let got = decoded[(s / STRIP * dim + i) * STRIP + s % STRIP];
                    prop_assert!((got - key).abs() < 1e-3, "{level:?}: {got} for {key}");
                }
                for (i, q) in q.chunks_exact(dim).enumerate() {
                    let got = out[i * stride + s] as f64;
                    // Queries are rounded to 1/127 of the largest of a block, with the largest code.
                    let largest = scale.iter().enumerate().map(|(c, s)| s.abs() * (1 << grades.bits(c)) as f32);
                    let tolerance = largest.fold(0.0, f32::max) as f64 / 254.0 * (dim as f64).sqrt() * 3.0;
                    let want = dot(q, key);
                    prop_assert!((got - want).abs() < tolerance, "{level:?}: {got} for {want}, {tolerance}");
                }
            }
        }
    }

    #[test]
    fn value_sums_equal_the_formula(
        seed: u64, dim in prop::sample::select(vec![32usize, 64, 96, 128, 256]),
        count in 1usize..6, strips in 1usize..6, slack in 0usize..3,
    ) {
        let mut random = Random(seed);
        for encoding in encodings(Side::Values) {
            let layout = StripLayout::new(Side::Values, encoding, dim);
            let bytes = fill(&layout, strips, &mut random);
            let stride = strips * STRIP + slack;
            let weights = random.vector(count * stride);
            let values: Vec<_> = (0..strips * STRIP).map(|s| slot(&layout, &bytes, s, None)).collect();
            // Integer products round weights to 1/127 of the largest: independent errors, of half a step at most, times
            // levels. Tables are rounded to 8 bits: half a step of the largest level.
            let (rounding, of_table) = match encoding {
                Encoding::Codes(codes) => {
                    let largest = codes.level(0).abs().max(codes.level(codes.max_code()).abs()) as f64;
                    let table = if matches!(codes.levels, Levels::Table(_)) { largest as f32 / 254.0 } else { 0.0 };
                    (largest / 254.0 * ((strips * STRIP) as f64).sqrt() * 3.0, table)
                }
                _ => (0.0, 0.0),
            };
            for &level in Level::available() {
                let mut out = random.vector(count * dim);
                let before = out.clone();
                value_sums(level, &layout, &weights, stride, bytes[..].into(), &mut out);
                let mut decoded = vec![0.0; strips * STRIP * dim];
                decode_values(level, &layout, &bytes, &mut decoded);
                for (decoded, value) in decoded.chunks_exact(dim).zip(&values) {
                    for (got, want) in decoded.iter().zip(value) {
                        let tolerance = 1e-4 * want.abs().max(1.0) + of_table;
                        prop_assert!((got - want).abs() < tolerance, "{encoding:?} {level:?}");
                    }
                }
                for (at, got) in out.iter().enumerate() {
                    let (q, i) = (at / dim, at % dim);
                    let sum: f64 = values
                        .iter()
                        .enumerate()
                        .map(|(s, v)| weights[q * stride + s] as f64 * v[i] as f64)
                        .sum();
                    let want = before[at] as f64 + sum;
                    prop_assert!((*got as f64 - want).abs() < 2e-2 + rounding, "{encoding:?} {level:?}: {got} for {want}");
                }
            }
        }
    }

    #[test]
    fn dense_products_equal_the_formula(
        seed: u64, dim in prop::sample::select(vec![32usize, 64, 96]),
        count in 1usize..10, strips in 1usize..7, cut in 0usize..16,
    ) {
        let mut random = Random(seed);
        let (slots, stride) = (strips * STRIP - cut, strips * STRIP + 3);
        let (queries, keys) = (random.vector(count * dim), random.vector(strips * dim * STRIP));
        let weights = random.vector(count * stride);
        let value_stride = dim + 16;
        let values = random.vector(strips * STRIP * value_stride);
        for &level in Level::available() {
            let mut out = vec![f32::NAN; count * stride];
            dense_scores(level, dim, &queries, &keys, &mut out, stride);
            let mut sums = vec![0.5; count * dim];
            dense_values(level, dim, &weights, stride, &values, value_stride, slots, &mut sums);
            for q in 0..count {
                for s in 0..strips * STRIP {
                    let want: f64 = (0..dim)
                        .map(|i| queries[q * dim + i] as f64 * keys[(s / STRIP * dim + i) * STRIP + s % STRIP] as f64)
                        .sum();
                    prop_assert!((out[q * stride + s] as f64 - want).abs() < 1e-4);
                }
                for i in 0..dim {
                    let want: f64 = 0.5 + (0..slots)
                        .map(|s| weights[q * stride + s] as f64 * values[s * value_stride + i] as f64)
                        .sum::<f64>();
                    prop_assert!((sums[q * dim + i] as f64 - want).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn softmax_equals_the_formula(mut scores in prop::collection::vec(-200f32..80.0, 1..70), dead in 0usize..70) {
        if let Some(score) = scores.get_mut(dead) {
            *score = f32::NEG_INFINITY;
        }
        for &level in Level::available() {
            let max = maximum(level, &scores);
            prop_assert_eq!(max, scores.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let mut got = scores.clone();
            let sum = exponentials(level, &mut got, max);
            let want: Vec<f64> = scores.iter().map(|s| ((s - max) as f64).exp()).collect();
            for (got, want) in got.iter().zip(&want) {
                prop_assert!((*got as f64 - want).abs() <= 3e-7 * want + 1e-37 || max == f32::NEG_INFINITY);
            }
            if max > f32::NEG_INFINITY {
                prop_assert!((sum as f64 / want.iter().sum::<f64>() - 1.0).abs() < 1e-5);
            } else {
                prop_assert_eq!(sum, 0.0);
            }
            let whole = &scores[..scores.len() / STRIP * STRIP];
            let mut sums = vec![f32::NAN; whole.len() / STRIP];
            let all = strip_exponentials(level, whole, max, &mut sums);
            for (sum, got) in sums.iter().zip(got.chunks_exact(STRIP)) {
                let want: f32 = got.iter().sum();
                prop_assert!((sum - want).abs() <= 1e-4 * want + 1e-37);
            }
            let want: f32 = sums.iter().sum();
            prop_assert!((all - want).abs() <= 1e-5 * want);
        }
    }

    #[test]
    fn a_copied_slot_is_the_same_and_alone(seed: u64, from in 0usize..16, to in 0usize..16, keys: bool) {
        let side = if keys { Side::Keys } else { Side::Values };
        let mut random = Random(seed);
        let (scale, zero) = (random.vector(64), random.vector(64));
        let grid = Some(Grid { scale: &scale, zero: &zero, grades: None });
        for encoding in encodings(side) {
            let layout = StripLayout::new(side, encoding, 64);
            let source = fill(&layout, 1, &mut random);
            let before = fill(&layout, 1, &mut random);
            let mut target = before.clone();
            layout.copy(&source, from, &mut target, to);
            for lane in 0..STRIP {
                let want = if lane == to { slot(&layout, &source, from, grid) } else { slot(&layout, &before, lane, grid) };
                prop_assert_eq!(slot(&layout, &target, lane, grid), want, "{:?}", encoding);
            }
        }
    }
}

#[test]
fn codes_survive_packing() {
    for side in [Side::Keys, Side::Values] {
        for dim in [32, 64, 96, 128] {
            for bits in [2, 3, 4, 8] {
                let layout = StripLayout::new(side, codes(bits, false, ScaleGroup::Block, false), dim);
                let mut strip = vec![0xa5; layout.strip_bytes()];
                let code = |lane: usize, i: usize| ((lane * 37 + i * 11) % (1 << bits)) as u8;
                let scales = vec![1.0; dim / BLOCK];
                for lane in 0..STRIP {
                    let row: Vec<u8> = (0..dim).map(|i| code(lane, i)).collect();
                    layout.put_codes(&mut strip, lane, &row, &scales, &[]);
                }
                for lane in 0..STRIP {
                    for i in 0..dim {
                        assert_eq!(layout.code(&strip, lane, i), code(lane, i), "{side:?} {dim} {bits}");
                    }
                }
            }
        }
    }
}

/// The strip is no larger than the codes and scales it holds.
#[test]
fn strips_waste_nothing() {
    for (side, dim) in [(Side::Keys, 32), (Side::Values, 32), (Side::Keys, 128), (Side::Values, 128)] {
        for encoding in encodings(side) {
            let layout = StripLayout::new(side, encoding, dim);
            let bits = match encoding {
                Encoding::F32 => 32,
                Encoding::F16 | Encoding::Bf16 => 16,
                Encoding::Codes(codes) => codes.bits as usize,
                Encoding::Graded { .. } => continue,
            };
            assert_eq!(layout.code_bytes() * 8, STRIP * dim * bits, "{encoding:?}");
        }
    }
}

#[test]
fn nearest_is_round_ties_even() {
    for i in -520i32..520 {
        let x = i as f32 / 4.0;
        assert_eq!(nearest(x), x.round_ties_even() as i32, "{x}");
    }
    assert_eq!((nearest(4194304.0), nearest(-4194304.0)), (4194304, -4194304));
}
