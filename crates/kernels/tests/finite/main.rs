//! Finite in, finite out: every kernel at every level that this machine has, over numbers from the smallest to the
//! largest, mixed in one block, against arithmetic in f64.

mod attention;
mod products;

use proptest::prelude::*;

/// Where codes, scales, reciprocals and conversions break: both ends of f32 and of f16, and below where 127 / x is finite.
const MAGNITUDES: [f32; 18] = [
    0.0,
    1e-45,
    1e-40,
    f32::MIN_POSITIVE,
    2e-38,
    1e-37,
    1e-36,
    1e-30,
    6e-8,
    1e-4,
    1.0,
    300.0,
    65_504.0,
    65_520.0,
    1e19,
    1e30,
    3e38,
    f32::MAX,
];

/// What a result may come to for it to be finite, in f64: see the bound that `attention` states.
const LIMIT: f64 = f32::MAX as f64 / 4.0;

/// Numbers of a few magnitudes that change from block to block.
#[derive(Clone, Debug)]
struct Numbers {
    magnitudes: Vec<f32>,
    state: u64,
}

impl Numbers {
    fn any() -> impl Strategy<Value = Numbers> {
        let magnitudes = prop::collection::vec(prop::sample::select(MAGNITUDES.to_vec()), 1..4);
        (magnitudes, any::<u64>()).prop_map(|(magnitudes, state)| Numbers { magnitudes, state })
    }

    fn bits(&mut self) -> usize {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.state >> 33) as usize
    }

    /// In −1..=1, often one of the ends.
    fn part(&mut self) -> f32 {
        let part = if self.bits().is_multiple_of(4) { 1.0 } else { self.bits() as f32 / (1u64 << 31) as f32 };
        if self.bits().is_multiple_of(2) { part } else { -part }
    }

    fn next(&mut self) -> f32 {
        let which = self.bits() % self.magnitudes.len();
        self.magnitudes[which] * self.part()
    }

    /// `n` numbers; blocks of 32 are of all magnitudes, or of one.
    fn vector(&mut self, n: usize) -> Vec<f32> {
        let mut x = Vec::with_capacity(n);
        while x.len() < n {
            let one = Numbers { magnitudes: vec![self.next()], state: self.state };
            let mut numbers = if self.bits().is_multiple_of(2) { one } else { self.clone() };
            x.extend((0..32).map(|_| numbers.next()));
            self.bits();
        }
        x.truncate(n);
        x
    }
}

/// The largest magnitude.
fn largest(x: &[f32]) -> f64 {
    x.iter().fold(0.0, |m, x| f64::from(x.abs()).max(m))
}

/// Half a step of a block rounded to 8 bits, and a little for the rounding of the step.
fn half_step(largest: f64) -> f64 {
    0.501 * (largest / 127.0).max(f64::from(f32::MIN_POSITIVE))
}

/// A sum by its formula.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    value: f64,
    /// Σ of the magnitudes of the terms, as large as a kernel may take them.
    size: f64,
    /// How far rounding to codes may lead.
    rounding: f64,
}

impl Sum {
    /// Adds a product that is only rounded.
    fn add(&mut self, a: f32, b: f32) {
        let term = f64::from(a) * f64::from(b);
        self.value += term;
        self.size += term.abs();
    }

    /// Whether `got` is finite and near, as it must be where the terms are in range.
    fn admits(&self, got: f32) -> bool {
        let tolerance = self.rounding + 2e-5 * self.size + 1e-42;
        self.size >= LIMIT || got.is_finite() && (f64::from(got) - self.value).abs() <= tolerance
    }
}
