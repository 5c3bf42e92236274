//! The rules that need no sketch, slow and plain.

use crate::{View, dot, norm, softmax, wide};
use sketchkv_sketch::mix;
use std::collections::HashMap;

/// What a keep does, from its formula.
pub(crate) trait Rule {
    /// `tokens` were attended to with the weights `mass`, mean over the group; the last of them is new.
    fn see(&mut self, _view: &View<'_>, _token: usize, _tokens: &[usize], _mass: &[f64]) {}

    /// `old` tokens had slots when the chunk came that has been attended to, `new` ones are its tokens.
    fn arrive(&mut self, _view: &View<'_>, _old: &[usize], _new: &[usize]) {}

    /// Importance of `tokens`, those of the chunk included, the last of which is `token`.
    fn importance(&mut self, view: &View<'_>, token: usize, tokens: &[usize]) -> Vec<f64>;
}

pub(crate) struct Oldest;

impl Rule for Oldest {
    fn importance(&mut self, _: &View<'_>, _: usize, tokens: &[usize]) -> Vec<f64> {
        tokens.iter().map(|&t| t as f64).collect()
    }
}

pub(crate) struct Hashed {
    pub(crate) seed: u64,
}

impl Rule for Hashed {
    fn importance(&mut self, _: &View<'_>, _: usize, tokens: &[usize]) -> Vec<f64> {
        tokens.iter().map(|&t| (mix(self.seed ^ t as u64) >> 40) as f64).collect()
    }
}

pub(crate) struct HeavyHitters {
    decay: f64,
    score: HashMap<usize, f64>,
}

impl HeavyHitters {
    pub(crate) fn new(decay: f64) -> Self {
        HeavyHitters { decay, score: HashMap::new() }
    }
}

impl Rule for HeavyHitters {
    fn see(&mut self, _: &View<'_>, _: usize, tokens: &[usize], mass: &[f64]) {
        for (&t, mass) in tokens.iter().zip(mass) {
            let score = self.score.entry(t).or_default();
            *score = self.decay * *score + mass;
        }
    }

    fn importance(&mut self, _: &View<'_>, _: usize, tokens: &[usize]) -> Vec<f64> {
        tokens.iter().map(|t| self.score[t]).collect()
    }
}

/// The better half of what stays as the rule has it, the others by its importance times the norm of their projected value.
pub(crate) struct Critical<R> {
    rule: R,
    /// `[d][d]`
    gram: Vec<f64>,
}

impl<R> Critical<R> {
    pub(crate) fn new(rule: R, view: &View<'_>) -> Self {
        let (kv_heads, d) = (view.stream.shape.layers[0].kv_heads, view.d());
        let grams = wide(&crate::common::output_grams(kv_heads, d));
        Critical { rule, gram: grams[view.kv_head * d * d..][..d * d].to_vec() }
    }
}

impl<R: Rule> Rule for Critical<R> {
    fn see(&mut self, view: &View<'_>, token: usize, tokens: &[usize], mass: &[f64]) {
        self.rule.see(view, token, tokens, mass);
    }

    fn importance(&mut self, view: &View<'_>, token: usize, tokens: &[usize]) -> Vec<f64> {
        let mut importance = self.rule.importance(view, token, tokens);
        let free = |&i: &usize| view.terms.is_free(tokens[i], token + 1);
        let mut order: Vec<usize> = (0..tokens.len()).filter(free).collect();
        order.sort_by(|&a, &b| importance[b].total_cmp(&importance[a]).then(b.cmp(&a)));
        let stay = order.len() - view.terms.excess(tokens.len());
        for (rank, i) in order.into_iter().enumerate() {
            if rank < stay / 2 {
                importance[i] = f64::MAX;
                continue;
            }
            let value = wide(view.value(tokens[i]));
            let projected: f64 =
                self.gram.chunks(value.len()).zip(&value).map(|(row, v)| dot(row, &value) * v).sum();
            importance[i] *= projected.sqrt();
        }
        importance
    }
}

#[derive(Default)]
pub(crate) struct Tova {
    mass: Vec<f64>,
}

impl Rule for Tova {
    fn see(&mut self, _: &View<'_>, _: usize, _: &[usize], mass: &[f64]) {
        self.mass = mass.to_vec();
    }

    fn importance(&mut self, _: &View<'_>, _: usize, _: &[usize]) -> Vec<f64> {
        self.mass.clone()
    }
}

/// The greatest weight that any query of another chunk gave.
#[derive(Default)]
pub(crate) struct KvZip {
    score: HashMap<usize, f64>,
}

impl Rule for KvZip {
    fn see(&mut self, view: &View<'_>, token: usize, tokens: &[usize], _: &[f64]) {
        for member in 0..view.group() {
            let weights = view.attention(&wide(view.query(token, member)), tokens);
            for (t, weight) in tokens.iter().zip(weights) {
                self.score.entry(*t).and_modify(|score| *score = score.max(weight));
            }
        }
    }

    fn arrive(&mut self, _: &View<'_>, old: &[usize], new: &[usize]) {
        let mean = old.iter().map(|t| self.score[t]).sum::<f64>() / old.len().max(1) as f64;
        self.score.extend(new.iter().map(|&t| (t, mean)));
    }

    fn importance(&mut self, _: &View<'_>, _: usize, tokens: &[usize]) -> Vec<f64> {
        tokens.iter().map(|t| self.score[t]).collect()
    }
}

pub(crate) struct SnapKv {
    pub(crate) window: usize,
    pub(crate) pool: usize,
}

impl Rule for SnapKv {
    fn importance(&mut self, view: &View<'_>, token: usize, tokens: &[usize]) -> Vec<f64> {
        let mut mean = vec![0.0; tokens.len()];
        let window: Vec<usize> = ((token + 1).saturating_sub(self.window)..=token).collect();
        for &at in &window {
            let seen: Vec<usize> = tokens.iter().copied().filter(|&t| t <= at).collect();
            for member in 0..view.group() {
                let stored = view.query(at, member).iter().map(|&q| half::f16::from_f32(q).to_f64());
                let weights = view.attention(&stored.collect::<Vec<_>>(), &seen);
                for (mean, weight) in mean.iter_mut().zip(weights) {
                    *mean += weight / (window.len() * view.group()) as f64;
                }
            }
        }
        let near = |i: usize| {
            let first = i.saturating_sub(self.pool / 2);
            let near = &mean[first..(i + self.pool.div_ceil(2)).min(mean.len())];
            near.iter().sum::<f64>() / near.len() as f64
        };
        (0..tokens.len()).map(near).collect()
    }
}

pub(crate) struct KeyNorm;

impl Rule for KeyNorm {
    fn importance(&mut self, view: &View<'_>, _: usize, tokens: &[usize]) -> Vec<f64> {
        tokens.iter().map(|&t| -norm(&wide(view.key(t)))).collect()
    }
}

pub(crate) struct KeyDifference;

impl Rule for KeyDifference {
    fn importance(&mut self, view: &View<'_>, token: usize, tokens: &[usize]) -> Vec<f64> {
        let unit = |t: usize| {
            let key = wide(view.key(t));
            let norm = norm(&key);
            key.iter().map(|x| x / norm).collect::<Vec<_>>()
        };
        let mut mean = vec![0.0; view.d()];
        for t in 0..=token {
            mean.iter_mut().zip(unit(t)).for_each(|(m, x)| *m += x / (token + 1) as f64);
        }
        tokens.iter().map(|&t| -dot(&unit(t), &mean) / norm(&mean)).collect()
    }
}

pub(crate) struct Expected {
    pub(crate) cov: &'static str,
    pub(crate) horizon: usize,
    /// Whether the norm of the value counts.
    pub(crate) weighs_values: bool,
}

impl Expected {
    /// The rotation matrix of a position.
    fn rotation(view: &View<'_>, position: usize) -> Vec<Vec<f64>> {
        let d = view.d();
        let mut matrix: Vec<Vec<f64>> =
            (0..d).map(|i| (0..d).map(|j| if i == j { 1.0 } else { 0.0 }).collect()).collect();
        let rotation = view.stream.shape.layers[0].rotation.as_ref();
        let frequencies = rotation.map_or(&[][..], |rotation| &rotation.inverse_frequencies);
        for (i, &frequency) in frequencies.iter().enumerate() {
            let (sin, cos) = (position as f64 * frequency as f64).sin_cos();
            let j = i + frequencies.len();
            (matrix[i][i], matrix[i][j]) = (cos, -sin);
            (matrix[j][i], matrix[j][j]) = (sin, cos);
        }
        matrix
    }
}

fn transposed(a: &[Vec<f64>]) -> Vec<Vec<f64>> {
    (0..a[0].len()).map(|j| a.iter().map(|row| row[j]).collect()).collect()
}

fn apply(a: &[Vec<f64>], x: &[f64]) -> Vec<f64> {
    a.iter().map(|row| dot(row, x)).collect()
}

impl Rule for Expected {
    fn importance(&mut self, view: &View<'_>, token: usize, tokens: &[usize]) -> Vec<f64> {
        let (d, seen) = (view.d(), (token + 1) as f64);
        let mut coming = vec![vec![0.0; d]; d];
        for position in token + 1..=token + self.horizon {
            for (row, other) in coming.iter_mut().zip(Self::rotation(view, position)) {
                row.iter_mut().zip(other).for_each(|(x, y)| *x += y / self.horizon as f64);
            }
        }
        let backwards: Vec<_> = (0..=token).map(|t| transposed(&Self::rotation(view, t))).collect();
        let mut importance = vec![0.0; tokens.len()];
        for member in 0..view.group() {
            let queries: Vec<Vec<f64>> =
                (0..=token).map(|t| apply(&backwards[t], &wide(view.query(t, member)))).collect();
            let mut mean = vec![0.0; d];
            for query in &queries {
                mean.iter_mut().zip(query).for_each(|(m, x)| *m += x / seen);
            }
            let mut covariance = vec![vec![0.0; d]; d];
            for query in &queries {
                let off: Vec<f64> = query.iter().zip(&mean).map(|(x, m)| x - m).collect();
                for i in 0..d {
                    match self.cov {
                        "full" => (0..d).for_each(|j| covariance[i][j] += off[i] * off[j] / seen),
                        "diag" => covariance[i][i] += off[i] * off[i] / seen,
                        _ => {}
                    }
                }
            }
            let mean = apply(&coming, &mean);
            let back = transposed(&coming);
            let logit = |&t: &usize| {
                let key = wide(view.key(t));
                let turned = apply(&back, &key);
                dot(&mean, &key) / (d as f64).sqrt()
                    + dot(&turned, &apply(&covariance, &turned)) / (2 * d) as f64
            };
            let weights = softmax(&tokens.iter().map(logit).collect::<Vec<_>>());
            for (importance, weight) in importance.iter_mut().zip(weights) {
                *importance += weight / view.group() as f64;
            }
        }
        if self.weighs_values {
            importance.iter_mut().zip(tokens).for_each(|(s, &t)| *s *= norm(&wide(view.value(t))));
        }
        importance
    }
}
