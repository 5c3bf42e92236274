use super::{Evicted, Tail};
use crate::context::{Buffers, Context, Neighbours, Partial, Sample, Softcap, dot};
use crate::method::{Call, Choice, Kind, Method, Parameter};
use crate::state::{Reader, StateError, Writer};
use sketchkv_kernels::attention::add_scaled;
use sketchkv_kernels::cpu;
use sketchkv_kernels::half::{f16, f16_to_f32, f32_to_f16};
use sketchkv_kernels::least_squares::{accumulate, damp, solve};
use std::mem::size_of;

pub(super) static METHOD: Method = Method {
    name: "fitted",
    choice: Choice::Tail,
    summary: "a few tokens whose weights and values are fitted to the attention that was evicted",
    formula: "of the n tokens and those evicted, (w, k, v)_c, the n of largest Σ_r a_rc² stay, where x_rc = e^(q_r·k_c/√d)/Z_r, \
              a_rc = w_c·x_rc, and q_r are queries of the pass with sums Z_r; w ≥ 0 minimises Σ_r (Σ_j x_rj·w_j − Σ_c a_rc)² \
              + ρ‖w − w_c‖², then v Σ_r ‖Σ_j a_rj·v_j − Σ_c a_rc·v_c‖² + ρ‖v − v_c‖²",
    state: "n·(4d + 4) B a head",
    paper: "Attention Matching, arXiv 2602.16284",
    differs: "The paper fits a whole cache at once to queries that it makes up; here what a pass evicts is fitted to what the \
              pass asked, and what was fitted before takes part as tokens of their weight. ρ, a share of the mean of the \
              diagonal, keeps to the weights and values before, the more the fewer queries there are.",
    parameters: &[
        Parameter { name: "n", kind: Kind::Integer(1, 256), default: "8", help: "tokens a head" },
        Parameter {
            name: "ridge",
            kind: Kind::Real(0.0, 1000.0),
            default: "0.1",
            help: "ρ over the mean of the diagonal, where 64 queries are fitted to",
        },
    ],
};

/// Queries of a pass that are fitted to.
const QUERIES: usize = 64;
/// Rounds of coordinate descent; each halves what is left, or more.
const ROUNDS: usize = 24;

pub(super) fn build(call: &Call, context: &Context<'_>) -> Option<Box<dyn Tail>> {
    let (n, ridge) = (call.count("n"), call.real("ridge"));
    let (key_dim, value_dim) = (context.layer().key_dim, context.layer().value_dim);
    Some(Box::new(Fitted {
        key_dim,
        value_dim,
        ridge,
        softcap: context.softcap(),
        keys: vec![f16::ZERO; n * key_dim].into(),
        values: vec![f16::ZERO; n * value_dim].into(),
        weights: vec![0.0; n].into(),
        evicted: 0,
        leaving: Vec::new(),
    }))
}

#[derive(Clone)]
struct Fitted {
    key_dim: usize,
    value_dim: usize,
    /// ρ over the mean of the diagonal, where there are [`QUERIES`] queries.
    ridge: f32,
    softcap: Softcap,
    /// `[token][key_dim]`
    keys: Box<[f16]>,
    /// `[token][value_dim]`
    values: Box<[f16]>,
    /// w of each token; 0 where there is none.
    weights: Box<[f32]>,
    /// Tokens evicted so far: no weight is more.
    evicted: u32,
    /// Keys and values of what this pass has evicted until now, `[token][key_dim + value_dim]`; a buffer that is given back.
    leaving: Vec<f32>,
}

/// What a fit works on: candidates are the tokens, then those evicted.
struct Candidates<'a> {
    /// `[candidate][key_dim + value_dim]`
    vectors: &'a [f32],
    /// w, `[candidate]`.
    weights: &'a [f32],
    /// x, `[query][candidate]`.
    shares: &'a [f32],
}

impl Candidates<'_> {
    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.shares.chunks_exact(self.weights.len())
    }
}

