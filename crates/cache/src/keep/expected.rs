use super::{Arrival, Context, Keep, RECENT, SINKS, Step, interval};
use crate::Rotation;
use crate::context::{Buffers, Candidates, EMPTY, GroupQueries};
use crate::method::{Call, Choice, Kind, Method, Parameter};
use crate::shape::turn_back;
use crate::state::{Reader, StateError, Writer};
use sketchkv_kernels::attention::layout::{MAX_DIM, STRIP};
use sketchkv_kernels::attention::{add_scaled, dense_scores, exponentials, maximum};

pub(super) static METHOD: Method = Method {
    name: "expected",
    choice: Choice::Keep,
    summary: "the tokens that queries to come are expected to look at, by the size of their values",
    formula: "μ, Σ = mean and covariance of the queries before rotation; R = mean rotation of the next `horizon` \
              positions; s = softmax_i((Rμ)ᵀk_i/√d + k_iᵀ RΣRᵀ k_i/2d), mean over the group; evict argmin s_i·‖v_i‖",
    state: "4 B a slot; 4·d B a query head, with cov=diag 8·d, with cov=full 4·d + 2·d·(d+1)",
    paper: "Expected Attention, arXiv 2510.00636",
    differs: "The paper takes its statistics from the prompt; here they run on over every query seen, and the tokens \
              kept are chosen anew every `interval` tokens. cov=diag keeps variances alone.",
    parameters: &[
        Parameter {
            name: "horizon",
            kind: Kind::Integer(1, 1 << 20),
            default: "512",
            help: "coming positions over which the rotation is averaged",
        },
        Parameter {
            name: "cov",
            kind: Kind::Word(&["full", "diag", "none"]),
            default: "diag",
            help: "what is kept of the covariance of the queries",
        },
        interval("64"),
        SINKS,
        RECENT,
    ],
};

