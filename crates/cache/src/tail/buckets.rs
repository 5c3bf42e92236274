use super::{Evicted, Tail};
use crate::format::padded;
use crate::head::Neighbours;
use crate::keep::Context;
use crate::method::{Call, Choice, Kind, Method, Parameter};
use crate::partial::Partial;
use crate::state::{Reader, StateError, Writer};
use sketchkv_kernels::attention::layout::{Encoding, Layout, STRIP, Side};
use sketchkv_kernels::attention::{Queries, Strips, exponentials, key_scores, maximum, value_sums};
use sketchkv_kernels::cpu;
use std::mem::size_of;

pub(super) static METHOD: Method = Method {
    name: "buckets",
    choice: Choice::Tail,
    summary: "clusters of evicted keys, each attended to as one token",
    formula: "(k, v) joins the bucket b of least ‖k − k̄_b‖²·c_b/(c_b + 1), an empty one first: c_b, k̄_b, v̄_b, r_b² are \
              its count, means and mean ‖k − k̄_b‖²; at attention, a token of value v̄_b and logit \
              q·k̄_b/√d + ln c_b + β·r_b²‖q‖²/2d²",
    state: "n·(4d + 12) B a head",
    paper: "ours; online k-means after MacQueen 1967 with the cost of Ward 1963",
    differs: "A mean of exponentials exceeds the exponential of the mean, by e^(σ²/2) where logits are normal with \
              variance σ². A bucket knows the spread of its keys and adds the share β of it: on real keys and queries \
              that took a quarter off the error of the output.",
    parameters: &[
        Parameter {
            name: "n",
            kind: Kind::Integer(16, 4096),
            default: "32",
            help: "buckets a head, rounded up to a multiple of 16",
        },
        Parameter {
            name: "spread",
            kind: Kind::Real(0.0, 1.0),
            default: "0.5",
            help: "β, the share of a bucket's variance of logits that counts",
        },
    ],
};

pub(super) fn build(call: &Call, context: &Context<'_>) -> Option<Box<dyn Tail>> {
    let n = call.integer("n").expect("declared without auto").next_multiple_of(STRIP);
    Some(Box::new(Buckets::new(n, call.real("spread"), context.shape.head_dim)))
}

/// Means are f16, in the strips of an f16 page: half the bytes of f32, and the rounding of a mean is far below the
/// spread of what it stands for.
#[derive(Clone)]
struct Buckets {
    head_dim: usize,
    /// β
    share: f32,
    /// Mean keys, dimension-major.
    keys: Strips,
    /// Mean values, slot-major.
    values: Strips,
    /// Tokens in each bucket.
    counts: Box<[u32]>,
    /// ‖k̄‖² of each bucket.
    norms: Box<[f32]>,
    /// Mean ‖k − k̄‖² of each bucket.
    spreads: Box<[f32]>,
}

impl Buckets {
    fn new(n: usize, share: f32, head_dim: usize) -> Self {
        let bytes = |side| n / STRIP * layout(side, head_dim).strip_bytes();
        Buckets {
            head_dim,
            share,
            keys: Strips::zeroed(bytes(Side::Keys)),
            values: Strips::zeroed(bytes(Side::Values)),
            counts: vec![0; n].into(),
            norms: vec![0.0; n].into(),
            spreads: vec![0.0; n].into(),
        }
    }

    /// The product of every mean key with every query, `[query][bucket]`.
    fn dots(&self, queries: &[f32]) -> Vec<f32> {
        let (d, dim, n) = (self.head_dim, padded(self.head_dim), self.counts.len());
        let mut wide = Queries::default();
        if d == dim {
            wide.set(queries, d);
        } else {
            let mut rows = vec![0.0; queries.len() / d * dim];
            for (row, q) in rows.chunks_exact_mut(dim).zip(queries.chunks_exact(d)) {
                row[..d].copy_from_slice(q);
            }
            wide.set(&rows, dim);
        }
        let mut dots = vec![0.0; wide.count() * n];
        key_scores(cpu::level(), &layout(Side::Keys, d), None, &wide, &self.keys, &mut dots, n);
        dots
    }