impl Tail for Fitted {
    fn clone_box(&self) -> Box<dyn Tail> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        (self.keys.len() + self.values.len()) * size_of::<f16>() + self.weights.len() * size_of::<f32>()
    }

    fn samples(&self) -> usize {
        QUERIES
    }

    fn absorb(&mut self, token: &Evicted<'_>, _: &mut dyn Neighbours, buffers: &mut Buffers) {
        if self.leaving.is_empty() {
            self.leaving = buffers.floats(0);
        }
        self.leaving.extend_from_slice(token.key);
        self.leaving.extend_from_slice(token.value);
        self.evicted = self.evicted.saturating_add(1);
    }

    fn settle(&mut self, sample: &Sample<'_>, buffers: &mut Buffers) {
        let (n, width) = (self.weights.len(), self.key_dim + self.value_dim);
        let leaving = std::mem::take(&mut self.leaving);
        let count = n + leaving.len() / width;
        let mut vectors = buffers.floats(n * width);
        self.decode(&mut vectors);
        vectors.extend_from_slice(&leaving);
        let mut weights = buffers.floats(count);
        weights[..n].copy_from_slice(&self.weights);
        weights[n..].fill(1.0);
        let mut shares = buffers.floats(sample.count() * count);
        for ((query, lse), shares) in sample.queries().zip(shares.chunks_exact_mut(count)) {
            for (vector, share) in vectors.chunks_exact(width).zip(shares) {
                let logit = self.softcap.of(dot(query, &vector[..self.key_dim]));
                // No token has more than all have together, but for rounding; what is no number says nothing.
                let log = logit - lse;
                *share = if log.is_nan() { 0.0 } else { log.min(0.0).exp() };
            }
        }
        let candidates = Candidates { vectors: &vectors, weights: &weights, shares: &shares };
        self.fit(&candidates, buffers);
        buffers.give_floats([leaving, vectors, weights, shares]);
    }

    fn attend(&self, queries: &[f32], partial: &mut Partial, buffers: &mut Buffers) {
        if self.evicted == 0 {
            return;
        }
        let width = self.key_dim + self.value_dim;
        let mut vectors = buffers.floats(self.weights.len() * width);
        self.decode(&mut vectors);
        for (row, query) in queries.chunks_exact(self.key_dim).enumerate() {
            for (vector, &weight) in vectors.chunks_exact(width).zip(&self.weights) {
                if weight > 0.0 {
                    let (key, value) = vector.split_at(self.key_dim);
                    partial.add(row, self.softcap.of(dot(query, key)) + weight.ln(), 1.0, value);
                }
            }
        }
        buffers.give_floats([vectors]);
    }

    fn save(&self, out: &mut Writer) {
        out.u64(self.evicted.into());
        out.floats(&self.weights);
        for halves in [&self.keys, &self.values] {
            let mut floats = vec![0.0; halves.len()];
            f16_to_f32(halves, &mut floats);
            out.floats(&floats);
        }
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.evicted = from.length(u32::MAX as usize)? as u32;
        self.weights = from.floats(self.weights.len())?.into();
        for halves in [&mut self.keys, &mut self.values] {
            f32_to_f16(&from.floats(halves.len())?, halves);
        }
        Ok(())
    }
}

impl Fitted {
    /// The tokens, `[token][key_dim + value_dim]`.
    fn decode(&self, vectors: &mut [f32]) {
        let width = self.key_dim + self.value_dim;
        let halves = self.keys.chunks_exact(self.key_dim).zip(self.values.chunks_exact(self.value_dim));
        for ((key, value), vector) in halves.zip(vectors.chunks_exact_mut(width)) {
            let (key_out, value_out) = vector.split_at_mut(self.key_dim);
            f16_to_f32(key, key_out);
            f16_to_f32(value, value_out);
        }
    }

