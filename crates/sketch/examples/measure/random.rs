//! Streams and vectors from a seed.

use sketchkv_sketch::SplitMix64;

pub(crate) struct Random(SplitMix64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform on [0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0.unit()
    }

    pub(crate) fn normal(&mut self) -> f32 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }

    /// A direction, uniform on the sphere.
    pub(crate) fn direction(&mut self, dim: usize) -> Vec<f32> {
        let x: Vec<f32> = (0..dim).map(|_| self.normal()).collect();
        let norm = dot(&x, &x).sqrt() as f32;
        x.iter().map(|x| x / norm).collect()
    }

    /// Two directions at the angle θ.
    pub(crate) fn pair(&mut self, dim: usize, theta: f64) -> (Vec<f32>, Vec<f32>) {
        let (a, b) = (self.direction(dim), self.direction(dim));
        let along = dot(&a, &b) as f32;
        let across: Vec<f32> = a.iter().zip(&b).map(|(a, b)| b - along * a).collect();
        let norm = dot(&across, &across).sqrt() as f32;
        let (sin, cos) = (theta.sin() as f32, theta.cos() as f32);
        let c = a.iter().zip(&across).map(|(a, b)| cos * a + sin / norm * b).collect();
        (a, c)
    }
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// `n` keys of `0..distinct` with probabilities proportional to `1 / (rank + 1)^exponent`.
pub(crate) fn zipf(random: &mut Random, n: usize, distinct: usize, exponent: f64) -> Vec<u64> {
    let mut cumulative = Vec::with_capacity(distinct);
    let mut sum = 0.0;
    for rank in 0..distinct {
        sum += ((rank + 1) as f64).powf(-exponent);
        cumulative.push(sum);
    }
    let draw = |random: &mut Random| {
        let x = random.uniform() * sum;
        cumulative.partition_point(|&c| c <= x) as u64
    };
    (0..n).map(|_| draw(random)).collect()
}

pub(crate) fn root_mean_square(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    (values.map(|x| x * x).sum::<f64>() / n).sqrt()
}
