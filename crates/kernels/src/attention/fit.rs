//! Graded codes of the keys of a page, channel by channel: which grid suits them, chosen anew, or when they lose bits.

use super::graded::Grades;
use super::layout::STRIP;
use crate::cpu::per_level;
use crate::half::to_f16;

/// Slots of a page.
const SLOTS: usize = 4 * STRIP;

/// Deviations from the mean that the ends of a grid of 1, 2 and 3 bits may lie at: about where those of a Gaussian, and of
/// numbers spread evenly, are best. With more bits the grid holds the whole range.
const ENDS: [[f32; 3]; 3] = [[0.65, 0.8, 1.0], [1.2, 1.5, 1.8], [1.7, 2.05, 2.4]];

/// The scales and zeros of a page, `[channel]`, as f16 will hold them.
pub struct GridMut<'a> {
    /// A step of the codes.
    pub scale: &'a mut [f32],
    /// What the code 0 stands for.
    pub zero: &'a mut [f32],
}

per_level! {
    /// The grid and the codes, `[strip][channel][16]`, of the keys of up to four strips, `[strip][channel][16]`, of which the
    /// slots in `live` count, one bit each from the lowest on.
    ///
    /// # Panics
    /// When a slice is shorter than that.
    pub fn fit_grid(grades: &Grades, keys: &[f32], live: u64, grid: GridMut<'_>, codes: &mut [u8]) {
        let (counted, dim) = (Counted::new(live), grades.dim());
        for channel in 0..dim {
            let column = counted.column(rows(keys, dim, channel));
            let bits = grades.bits(channel);
            let coded = counted.coded(&column, counted.best_ends(&column, bits), bits);
            let fit = counted.fit(&coded, &column);
            (grid.scale[channel], grid.zero[channel]) = (fit.scale, fit.zero);
            write(&coded, dim, channel, codes);
        }
    }
}

per_level! {
    /// Takes the lowest bits of codes, `[strip][channel][16]`, and fits the grid to what is left of them: `before` are their
    /// grades, `after` those to come, which have no more bits.
    ///
    /// # Panics
    /// When a slice is shorter than that.
    pub fn drop_bits(before: &Grades, after: &Grades, live: u64, grid: GridMut<'_>, codes: &mut [u8]) {
        let (counted, dim) = (Counted::new(live), before.dim());
        for channel in 0..dim {
            let shift = u32::from(before.bits(channel).saturating_sub(after.bits(channel)));
            if shift == 0 {
                continue;
            }
            let (scale, zero) = (grid.scale[channel], grid.zero[channel]);
            let whole = rows(codes, dim, channel);
            let (mut column, mut shifted) = ([0.0; SLOTS], [0.0; SLOTS]);
            for slot in 0..SLOTS {
                column[slot] = zero + scale * f32::from(whole[slot]);
                shifted[slot] = f32::from(u32::from(whole[slot]).unbounded_shr(shift) as u8);
            }
            let column = counted.column(column);
            // A grid of few bits may be better without the ends of a finer one.
            let bits = after.bits(channel);
            let anew = counted.coded(&column, counted.best_ends(&column, bits), bits);
            let (fit, other) = (counted.fit(&shifted, &column), counted.fit(&anew, &column));
            let (fit, coded) = if other.error < fit.error { (other, &anew) } else { (fit, &shifted) };
            (grid.scale[channel], grid.zero[channel]) = (fit.scale, fit.zero);
            write(coded, dim, channel, codes);
        }
    }
}

/// Where the number of a slot is in `[strip][channel][16]`.
#[inline(always)]
fn place(slot: usize, dim: usize, channel: usize) -> usize {
    (slot / STRIP * dim + channel) * STRIP + slot % STRIP
}

/// The numbers of a channel; 0 for strips that are not there.
#[inline(always)]
fn rows<T: Copy + Default>(x: &[T], dim: usize, channel: usize) -> [T; SLOTS] {
    let mut rows = [T::default(); SLOTS];
    for (strip, row) in rows.as_chunks_mut::<STRIP>().0.iter_mut().enumerate() {
        if let Some(x) = x.get(place(strip * STRIP, dim, channel)..).and_then(<[T]>::first_chunk) {
            *row = *x;
        }
    }
    rows
}

