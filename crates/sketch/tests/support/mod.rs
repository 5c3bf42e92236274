//! Streams to sketch and the arithmetic of judging many seeds at once.
#![allow(dead_code, reason = "every test file uses its own part")]

use sketchkv_sketch::SplitMix64;
use std::collections::HashMap;

/// From seeds of its own, so that no test shares randomness with the sketch it tests.
pub(crate) struct Random(SplitMix64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed ^ 0x5eed_7e57))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform on [0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0.unit()
    }

    /// Standard normal (Box-Muller).
    pub(crate) fn normal(&mut self) -> f32 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }

    pub(crate) fn vector(&mut self, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| self.normal()).collect()
    }

    /// Two unit vectors at the angle θ.
    pub(crate) fn pair(&mut self, dim: usize, theta: f64) -> (Vec<f32>, Vec<f32>) {
        let a = unit(&self.vector(dim));
        let b = self.vector(dim);
        let along = dot(&a, &b);
        let across = unit(&a.iter().zip(&b).map(|(a, b)| b - along as f32 * a).collect::<Vec<_>>());
        let (sin, cos) = (theta.sin() as f32, theta.cos() as f32);
        let c = a.iter().zip(&across).map(|(a, b)| cos * a + sin * b).collect();
        (a, c)
    }
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

pub(crate) fn unit(a: &[f32]) -> Vec<f32> {
    let norm = dot(a, a).sqrt() as f32;
    a.iter().map(|x| x / norm).collect()
}

pub(crate) fn angle(a: &[f32], b: &[f32]) -> f64 {
    (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).clamp(-1.0, 1.0).acos()
}

/// `n` keys of `0..distinct` with probabilities proportional to `1 / (rank + 1)^exponent`.
pub(crate) fn zipf(random: &mut Random, n: usize, distinct: usize, exponent: f64) -> Vec<u64> {
    let mut cumulative = Vec::with_capacity(distinct);
    let mut sum = 0.0;
    for rank in 0..distinct {
        sum += ((rank + 1) as f64).powf(-exponent);
        cumulative.push(sum);
    }
    (0..n)
        .map(|_| {
            let x = random.uniform() * sum;
            cumulative.partition_point(|&c| c <= x) as u64
        })
        .collect()
}

/// Streams that are hard in different ways, by name: Zipf, all keys once, keys that differ in one bit only, keys
/// a power of two apart, multiples of the hash's prime, one key and noise.
pub(crate) fn streams(seed: u64) -> Vec<(&'static str, Vec<u64>)> {
    let mut random = Random::new(seed);
    let n = 3000;
    let prime = (1u64 << 61) - 1;
    let mut spike = vec![7; n / 2];
    spike.extend((0..n as u64 / 2).map(|i| i + 1000));
    vec![
        ("zipf 1.1", zipf(&mut random, n, 2000, 1.1)),
        ("zipf 0.8", zipf(&mut random, n, 2000, 0.8)),
        ("once each", (0..n as u64).collect()),
        ("one bit", (0..n).map(|i| 1u64 << (i % 64)).collect()),
        ("powers apart", (0..n as u64).map(|i| i << 32).collect()),
        (
            "multiples of the prime",
            (0..n as u64).map(|i| prime.wrapping_mul(i % 9).wrapping_add(i / 9)).collect(),
        ),
        ("spike", spike),
    ]
}

pub(crate) fn exact(stream: &[u64]) -> HashMap<u64, u64> {
    let mut counts = HashMap::new();
    for &key in stream {
        *counts.entry(key).or_insert(0) += 1;
    }
    counts
}

/// The largest number of failures in `n` independent trials that a failure probability of at most `p` explains:
/// a larger number has probability below 10^-6.
pub(crate) fn most_failures(n: usize, p: f64) -> usize {
    let log_factorial = |n: usize| (1..=n).map(|i| (i as f64).ln()).sum::<f64>();
    let log_term = |k: usize| {
        log_factorial(n) - log_factorial(k) - log_factorial(n - k)
            + k as f64 * p.ln()
            + (n - k) as f64 * (1.0 - p).ln()
    };
    let mut tail = 0.0;
    for k in (0..=n).rev() {
        tail += log_term(k).exp();
        if tail > 1e-6 {
            return k;
        }
    }
    0
}

/// Mean and standard error of the mean.
pub(crate) fn mean(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

/// That the values' mean is `expected`, to within five standard errors.
pub(crate) fn assert_mean(values: &[f64], expected: f64, what: &str) {
    let (mean, error) = mean(values);
    assert!(
        (mean - expected).abs() <= 5.0 * error + 1e-6 * expected.abs(),
        "{what}: mean {mean} ± {error}, expected {expected}"
    );
}