    /// Chooses the tokens among the candidates, and fits their weights and values.
    fn fit(&mut self, candidates: &Candidates<'_>, buffers: &mut Buffers) {
        let (n, width) = (self.weights.len(), self.key_dim + self.value_dim);
        let mut chosen = buffers.words();
        choose(candidates, n, &mut chosen, buffers);
        let (rows, level) = (candidates.rows().count(), cpu::level());
        let ridge = self.ridge * QUERIES as f32 / rows.max(1) as f32;
        // Shares of the chosen, `[query][token]`, and what all candidates draw, `[query]`.
        let (mut shares, mut mass) = (buffers.floats(rows * n), buffers.floats(rows));
        let of_rows = candidates.rows().zip(shares.chunks_exact_mut(n)).zip(&mut mass);
        for ((all, shares), mass) in of_rows {
            shares.iter_mut().zip(&chosen).for_each(|(share, &c)| *share = all[c as usize]);
            *mass = dot(all, candidates.weights);
        }
        self.weights.iter_mut().zip(&chosen).for_each(|(w, &c)| *w = candidates.weights[c as usize]);
        let (mut normal, mut left) = (buffers.doubles(n * n), buffers.doubles(n));
        normal_equations(&shares, ridge, &mut normal);
        for (shares, mass) in shares.chunks_exact(n).zip(&mass) {
            accumulate(&mut left, f64::from(mass - dot(shares, &self.weights)), shares);
        }
        descend(&normal, &mut left, f64::from(self.evicted), &mut self.weights);
        // From here on the shares are those with their weights.
        for shares in shares.chunks_exact_mut(n) {
            shares.iter_mut().zip(&self.weights).for_each(|(share, w)| *share *= w);
        }
        // What is missing of the outputs, `[query][value_dim]`.
        let mut missing = buffers.floats(rows * self.value_dim);
        let of_rows =
            candidates.rows().zip(shares.chunks_exact(n)).zip(missing.chunks_exact_mut(self.value_dim));
        for ((all, shares), missing) in of_rows {
            let values = candidates.vectors.chunks_exact(width).map(|vector| &vector[self.key_dim..]);
            for ((value, x), w) in values.zip(all).zip(candidates.weights) {
                add_scaled(level, missing, x * w, value);
            }
            for (share, &c) in shares.iter().zip(&chosen) {
                let vector = &candidates.vectors[c as usize * width..][..width];
                add_scaled(level, missing, -share, &vector[self.key_dim..]);
            }
        }
        normal_equations(&shares, ridge, &mut normal);
        let mut change = buffers.doubles(n * self.value_dim);
        for (shares, missing) in shares.chunks_exact(n).zip(missing.chunks_exact(self.value_dim)) {
            for (share, change) in shares.iter().zip(change.chunks_exact_mut(self.value_dim)) {
                accumulate(change, f64::from(*share), missing);
            }
        }
        if !solve(&mut normal, &mut change) {
            change.fill(0.0);
        }
        let mut value = buffers.floats(self.value_dim);
        for (token, (&c, change)) in chosen.iter().zip(change.chunks_exact(self.value_dim)).enumerate() {
            let (key, before) = candidates.vectors[c as usize * width..][..width].split_at(self.key_dim);
            f32_to_f16(key, &mut self.keys[token * self.key_dim..][..self.key_dim]);
            let changed = before.iter().zip(change).map(|(x, change)| x + *change as f32);
            value.iter_mut().zip(changed).for_each(|(value, x)| *value = x);
            f32_to_f16(&value, &mut self.values[token * self.value_dim..][..self.value_dim]);
        }
        buffers.give_words(chosen);
        buffers.give_floats([shares, mass, missing, value]);
        buffers.give_doubles([normal, left, change]);
    }
}

/// The `n` candidates of largest Σ a², those of equal sum by number; in the order of numbers.
fn choose(candidates: &Candidates<'_>, n: usize, chosen: &mut Vec<u64>, buffers: &mut Buffers) {
    let mut squares = buffers.floats(candidates.weights.len());
    for shares in candidates.rows() {
        let drawn = shares.iter().zip(candidates.weights).map(|(x, w)| x * w);
        squares.iter_mut().zip(drawn).for_each(|(square, a)| *square += a * a);
    }
    chosen.extend(0..candidates.weights.len() as u64);
    chosen.sort_unstable_by(|&a, &b| squares[b as usize].total_cmp(&squares[a as usize]).then(a.cmp(&b)));
    chosen.truncate(n);
    chosen.sort_unstable();
    buffers.give_floats([squares]);
}

/// xᵀx + ρ·1 into `normal`, `[token][token]`; `shares` is x, `[row][token]`, and ρ `ridge` times the mean of the diagonal.
fn normal_equations(shares: &[f32], ridge: f32, normal: &mut [f64]) {
    let n = normal.len().isqrt();
    normal.fill(0.0);
    for shares in shares.chunks_exact(n) {
        for (share, row) in shares.iter().zip(normal.chunks_exact_mut(n)) {
            accumulate(row, f64::from(*share), shares);
        }
    }
    damp(normal, f64::from(ridge));
}

/// Moves `weights`, between 0 and `most`, to where the sum of squares is least, by coordinate descent; `left` is what the normal
/// equations lack with the weights as they are: the ridge is around them.
fn descend(normal: &[f64], left: &mut [f64], most: f64, weights: &mut [f32]) {
    for _ in 0..ROUNDS {
        for (j, row) in normal.chunks_exact(weights.len()).enumerate() {
            if row[j] > 0.0 {
                let before = weights[j];
                weights[j] = (f64::from(before) + left[j] / row[j]).clamp(0.0, most) as f32;
                let step = f64::from(weights[j]) - f64::from(before);
                left.iter_mut().zip(row).for_each(|(left, x)| *left -= step * x);
            }
        }
    }
}