#[inline(always)]
fn write(coded: &Column, dim: usize, channel: usize, codes: &mut [u8]) {
    for (strip, coded) in coded.as_chunks::<STRIP>().0.iter().enumerate() {
        // The page may have fewer strips.
        if let Some(codes) =
            codes.get_mut(place(strip * STRIP, dim, channel)..).and_then(|c| c.get_mut(..STRIP))
        {
            codes.iter_mut().zip(coded).for_each(|(code, &x)| *code = x as u8);
        }
    }
}

/// A number of every slot; codes are whole numbers.
type Column = [f32; SLOTS];

/// What a grid leaves.
struct Fit {
    scale: f32,
    zero: f32,
    /// The sum of the squared errors.
    error: f32,
}

/// Which slots count.
struct Counted {
    /// 1 or 0.
    weights: Column,
    /// How many, at least 1.
    count: f32,
    first: usize,
}

impl Counted {
    #[inline(always)]
    fn new(live: u64) -> Self {
        Counted {
            weights: std::array::from_fn(|slot| (live >> slot & 1) as f32),
            count: live.count_ones().max(1) as f32,
            first: (live.trailing_zeros() as usize).min(SLOTS - 1),
        }
    }

    /// The numbers of a channel; in the place of those that do not count the first one that does.
    #[inline(always)]
    fn column(&self, mut x: Column) -> Column {
        let first = x[self.first];
        for (x, weight) in x.iter_mut().zip(&self.weights) {
            *x = if *weight > 0.0 { *x } else { first };
        }
        x
    }

    /// The sum over what counts.
    #[inline(always)]
    fn sum(&self, x: impl Fn(usize) -> f32) -> f32 {
        let mut lanes = [0.0; STRIP];
        for slot in 0..SLOTS {
            lanes[slot % STRIP] += self.weights[slot] * x(slot);
        }
        fold(lanes, |a, b| a + b)
    }

    #[inline(always)]
    fn mean(&self, x: &Column) -> f32 {
        self.sum(|slot| x[slot]) / self.count
    }

    /// The ends of the grid that codes `x` in so many bits with the least squared error.
    #[inline(always)]
    fn best_ends(&self, x: &Column, bits: u8) -> (f32, f32) {
        let (mut lows, mut highs) = ([f32::INFINITY; STRIP], [f32::NEG_INFINITY; STRIP]);
        for (slot, &x) in x.iter().enumerate() {
            lows[slot % STRIP] = if x < lows[slot % STRIP] { x } else { lows[slot % STRIP] };
            highs[slot % STRIP] = if x > highs[slot % STRIP] { x } else { highs[slot % STRIP] };
        }
        let least = fold(lows, |a, b| if b < a { b } else { a });
        let most = fold(highs, |a, b| if b > a { b } else { a });
        if bits == 0 || usize::from(bits) > ENDS.len() {
            return (least, most);
        }
        let mean = self.mean(x);
        let deviation = (self.sum(|slot| (x[slot] - mean) * (x[slot] - mean)) / self.count).sqrt();
        let steps = steps(bits);
        let error = |low: f32, high: f32| {
            let step = (high - low) / steps;
            let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
            self.sum(|slot| {
                let far = x[slot] - low - rounded(x[slot] - low, inverse, steps) * step;
                far * far
            })
        };
        let mut best = (least, most, error(least, most));
        for far in ENDS[usize::from(bits) - 1] {
            let (low, high) = ((mean - far * deviation).max(least), (mean + far * deviation).min(most));
            let error = error(low, high);
            // Comparisons with what is not a number choose the whole range.
            if error < best.2 {
                best = (low, high, error);
            }
        }
        (best.0, best.1)
    }

