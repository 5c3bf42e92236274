use super::{Evicted, Tail};
use crate::context::{Buffers, Context, Neighbours, Partial, Softcap};
use crate::method::{Call, Choice, Kind, Method, Parameter};
use crate::state::{Reader, StateError, Writer};
use sketchkv_kernels::attention::dense_values;
use sketchkv_kernels::cpu;
use sketchkv_sketch::{Projection, SimHash};
use std::mem::size_of;

pub(super) static METHOD: Method = Method {
    name: "race",
    choice: Choice::Tail,
    summary: "hashed sums of evicted values, weighted by what a cell says of its keys",
    formula: "in every row, (k, v) adds (1, v) to the cell of the signs s of ⟨r_j, k − m⟩; at attention a cell of c tokens \
              and sum Σv weighs c·w and w·Σv, w = e^(q·m/√d + β·σ²‖q‖²/2d)·Π_j 2Φ(s_j·σ⟨r_j, q⟩/√d); rows are averaged",
    state: "rows·2^bits·(d + 1)·4 + 16d B a head",
    paper: "RACE, arXiv 1912.02283",
    differs: "RACE counts collisions, whose kernel (1 − θ/π)^bits is flatter than e^(q·k) for any number of cells one \
              can afford, and blind to norms. The weight here is the mean of e^(q·k) over a cell, exact for keys that are \
              normal around m with variance σ² a dimension (β = 1); for long queries Π 2Φ becomes the indicator of a \
              collision over its probability 2^-bits. Real keys are no such cloud: where q lies along little of their \
              variance the sums are too large, hence β below 1, and tokens of one cell share one weight, so that \
              sharp attention to a single evicted token is lost..",
    parameters: &[
        Parameter { name: "rows", kind: Kind::Integer(1, 64), default: "1", help: "independent tables" },
        Parameter { name: "bits", kind: Kind::Integer(1, 12), default: "4", help: "signs that make a cell" },
        Parameter {
            name: "spread",
            kind: Kind::Real(0.0, 1.0),
            default: "0.5",
            help: "β, the share of the variance of logits that counts",
        },
    ],
};

pub(super) fn build(call: &Call, context: &Context<'_>) -> Option<Box<dyn Tail>> {
    let (rows, bits) = (call.count("rows"), call.count("bits"));
    let (d, value_dim) = (context.layer().key_dim, context.layer().value_dim);
    let hash = SimHash::new(d, rows * bits, Projection::Hadamard, context.own_seed())
        .expect("the parameters are within the bounds of the sketch");
    let cells = rows << bits;
    Some(Box::new(Race {
        rows,
        bits,
        share: call.real("spread"),
        hash,
        mean: vec![0.0; d].into(),
        seen: 0,
        square: 0.0,
        counts: vec![0.0; cells].into(),
        value_dim,
        softcap: context.softcap(),
        sums: vec![0.0; cells * width(value_dim)].into(),
    }))
}

/// Keys that the mean is of: cells are comparable only around the same mean.
const MEAN_OF: u32 = 64;

/// Sums are padded to whole registers.
fn width(head_dim: usize) -> usize {
    head_dim.next_multiple_of(16)
}

#[derive(Clone)]
struct Race {
    rows: usize,
    bits: usize,
    /// β
    share: f32,
    /// Directions of norm √d, `[row][bit]`.
    hash: SimHash,
    /// m
    mean: Box<[f32]>,
    /// Tokens absorbed.
    seen: u32,
    /// Mean ‖k − m‖², which is d·σ².
    square: f32,
    /// `[row][cell]`
    counts: Box<[f32]>,
    value_dim: usize,
    softcap: Softcap,
    /// `[row][cell][width]`
    sums: Box<[f32]>,
}

impl Race {
    /// Π_j 2Φ(s_j·σ⟨r_j, q⟩/√d) of every cell, `[row][cell]`; `q` is scaled by 1/√d already, `projections` is scratch,
    /// `[row][bit]`.
    fn weights(&self, q: &[f32], projections: &mut [f32], out: &mut [f32]) {
        self.hash.project(q, projections);
        // The directions are longer than unit ones by √d, and σ is √(square/d).
        let sigma = self.square.sqrt() / self.hash.dim() as f32;
        for (row, out) in projections.chunks_exact(self.bits).zip(out.chunks_exact_mut(1 << self.bits)) {
            out[0] = 1.0;
            for (bit, projection) in row.iter().enumerate() {
                let positive = 2.0 * normal_cdf(sigma * projection);
                let (clear, set) = out[..2 << bit].split_at_mut(1 << bit);
                for (clear, set) in clear.iter_mut().zip(set) {
                    *set = *clear * positive;
                    *clear *= 2.0 - positive;
                }
            }
        }
    }
}

