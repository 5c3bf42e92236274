use serde::{Deserialize, Serialize};

/// Weights below this count as this inside a logarithm: what an evicted position is taken to have.
///
/// KL against a cache that gives a position nothing at all is infinite; with this floor it is about 23 nats times
/// the attention mass lost.
const FLOOR: f64 = 1e-10;

/// How close the attention of one query under a cache is to the exact attention.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AttentionFidelity {
    /// KL(exact ‖ cache) in nats, weights floored at 1e-10.
    pub kl: f64,
    /// Cosine of the two weight vectors; 0 when the cache's is all zero.
    pub cosine: f64,
    /// Sum of the absolute differences: twice the total variation.
    pub l1: f64,
    /// Euclidean norm of the difference.
    pub l2: f64,
    /// Share of the k positions of most exact weight that are among the cache's k.
    pub topk_recall: f64,
    /// Distance in tokens between the two positions of most weight.
    pub peak_shift: f64,
    /// Share of the exact weight that lies on positions to which the cache gives none: evicted or not read.
    pub lost_mass: f64,
}

/// Compares `exact` and `cached`, attention weights `[position]` of one query head over the same positions.
///
/// `exact` sums to 1. `cached` holds 0 where a position was evicted or not read; it may sum to less than 1 when a
/// tail holds the rest. `k` is the number of top positions compared.
///
/// ```
/// use sketchkv_eval::metrics::attention_fidelity;
/// let same = attention_fidelity(&[0.7, 0.2, 0.1], &[0.7, 0.2, 0.1], 1).unwrap();
/// assert_eq!((same.kl, same.cosine, same.topk_recall, same.peak_shift), (0.0, 1.0, 1.0, 0.0));
/// let wrong = attention_fidelity(&[0.7, 0.2, 0.1], &[0.0, 0.0, 1.0], 1).unwrap();
/// assert!(wrong.kl > 10.0 && wrong.topk_recall == 0.0 && wrong.peak_shift == 2.0);
/// ```
///
/// Returns `None` when the slices are empty or differ in length.
pub fn attention_fidelity(exact: &[f32], cached: &[f32], k: usize) -> Option<AttentionFidelity> {
    if exact.is_empty() || exact.len() != cached.len() {
        return None;
    }
    let (mut kl, mut dot, mut exact_square, mut cached_square) = (0.0, 0.0, 0.0, 0.0);
    let (mut l1, mut l2, mut lost_mass) = (0.0, 0.0, 0.0);
    for (&p, &q) in exact.iter().zip(cached) {
        let (p, q) = (f64::from(p), f64::from(q));
        if p > 0.0 {
            kl += p * (p.max(FLOOR).ln() - q.max(FLOOR).ln());
        }
        if q == 0.0 {
            lost_mass += p;
        }
        dot += p * q;
        exact_square += p * p;
        cached_square += q * q;
        l1 += (p - q).abs();
        l2 += (p - q) * (p - q);
    }
    let norms = (exact_square * cached_square).sqrt();
    let (top_exact, top_cached) = (top(exact, k), top(cached, k));
    let common = top_exact.iter().filter(|position| top_cached.contains(position)).count();
    Some(AttentionFidelity {
        kl: kl.max(0.0),
        cosine: if norms > 0.0 { (dot / norms).min(1.0) } else { 0.0 },
        l1,
        l2: l2.sqrt(),
        topk_recall: common as f64 / top_exact.len().max(1) as f64,
        peak_shift: top(exact, 1)[0].abs_diff(top(cached, 1).first().copied().unwrap_or(0)) as f64,
        lost_mass,
    })
}

/// The positions of the `k` largest weights, zero weights never; of equals the earlier.
fn top(weights: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0.0).collect();
    let by_weight = |&a: &usize, &b: &usize| weights[b].total_cmp(&weights[a]).then(a.cmp(&b));
    if k < order.len() {
        order.select_nth_unstable_by(k, by_weight);
        order.truncate(k);
    }
    order.sort_unstable_by(by_weight);
    order
}