    /// The codes of `x` on a grid between two ends.
    #[inline(always)]
    fn coded(&self, x: &Column, (low, high): (f32, f32), bits: u8) -> Column {
        let most = steps(bits);
        if bits == 0 {
            return [0.0; SLOTS];
        }
        let (scale, zero) = (to_f16((high - low) / most).to_f32(), to_f16(low).to_f32());
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let mut codes = [0.0; SLOTS];
        codes.iter_mut().zip(x).for_each(|(code, x)| *code = rounded(x - zero, inverse, most));
        codes
    }

    /// The grid on which codes neither shrink nor stretch `x`: their covariance with it is its variance. The grid of least
    /// squared error would shrink it, and so all scores, which get flatter by that whichever way the errors fall. Where codes say
    /// next to nothing of `x` the scale is at most twice the one of least error.
    #[inline(always)]
    fn fit(&self, codes: &Column, x: &Column) -> Fit {
        let (code, mean) = (self.mean(codes), self.mean(x));
        let square = self.sum(|slot| (codes[slot] - code) * (codes[slot] - code));
        let product = self.sum(|slot| (codes[slot] - code) * (x[slot] - mean));
        let variance = self.sum(|slot| (x[slot] - mean) * (x[slot] - mean));
        let (least, unbiased) = (product / square, variance / product);
        let scale = if unbiased < 2.0 * least { unbiased } else { 2.0 * least };
        let scale = to_f16(if product > 0.0 { scale } else { 0.0 }).to_f32();
        let zero = to_f16(mean - scale * code).to_f32();
        let error = self.sum(|slot| {
            let far = x[slot] - zero - scale * codes[slot];
            far * far
        });
        Fit { scale, zero, error }
    }
}

/// The largest code.
#[inline(always)]
fn steps(bits: u8) -> f32 {
    ((1u32 << bits) - 1) as f32
}

/// How many steps, of which `inverse` are one, `x` is, within 0 to `most`.
#[inline(always)]
fn rounded(x: f32, inverse: f32, most: f32) -> f32 {
    // As `nearest`, without leaving f32.
    const UNIT: f32 = 12_582_912.0;
    let steps = x * inverse;
    let steps = if steps > 0.0 { steps } else { 0.0 };
    (if steps < most { steps } else { most }) + UNIT - UNIT
}