pub(super) fn build(call: &Call, context: &Context<'_>) -> Box<dyn Keep> {
    let (d, group) = (context.layer().key_dim, context.layer().group());
    let covariance = match call.word("cov") {
        "full" => Covariance::Full,
        "diag" => Covariance::Diagonal,
        _ => Covariance::None,
    };
    Box::new(Expected {
        horizon: call.count("horizon"),
        interval: call.count("interval"),
        covariance,
        head_dim: d,
        scale: context.layer().scale,
        weighs_values: !context.values_weighed,
        rotation: context.layer().rotation.clone(),
        position: 0,
        seen: 0,
        mean: vec![0.0; group * d],
        spread: vec![0.0; group * covariance.entries(d)],
    })
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Covariance {
    Full,
    Diagonal,
    None,
}

impl Covariance {
    fn entries(self, d: usize) -> usize {
        match self {
            Covariance::Full => d * (d + 1) / 2,
            Covariance::Diagonal => d,
            Covariance::None => 0,
        }
    }
}

#[derive(Clone)]
struct Expected {
    horizon: usize,
    interval: usize,
    covariance: Covariance,
    head_dim: usize,
    /// What products of queries and keys are multiplied by: 1/√d in most models.
    scale: f32,
    /// Whether importance counts the norm of the value.
    weighs_values: bool,
    /// How queries and keys were rotated, if they were.
    rotation: Option<Rotation>,
    /// Position of the next token.
    position: usize,
    /// Tokens whose queries are in the statistics.
    seen: u64,
    /// Mean of the queries before rotation, `[query][head_dim]`.
    mean: Vec<f32>,
    /// Sum of the products of deviations from the mean: `[query]` and the rows of the lower triangle, or its diagonal.
    spread: Vec<f32>,
}

/// The mean rotation of some positions: `(c, s)` for each pair, x + iy ↦ (c + is)·(x + iy).
struct MeanRotation {
    turns: [(f32, f32); MAX_DIM / 2],
    pairs: usize,
}

impl MeanRotation {
    /// Of the `horizon` positions from `first` on: the sum of a geometric series.
    fn new(frequencies: &[f32], first: usize, horizon: usize) -> Self {
        let h = horizon as f64;
        let mean = |&frequency: &f32| {
            let frequency = frequency as f64;
            let half = (frequency / 2.0).sin();
            let length = if half.abs() < 1e-12 { 1.0 } else { (h * frequency / 2.0).sin() / (h * half) };
            let (sin, cos) = ((first as f64 + (h - 1.0) / 2.0) * frequency).sin_cos();
            ((length * cos) as f32, (length * sin) as f32)
        };
        let mut turns = [(0.0, 0.0); MAX_DIM / 2];
        turns.iter_mut().zip(frequencies).for_each(|(turn, frequency)| *turn = mean(frequency));
        MeanRotation { turns, pairs: frequencies.len() }
    }

    fn turns(&self) -> &[(f32, f32)] {
        &self.turns[..self.pairs]
    }

    /// Turns rows of equal length, `[head_dim]` of them: a vector where they are one number long.
    fn apply(&self, rows: &mut [f32], length: usize) {
        let (low, rest) = rows.split_at_mut(self.pairs * length);
        let pairs = low.chunks_exact_mut(length).zip(rest.chunks_exact_mut(length));
        for ((x, y), &(c, s)) in pairs.zip(self.turns()) {
            for (x, y) in x.iter_mut().zip(y) {
                (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
            }
        }
    }
}

impl Keep for Expected {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        (self.mean.capacity() + self.spread.capacity()) * size_of::<f32>()
    }

    /// The norm of the value.
    fn words(&self) -> usize {
        1
    }

    fn is_attention(&self) -> bool {
        true
    }

    fn batch(&self) -> usize {
        self.interval
    }

    /// The number of queries, and of each head of the group their mean and spread before rotation.
    fn digest(&self, queries: &GroupQueries<'_>, out: &mut Vec<f32>) {
        let first = out.len();
        out.resize(first + self.mean.len() + self.spread.len(), 0.0);
        let (mean, spread) = out[first..].split_at_mut(self.mean.len());
        let mut query = [0.0; 512];
        let query = &mut query[..self.head_dim];
        let mut statistics = Statistics { covariance: self.covariance, mean, spread };
        for token in 0..queries.tokens() {
            let mut turns = [(0.0, 0.0); 256];
            let turns = &mut turns[..self.frequencies().len()];
            if let Some(rotation) = &self.rotation {
                turns
                    .iter_mut()
                    .zip(rotation.turns(queries.position() + token))
                    .for_each(|(to, turn)| *to = turn);
            }
            for (head, rotated) in queries.token(token).chunks_exact(self.head_dim).enumerate() {
                query.copy_from_slice(rotated);
                turn_back(turns.iter().copied(), query);
                statistics.learn(head, query, (token + 1) as u64);
            }
        }
    }

    fn observe(&mut self, step: &Step<'_>, _: &mut [u32]) {
        let (mean, spread) = step.digest.split_at(self.mean.len());
        let before = self.seen;
        self.seen += step.tokens as u64;
        let (covariance, seen) = (self.covariance, self.seen);
        let mut own = Statistics { covariance, mean: &mut self.mean, spread: &mut self.spread };
        let mut difference = [0.0; 512];
        let difference = &mut difference[..self.head_dim];
        for (head, mean) in mean.chunks_exact(self.head_dim).enumerate() {
            difference.copy_from_slice(mean);
            own.shift(head, difference, step.tokens as f32 / seen as f32, before as f32);
        }
        self.spread.iter_mut().zip(spread).for_each(|(own, spread)| *own += spread);
        self.position = step.position + step.tokens;
    }

    fn arrive(&mut self, token: &Arrival<'_>, state: &mut [u32]) {
        state[0] = super::norm(token.value).to_bits();
    }

    fn weigh(&mut self, candidates: &mut [Candidates<'_>; 2], out: &mut [f32], buffers: &mut Buffers) {
        let n = out.len();
        let mut all_logits = buffers.floats(self.mean.len() / self.head_dim * n);
        self.logits(candidates, &mut all_logits, n, buffers);
        out.fill(0.0);
        let level = candidates[0].level();
        let share = self.head_dim as f32 / self.mean.len() as f32;
        for logits in all_logits.chunks_exact_mut(n) {
            let all = candidates.iter().flat_map(|c| c.positions);
            for (logit, _) in logits.iter_mut().zip(all).filter(|(_, position)| **position == EMPTY) {
                *logit = f32::NEG_INFINITY;
            }
            let max = maximum(level, logits);
            let sum = exponentials(level, logits, max);
            add_scaled(level, out, share / sum, logits);
        }
        buffers.give_floats([all_logits]);
        if self.weighs_values {
            let norms = candidates.iter().flat_map(|c| &*c.state);
            out.iter_mut().zip(norms).for_each(|(out, &norm)| *out *= f32::from_bits(norm));
        }
    }

    fn save(&self, out: &mut Writer) {
        out.u64(self.position as u64);
        out.u64(self.seen);
        out.floats(&self.mean);
        out.floats(&self.spread);
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.position = from.length(u32::MAX as usize)?;
        self.seen = from.u64()?;
        self.mean = from.floats(self.mean.len())?;
        self.spread = from.floats(self.spread.len())?;
        Ok(())
    }
}

/// Running means and spreads of the queries of a group's heads.
struct Statistics<'a> {
    covariance: Covariance,
    /// `[query][head_dim]`
    mean: &'a mut [f32],
    /// As [`Expected::spread`].
    spread: &'a mut [f32],
}

impl Statistics<'_> {
    /// Takes a query in, the `count`-th of its head (Welford 1962); leaves its deviation from the mean before.
    fn learn(&mut self, head: usize, query: &mut [f32], count: u64) {
        self.shift(head, query, 1.0 / count as f32, (count - 1) as f32);
    }

    /// Merges a set of queries of mean `x` that makes up `share` of all with the `before` that were there (Chan, Golub &
    /// LeVeque 1983); leaves the deviation of the means. What the set spreads around its own mean is not added here.
    fn shift(&mut self, head: usize, x: &mut [f32], share: f32, before: f32) {
        let d = x.len();
        let mean = &mut self.mean[head * d..][..d];
        for (mean, x) in mean.iter_mut().zip(&mut *x) {
            *x -= *mean;
            *mean += *x * share;
        }
        // n_a·n_b/(n_a + n_b), which for one query more is 1 − 1/n.
        let weight = before * share;
        let entries = self.covariance.entries(d);
        let spread = &mut self.spread[head * entries..][..entries];
        match self.covariance {
            Covariance::None => {}
            Covariance::Diagonal => {
                spread.iter_mut().zip(x).for_each(|(spread, x)| *spread += weight * *x * *x);
            }
            Covariance::Full => {
                let mut rows = spread;
                for i in 0..d {
                    let (row, below) = rows.split_at_mut(i + 1);
                    let factor = weight * x[i];
                    row.iter_mut().zip(&*x).for_each(|(spread, x)| *spread += factor * x);
                    rows = below;
                }
            }
        }
    }
}