/// Φ, by Abramowitz & Stegun 7.1.26; absolute error below 2e-7.
fn normal_cdf(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let p = [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6]
        .into_iter()
        .fold(0.0, |p: f32, c| p * t + c);
    let upper = 0.5 * p * t * (-z * z).exp();
    if x < 0.0 { upper } else { 1.0 - upper }
}

impl Tail for Race {
    fn clone_box(&self) -> Box<dyn Tail> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        self.hash.bytes() + (self.mean.len() + self.counts.len() + self.sums.len()) * size_of::<f32>()
    }

    fn absorb(&mut self, token: &Evicted<'_>, _: &mut dyn Neighbours, buffers: &mut Buffers) {
        let mut centred = buffers.floats(token.key.len());
        let of_both = token.key.iter().zip(&self.mean);
        centred.iter_mut().zip(of_both).for_each(|(x, (k, m))| *x = k - m);
        let mut projections = buffers.floats(self.rows * self.bits);
        self.hash.project(&centred, &mut projections);
        let width = width(token.value.len());
        for (row, projections) in projections.chunks_exact(self.bits).enumerate() {
            let signs = projections.iter().enumerate().map(|(bit, p)| ((*p >= 0.0) as usize) << bit);
            let cell = (row << self.bits) + signs.sum::<usize>();
            self.counts[cell] += 1.0;
            let sums = &mut self.sums[cell * width..];
            sums.iter_mut().zip(token.value).for_each(|(sum, x)| *sum += x);
        }
        let square: f32 = centred.iter().map(|x| x * x).sum();
        let rate = 1.0 / (self.seen + 1) as f32;
        if self.seen < MEAN_OF {
            // Around a mean that moves by x·rate, Σ‖k − m‖² grows by ‖x‖²·(1 − rate).
            self.square += (square * (1.0 - rate) - self.square) * rate;
            self.mean.iter_mut().zip(&centred).for_each(|(m, x)| *m += x * rate);
        } else {
            self.square += (square - self.square) * rate;
        }
        self.seen = self.seen.saturating_add(1).min(u32::MAX - 1);
        buffers.give_floats([centred, projections]);
    }

    fn attend(&self, queries: &[f32], partial: &mut Partial, buffers: &mut Buffers) {
        if self.seen == 0 {
            return;
        }
        let d = self.mean.len();
        let (width, cells) = (width(self.value_dim), self.counts.len());
        let rows = queries.len() / d;
        let mut weights = buffers.floats(rows * cells);
        let mut projections = buffers.floats(self.rows * self.bits);
        for (q, weights) in queries.chunks_exact(d).zip(weights.chunks_exact_mut(cells)) {
            self.weights(q, &mut projections, weights);
        }
        let mut acc = buffers.floats(rows * width);
        dense_values(cpu::level(), width, &weights, cells, &self.sums, width, cells, &mut acc);
        for (query, q) in queries.chunks_exact(d).enumerate() {
            let mean: f32 = q.iter().zip(&self.mean).map(|(q, m)| q * m).sum();
            let norm: f32 = q.iter().map(|q| q * q).sum();
            let max = mean + self.share * self.square / (2 * d) as f32 * norm;
            let average = 1.0 / self.rows as f32;
            let weights = &weights[query * cells..][..cells];
            let sum: f32 = weights.iter().zip(&self.counts).map(|(w, c)| w * c).sum();
            let acc = &mut acc[query * width..][..self.value_dim];
            acc.iter_mut().for_each(|x| *x *= average);
            partial.add(query, self.softcap.of(max), sum * average, acc);
        }
        buffers.give_floats([weights, projections, acc]);
    }

    fn save(&self, out: &mut Writer) {
        out.u64(self.seen.into());
        out.floats(&[self.square]);
        out.floats(&self.mean);
        out.floats(&self.counts);
        out.floats(&self.sums);
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.seen = from.length(u32::MAX as usize - 1)? as u32;
        self.square = from.floats(1)?[0];
        self.mean = from.floats(self.mean.len())?.into();
        self.counts = from.floats(self.counts.len())?.into();
        self.sums = from.floats(self.sums.len())?.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::normal_cdf;

    #[test]
    fn the_normal_law_is_right() {
        for (x, want) in [
            (0.0, 0.5),
            (1.0, 0.841_344_7),
            (-1.0, 0.158_655_3),
            (2.5, 0.993_790_3),
            (-4.0, 3.167e-5),
            (9.0, 1.0),
        ] {
            assert!((normal_cdf(x) - want).abs() < 3e-7, "{x}");
        }
    }
}