    /// The bucket that a key widens least, and ‖k − k̄‖² there. Empty ones are taken first, in order.
    fn nearest(&self, key: &[f32]) -> (usize, f32) {
        let norm: f32 = key.iter().map(|x| x * x).sum();
        let mut best = (0, 0.0, f32::INFINITY);
        for (bucket, dot) in self.dots(key).into_iter().enumerate() {
            let count = self.counts[bucket] as f32;
            if count == 0.0 {
                return (bucket, 0.0);
            }
            let distance = (norm - 2.0 * dot + self.norms[bucket]).max(0.0);
            let cost = distance * count / (count + 1.0);
            if cost < best.2 {
                best = (bucket, distance, cost);
            }
        }
        (best.0, best.1)
    }
}

fn layout(side: Side, head_dim: usize) -> Layout {
    Layout::new(side, Encoding::F16, padded(head_dim))
}

/// Moves the mean in one lane of a strip towards `x` by `rate`; returns its squared norm.
fn pull(layout: &Layout, strips: &mut [u8], bucket: usize, x: &[f32], rate: f32) -> f32 {
    let bytes = layout.strip_bytes();
    let strip = &mut strips[bucket / STRIP * bytes..][..bytes];
    let mut mean = [0.0f32; 512];
    let mean = &mut mean[..layout.dim];
    layout.get(strip, bucket % STRIP, None, mean);
    mean.iter_mut().zip(x).for_each(|(mean, x)| *mean += (x - *mean) * rate);
    layout.put(strip, bucket % STRIP, mean);
    layout.get(strip, bucket % STRIP, None, mean);
    mean.iter().map(|x| x * x).sum()
}

impl Tail for Buckets {
    fn clone_box(&self) -> Box<dyn Tail> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        self.keys.allocated()
            + self.values.allocated()
            + self.counts.len() * (size_of::<u32>() + 2 * size_of::<f32>())
    }

    fn absorb(&mut self, token: &Evicted<'_>, _: &mut Neighbours<'_>) {
        let (bucket, distance) = self.nearest(token.key);
        let before = self.counts[bucket] as f32;
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        let rate = 1.0 / self.counts[bucket] as f32;
        pull(&layout(Side::Values, self.head_dim), &mut self.values, bucket, token.value, rate);
        self.norms[bucket] =
            pull(&layout(Side::Keys, self.head_dim), &mut self.keys, bucket, token.key, rate);
        // Σ‖k − k̄‖² grows by ‖k − k̄‖²·c/(c + 1) when a cluster of c takes k in.
        let spread = &mut self.spreads[bucket];
        *spread += (distance * before * rate - *spread) * rate;
    }

    fn attend(&self, queries: &[f32], partial: &mut Partial) {
        // Buckets fill from the first.
        if self.counts[0] == 0 {
            return;
        }
        let (level, d, n) = (cpu::level(), self.head_dim, self.counts.len());
        let layout = layout(Side::Values, d);
        let mut weights = self.dots(queries);
        // ln 0 = −∞ takes an empty bucket out.
        let logs: Vec<f32> = self.counts.iter().map(|&count| (count as f32).ln()).collect();
        let rows = queries.len() / d;
        let mut max = vec![0.0; rows];
        let mut sum = vec![0.0; rows];
        for (row, weights) in weights.chunks_exact_mut(n).enumerate() {
            let q = &queries[row * d..][..d];
            let variance = self.share / (2 * d) as f32 * q.iter().map(|q| q * q).sum::<f32>();
            for ((logit, log), spread) in weights.iter_mut().zip(&logs).zip(&self.spreads) {
                *logit += log + variance * spread;
            }
            max[row] = maximum(level, weights);
            sum[row] = exponentials(level, weights, max[row]);
        }
        let mut acc = vec![0.0; rows * layout.dim];
        value_sums(level, &layout, &weights, n, &self.values, &mut acc);
        for (row, acc) in acc.chunks_exact(layout.dim).enumerate() {
            partial.add(row, max[row], sum[row], &acc[..d]);
        }
    }

    fn save(&self, out: &mut Writer) {
        out.words(&self.counts);
        out.floats(&self.norms);
        out.floats(&self.spreads);
        out.blob(&self.keys);
        out.blob(&self.values);
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.counts = from.words(self.counts.len())?.into();
        self.norms = from.floats(self.norms.len())?.into();
        self.spreads = from.floats(self.spreads.len())?.into();
        for strips in [&mut self.keys, &mut self.values] {
            let bytes = from.blob()?;
            if bytes.len() != strips.len() {
                let (n, belong) = (bytes.len(), strips.len());
                return Err(StateError::Corrupt(format!("{n} bytes of buckets where {belong} belong")));
            }
            strips.copy_from_slice(bytes);
        }
        Ok(())
    }
}