impl Expected {
    fn frequencies(&self) -> &[f32] {
        self.rotation.as_ref().map_or(&[], |rotation| &rotation.inverse_frequencies)
    }

    /// The expected logits of old and new candidates, `[query]` at a distance of `stride`.
    fn logits(
        &self,
        candidates: &[Candidates<'_>; 2],
        logits: &mut [f32],
        stride: usize,
        buffers: &mut Buffers,
    ) {
        let (d, level) = (self.head_dim, candidates[0].level());
        let rotation = MeanRotation::new(self.frequencies(), self.position, self.horizon);
        let mut means = buffers.floats(self.mean.len());
        means.copy_from_slice(&self.mean);
        for mean in means.chunks_exact_mut(d) {
            rotation.apply(mean, 1);
            mean.iter_mut().for_each(|x| *x *= self.scale);
        }
        let heads = means.len() / d;
        let scale = self.scale * self.scale / (2.0 * self.seen.max(1) as f32);
        let numbers = self.form_numbers();
        let mut forms = buffers.floats(heads * numbers);
        for head in 0..heads {
            self.form(head, &rotation, scale, &mut forms[head * numbers..][..numbers]);
        }
        let mut products = buffers.floats(heads * Candidates::TILE);
        let rows = if matches!(self.covariance, Covariance::Full) { d * Candidates::TILE } else { 0 };
        let mut rows = buffers.floats(rows);
        for (candidates, before) in candidates.iter().zip([0, candidates[0].len()]) {
            candidates.for_each_tile(buffers, |first, keys| {
                let width = keys.len() / d;
                dense_scores(level, d, &means, keys, &mut products[..heads * width], width);
                for (head, products) in products.chunks_exact(width).take(heads).enumerate() {
                    let real = width.min(candidates.len() - first);
                    let logits = &mut logits[head * stride + before + first..][..real];
                    logits.copy_from_slice(&products[..real]);
                    let form = match self.covariance {
                        Covariance::None => continue,
                        Covariance::Diagonal => {
                            let (pairs, rest) =
                                forms[head * numbers..][..numbers].split_at(3 * rotation.pairs);
                            Form::Pairs { pairs: pairs.as_chunks().0, rest }
                        }
                        Covariance::Full => {
                            let rows = &mut rows[..d * width];
                            dense_scores(level, d, &forms[head * numbers..][..numbers], keys, rows, width);
                            Form::Matrix { rows }
                        }
                    };
                    form.add(d, keys, logits);
                }
            });
        }
        buffers.give_floats([means, forms, products, rows]);
    }

    /// Numbers that say the quadratic form of a head.
    fn form_numbers(&self) -> usize {
        let d = self.head_dim;
        match self.covariance {
            Covariance::None => 0,
            // Three for every pair of dimensions that turn together, then one for each that does not turn.
            Covariance::Diagonal => d + self.frequencies().len(),
            Covariance::Full => d * d,
        }
    }

    /// `scale` times the covariance of a head, turned.
    fn form(&self, head: usize, rotation: &MeanRotation, scale: f32, out: &mut [f32]) {
        let d = self.head_dim;
        let entries = self.covariance.entries(d);
        let spread = &self.spread[head * entries..][..entries];
        match self.covariance {
            Covariance::None => {}
            Covariance::Diagonal => {
                let pairs = rotation.pairs;
                let (of_pairs, rest) = out.split_at_mut(3 * pairs);
                for (i, (form, &(c, s))) in
                    of_pairs.as_chunks_mut().0.iter_mut().zip(rotation.turns()).enumerate()
                {
                    let (x, y) = (spread[i] * scale, spread[i + pairs] * scale);
                    *form = [x * c * c + y * s * s, 2.0 * c * s * (x - y), x * s * s + y * c * c];
                }
                rest.iter_mut().zip(&spread[2 * pairs..]).for_each(|(form, x)| *form = x * scale);
            }
            Covariance::Full => {
                for i in 0..d {
                    for j in 0..=i {
                        let x = spread[i * (i + 1) / 2 + j] * scale;
                        (out[i * d + j], out[j * d + i]) = (x, x);
                    }
                }
                out.chunks_exact_mut(d).for_each(|row| rotation.apply(row, 1));
                rotation.apply(out, d);
            }
        }
    }
}

/// A quadratic form of some keys.
enum Form<'a> {
    /// For every pair of dimensions that turn together the factors of x², xy and y²; then those of further dimensions.
    Pairs { pairs: &'a [[f32; 3]], rest: &'a [f32] },
    /// The matrix times the keys, `[head_dim][key]`.
    Matrix { rows: &'a [f32] },
}

impl Form<'_> {
    /// Adds the form of each of the keys, `[strip][d][16]`.
    fn add(&self, d: usize, keys: &[f32], out: &mut [f32]) {
        let width = keys.len() / d;
        for (strip, (keys, out)) in keys.chunks_exact(d * STRIP).zip(out.chunks_mut(STRIP)).enumerate() {
            let keys = keys.as_chunks::<STRIP>().0;
            let mut sum = [0.0f32; STRIP];
            match self {
                Form::Pairs { pairs, rest } => {
                    let (low, others) = keys.split_at(pairs.len());
                    let (high, others) = others.split_at(pairs.len());
                    for (&[xx, xy, yy], (x, y)) in pairs.iter().zip(low.iter().zip(high)) {
                        for lane in 0..STRIP {
                            sum[lane] += x[lane] * (xx * x[lane] + xy * y[lane]) + yy * y[lane] * y[lane];
                        }
                    }
                    for (&xx, x) in rest.iter().zip(others) {
                        for lane in 0..STRIP {
                            sum[lane] += xx * x[lane] * x[lane];
                        }
                    }
                }
                Form::Matrix { rows } => {
                    for (x, row) in keys.iter().zip(rows.chunks_exact(width)) {
                        let row = &row[strip * STRIP..][..STRIP];
                        for lane in 0..STRIP {
                            sum[lane] += x[lane] * row[lane];
                        }
                    }
                }
            }
            out.iter_mut().zip(sum).for_each(|(out, sum)| *out += sum);
        }
    }
}