#[inline(always)]
fn fold(lanes: [f32; STRIP], f: impl Fn(f32, f32) -> f32) -> f32 {
    let halves = |n: usize, x: &[f32; STRIP]| -> [f32; STRIP] {
        std::array::from_fn(|lane| if lane < n { f(x[lane], x[lane + n]) } else { 0.0 })
    };
    let four = halves(4, &halves(8, &lanes));
    f(f(four[0], four[2]), f(four[1], four[3]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::tests::Random;
    use crate::cpu::Level;

    const DIM: usize = 64;

    fn keys(strips: usize) -> Vec<f32> {
        let mut random = Random(7);
        let mut of_channel =
            |channel: usize| random.next() / 2.0 * (1 + channel % 5) as f32 + (channel % 7) as f32;
        (0..strips * DIM * STRIP).map(|i| of_channel(i / STRIP % DIM)).collect()
    }

    fn grades(bits: impl Fn(usize) -> u8) -> Grades {
        Grades::new(&(0..DIM).map(bits).collect::<Vec<_>>()).unwrap()
    }

    struct Coded {
        scale: Vec<f32>,
        zero: Vec<f32>,
        codes: Vec<u8>,
    }

    impl Coded {
        fn of(level: Level, grades: &Grades, keys: &[f32], live: u64) -> Self {
            let (mut scale, mut zero, mut codes) = (vec![9.0; DIM], vec![9.0; DIM], vec![9; keys.len()]);
            fit_grid(level, grades, keys, live, GridMut { scale: &mut scale, zero: &mut zero }, &mut codes);
            Coded { scale, zero, codes }
        }

        /// The squared errors of a channel over the slots that count.
        fn error(&self, keys: &[f32], live: u64, channel: usize) -> f32 {
            (0..keys.len() / DIM)
                .filter(|slot| live >> slot & 1 == 1)
                .map(|slot| place(slot, DIM, channel))
                .map(|at| keys[at] - self.zero[channel] - self.scale[channel] * f32::from(self.codes[at]))
                .map(|x| x * x)
                .sum()
        }
    }

    #[test]
    fn every_level_chooses_the_same() {
        let fine = grades(|channel| [8, 5, 3, 2][channel / 16]);
        let coarse = grades(|channel| [4, 3, 1, 0][channel / 16]);
        for (strips, live) in [(4, u64::MAX), (4, 0x00f0_ffff_1234_0001), (2, 0xffff_fff0), (1, 1), (1, 0)] {
            let keys = keys(strips);
            let mut all = Level::available().iter().map(|&level| {
                let mut coded = Coded::of(level, &fine, &keys, live);
                let first = coded.codes.clone();
                let grid = GridMut { scale: &mut coded.scale, zero: &mut coded.zero };
                drop_bits(level, &fine, &coarse, live, grid, &mut coded.codes);
                (first, coded.codes, coded.scale, coded.zero)
            });
            let scalar = all.next().unwrap();
            assert!(scalar.2.iter().chain(&scalar.3).all(|x| x.is_finite() && to_f16(*x).to_f32() == *x));
            assert!(all.all(|other| other == scalar), "{strips} strips, {live:x}");
        }
    }

    #[test]
    fn ends_are_near_the_best() {
        let best_ends = |x: &[f32], bits| {
            let (counted, mut column) = (Counted::new(u64::MAX >> (SLOTS - x.len())), [0.0; SLOTS]);
            column[..x.len()].copy_from_slice(x);
            counted.best_ends(&counted.column(column), bits)
        };
        // Spread evenly over ±1, a grid's best ends are half a step within.
        let x: Vec<f32> = (0..64).map(|i| (i * 37 % 64) as f32 / 31.5 - 1.0).collect();
        for (bits, end) in [(1, 0.5), (2, 0.75)] {
            let (low, high) = best_ends(&x, bits);
            assert!((high - end).abs() < 0.1 && (low + end).abs() < 0.1, "{bits} bits: {low} to {high}");
        }
        assert_eq!(best_ends(&x, 4), (-1.0, 1.0));
        assert_eq!(best_ends(&[2.5; 4], 2), (2.5, 2.5));
        let (low, high) = best_ends(&[-3e38, 3e38], 1);
        assert!(low.is_finite() && high.is_finite());
    }

    /// Over the slots that count, of a channel of keys: the covariance with what comes back as a share of the variance, and the sum
    /// of the squares that is the variance.
    fn kept(coded: &Coded, keys: &[f32], live: u64, channel: usize) -> (f32, f32) {
        let slots = || {
            let live = (0..keys.len() / DIM).filter(|slot| live >> slot & 1 == 1);
            live.map(|slot| place(slot, DIM, channel))
        };
        let back = |at: usize| coded.zero[channel] + coded.scale[channel] * f32::from(coded.codes[at]);
        let mean = |x: &dyn Fn(usize) -> f32| slots().map(x).sum::<f32>() / slots().count() as f32;
        let [key, found] = [mean(&|at| keys[at]), mean(&back)];
        let products: f32 = slots().map(|at| (keys[at] - key) * (back(at) - found)).sum();
        let squares = slots().map(|at| (keys[at] - key).powi(2)).sum();
        (products / squares, squares)
    }

    #[test]
    fn nothing_shrinks() {
        let (keys, live) = (keys(4), 0xffff_0fff_ffff_fff1);
        for bits in [1, 2, 3, 4, 8] {
            let coded = Coded::of(Level::Scalar, &grades(|_| bits), &keys, live);
            for channel in 0..DIM {
                let (share, _) = kept(&coded, &keys, live, channel);
                assert!((share - 1.0).abs() < 3e-3, "{bits} bits, channel {channel}: {share}");
            }
        }
        // What is left of fine codes in two bits neither.
        let (fine, coarse) = (grades(|_| 8), grades(|_| 2));
        let mut coded = Coded::of(Level::Scalar, &fine, &keys, live);
        let grid = GridMut { scale: &mut coded.scale, zero: &mut coded.zero };
        drop_bits(Level::Scalar, &fine, &coarse, live, grid, &mut coded.codes);
        let mean: f32 = (0..DIM).map(|channel| kept(&coded, &keys, live, channel).0 / DIM as f32).sum();
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        // One bit says next to nothing of two outliers on either side: what lies between is not thrown as far.
        let outliers: Vec<f32> = (0..4 * DIM * STRIP)
            .map(|at| match (at / (DIM * STRIP), at % STRIP) {
                (0, 0) => 100.0,
                (0, 1) => -100.0,
                (_, lane) => (lane % 2) as f32 / 10.0,
            })
            .collect();
        let coded = Coded::of(Level::Scalar, &grades(|_| 1), &outliers, u64::MAX);
        for channel in 0..DIM {
            let (_, variance) = kept(&coded, &outliers, u64::MAX, channel);
            assert!(coded.error(&outliers, u64::MAX, channel) <= 1.01 * variance);
        }
    }

    /// Over all channels the best grids of many that are tried, ends apart, which is overfitting to so few numbers, are not much better,
    /// but for what it costs that they shrink nothing.
    #[test]
    fn grids_are_near_the_best() {
        let (keys, live) = (keys(4), 0xffff_0fff_ffff_fff1);
        for bits in [1, 2, 3, 4, 8] {
            let grades = grades(|_| bits);
            let coded = Coded::of(Level::Scalar, &grades, &keys, live);
            let (mut found, mut possible) = (0.0, 0.0);
            for channel in 0..DIM {
                let column: Vec<f32> = (0..SLOTS)
                    .filter(|slot| live >> slot & 1 == 1)
                    .map(|slot| keys[place(slot, DIM, channel)])
                    .collect();
                let (low, high) = column.iter().fold((f32::MAX, f32::MIN), |(l, h), &x| (l.min(x), h.max(x)));
                let mut best = f32::MAX;
                let (_, variance) = kept(&coded, &keys, live, channel);
                for (from, to) in
                    (0..20).flat_map(|i| (0..20).map(move |j| (i as f32 / 40.0, j as f32 / 40.0)))
                {
                    let (low, high) = (low + from * (high - low), high - to * (high - low));
                    let step = ((high - low) / steps(bits)).max(f32::MIN_POSITIVE);
                    let square = |&x: &f32| {
                        (x - low - ((x - low) / step).round().clamp(0.0, steps(bits)) * step).powi(2)
                    };
                    best = best.min(column.iter().map(square).sum());
                }
                found += coded.error(&keys, live, channel);
                possible += best / (1.0 - best / variance);
            }
            assert!(found <= 1.25 * possible, "{bits} bits: {found}, possible {possible}");
        }
    }

    /// What has lost bits is about as good as what never had them.
    #[test]
    fn lost_bits_cost_no_more_than_a_code_of_few() {
        let (keys, live) = (keys(4), u64::MAX);
        for bits in [0, 1, 2, 3, 4] {
            let (fine, coarse) = (grades(|_| 6), grades(|channel| if channel < DIM / 2 { 6 } else { bits }));
            let mut coded = Coded::of(Level::Scalar, &fine, &keys, live);
            let kept = coded.codes.clone();
            let grid = GridMut { scale: &mut coded.scale, zero: &mut coded.zero };
            drop_bits(Level::Scalar, &fine, &coarse, live, grid, &mut coded.codes);
            let at_once = Coded::of(Level::Scalar, &coarse, &keys, live);
            for channel in 0..DIM / 2 {
                let same = |slot| coded.codes[place(slot, DIM, channel)] == kept[place(slot, DIM, channel)];
                assert!((0..SLOTS).all(same), "a channel that loses none stays");
            }
            for channel in DIM / 2..DIM {
                let [lost, other] = [&coded, &at_once].map(|coded| coded.error(&keys, live, channel));
                assert!(lost <= other * 1.3 + 0.02, "{bits} bits, channel {channel}: {lost}, {other}");
                let most = (1u32 << bits) - 1;
                assert!((0..SLOTS).all(|slot| u32::from(coded.codes[place(slot, DIM, channel)]) <= most));
            }
        }
    }
}