/// The running mean of [`AttentionFidelity`] over queries: of one layer and head, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct FidelityMean {
    sums: [f64; 7],
    count: usize,
}

impl FidelityMean {
    /// Takes one query in.
    pub fn add(&mut self, one: &AttentionFidelity) {
        let AttentionFidelity { kl, cosine, l1, l2, topk_recall, peak_shift, lost_mass } = *one;
        let values = [kl, cosine, l1, l2, topk_recall, peak_shift, lost_mass];
        self.sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        self.count += 1;
    }

    /// Takes all queries of another mean in.
    pub fn merge(&mut self, other: &FidelityMean) {
        self.sums.iter_mut().zip(other.sums).for_each(|(sum, value)| *sum += value);
        self.count += other.count;
    }

    /// Queries taken in.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The mean, or `None` before the first query.
    pub fn mean(&self) -> Option<AttentionFidelity> {
        let [kl, cosine, l1, l2, topk_recall, peak_shift, lost_mass] =
            self.sums.map(|sum| sum / self.count as f64);
        (self.count > 0).then_some(AttentionFidelity {
            kl,
            cosine,
            l1,
            l2,
            topk_recall,
            peak_shift,
            lost_mass,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn softmax(logits: &[f32]) -> Vec<f32> {
        let sum: f32 = logits.iter().map(|l| l.exp()).sum();
        logits.iter().map(|l| l.exp() / sum).collect()
    }

    /// Attention over the `kept` positions only.
    fn kept(exact: &[f32], keep: impl Fn(usize) -> bool) -> Vec<f32> {
        let mass: f32 = exact.iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, p)| p).sum();
        exact.iter().enumerate().map(|(i, p)| if keep(i) { p / mass } else { 0.0 }).collect()
    }

    #[test]
    fn keeping_the_wrong_tokens_is_caught_by_every_measure() {
        let logits: Vec<f32> = (0..64).map(|i| if i % 8 == 3 { 4.0 } else { (i % 5) as f32 * 0.1 }).collect();
        let exact = softmax(&logits);
        let right = attention_fidelity(&exact, &kept(&exact, |i| i % 8 == 3 || i % 8 == 4), 8).unwrap();
        let wrong = attention_fidelity(&exact, &kept(&exact, |i| i % 8 == 5 || i % 8 == 6), 8).unwrap();
        assert!(wrong.kl > 2.0 * right.kl, "{wrong:?} {right:?}");
        assert!(wrong.cosine < 0.1 && right.cosine > 0.99);
        assert!(wrong.l1 > 1.5 && wrong.l1 > 2.0 * right.l1 && wrong.l2 > 5.0 * right.l2);
        assert!(wrong.topk_recall == 0.0 && right.topk_recall == 1.0);
        assert!(wrong.peak_shift > 0.0 && right.peak_shift == 0.0);
        assert!(wrong.lost_mass > 0.9 && right.lost_mass < 0.2);
    }

    #[test]
    fn nothing_kept_is_still_a_number() {
        let all = attention_fidelity(&[0.5, 0.5], &[0.0, 0.0], 1).unwrap();
        assert_eq!((all.cosine, all.topk_recall, all.lost_mass), (0.0, 0.0, 1.0));
        assert!(all.kl.is_finite());
        assert_eq!(attention_fidelity(&[], &[], 1), None);
    }

    #[test]
    fn the_mean_is_the_mean() {
        let mut mean = FidelityMean::default();
        assert_eq!(mean.mean(), None);
        mean.add(&attention_fidelity(&[0.5, 0.5], &[0.5, 0.5], 1).unwrap());
        mean.add(&attention_fidelity(&[0.5, 0.5], &[1.0, 0.0], 1).unwrap());
        let mean = mean.mean().unwrap();
        assert!((mean.l1 - 0.5).abs() < 1e-12 && (mean.lost_mass - 0.25).abs() < 1e-12);
    }
}
