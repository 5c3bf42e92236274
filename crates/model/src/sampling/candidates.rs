use super::{Mask, Sampling};
use sketchkv_sketch::SplitMix64;

/// Logits that are looked at together: most chunks have none that is good enough.
const CHUNK: usize = 32;

/// A token with its logit, then with its unnormalised probability.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: u32,
    weight: f32,
}

/// The tokens that are drawn from, best first.
#[derive(Debug, Clone, Default)]
pub(super) struct Candidates(Vec<Candidate>);

impl Candidates {
    /// Draws a token from `logits` as `sampling` says; of `mask`, if there is one, at least one must be allowed.
    pub(super) fn choose(
        &mut self,
        sampling: &Sampling,
        logits: &[f32],
        mask: Option<Mask>,
        random: &mut SplitMix64,
    ) -> u32 {
        let top_k = if sampling.top_k == 0 { usize::MAX } else { sampling.top_k };
        match mask {
            None => self.keep_top_k(logits, top_k),
            Some(mask) => self.keep_top_k_among(logits, mask, top_k),
        }
        self.exponentiate(sampling.temperature);
        self.keep_top_p(sampling.top_p);
        self.keep_min_p(sampling.min_p);
        self.draw(random)
    }

    /// Takes the k best as candidates, best first.
    fn keep_top_k(&mut self, logits: &[f32], k: usize) {
        let Candidates(candidates) = self;
        candidates.clear();
        // The k-th best so far: of equal ones the first wins, so that only a better one can still be among the k.
        let mut least = None;
        for (chunk, logits) in logits.chunks(CHUNK).enumerate() {
            if least.is_some_and(|least| !logits.iter().fold(false, |any, &logit| any | (logit > least))) {
                continue;
            }
            let first = chunk * CHUNK;
            let better = |&(_, &logit): &(usize, &f32)| least.is_none_or(|least| logit > least);
            let of = |(i, &weight): (usize, &f32)| Candidate { token: (first + i) as u32, weight };
            candidates.extend(logits.iter().enumerate().filter(better).map(of));
            if candidates.len() / 4 >= k {
                least = keep_best(candidates, k);
            }
        }
        candidates.sort_unstable_by(|a, b| by_weight(b, a));
        candidates.truncate(k);
    }

    /// As [`Candidates::keep_top_k`], of those that `mask` allows.
    fn keep_top_k_among(&mut self, logits: &[f32], mask: Mask, k: usize) {
        let Candidates(candidates) = self;
        candidates.clear();
        let mut least = None;
        for token in mask.tokens(logits.len()) {
            let weight = logits[token as usize];
            if least.is_some_and(|least| weight <= least) {
                continue;
            }
            candidates.push(Candidate { token, weight });
            if candidates.len() / 4 >= k.max(CHUNK) {
                least = keep_best(candidates, k);
            }
        }
        candidates.sort_unstable_by(|a, b| by_weight(b, a));
        candidates.truncate(k);
    }

    /// Logits to e^((logit - best) / temperature).
    fn exponentiate(&mut self, temperature: f32) {
        let best = self.0.first().map_or(0.0, |c| c.weight);
        let inverse = 1.0 / temperature;
        for candidate in &mut self.0 {
            // With a tiny temperature 0 · ∞ must not become a NaN: the best keeps weight 1.
            let below = candidate.weight - best;
            candidate.weight = if below == 0.0 { 1.0 } else { (below * inverse).exp() };
        }
    }

    fn keep_top_p(&mut self, top_p: f32) {
        if top_p >= 1.0 {
            return;
        }
        let target = top_p * self.0.iter().map(|c| c.weight).sum::<f32>();
        let mut reached = 0.0;
        let enough = self.0.iter().position(|c| {
            reached += c.weight;
            reached >= target
        });
        self.0.truncate(enough.map_or(usize::MAX, |last| last + 1));
    }

    fn keep_min_p(&mut self, least: f32) {
        // The best has weight 1, so the share is the weight.
        let kept = self.0.partition_point(|c| c.weight >= least).max(1);
        self.0.truncate(kept);
    }

    fn draw(&mut self, random: &mut SplitMix64) -> u32 {
        let total: f64 = self.0.iter().map(|c| f64::from(c.weight)).sum();
        let mut left = random.unit() * total;
        for candidate in &self.0 {
            left -= f64::from(candidate.weight);
            if left < 0.0 {
                return candidate.token;
            }
        }
        self.0.first().map_or(0, |c| c.token)
    }
}

/// Keeps the k best; gives the logit of the last of them.
fn keep_best(candidates: &mut Vec<Candidate>, k: usize) -> Option<f32> {
    if k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, |a, b| by_weight(b, a));
        candidates.truncate(k);
    }
    candidates.last().map(|c| c.weight)
}

/// By weight, and among equals the smaller token first, so that the order is total.
fn by_weight(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    a.weight.total_cmp(&b.weight).then(b.token.cmp(&a.token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_best_are_those_of_a_sort(
            logits in prop::collection::vec((-40i32..40).prop_map(|x| x as f32 / 4.0), 1..700),
            mask in prop::collection::vec(any::<u32>(), 0..23),
            top_k in 1usize..60,
        ) {
            let mut sorted: Vec<usize> = (0..logits.len()).collect();
            sorted.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            let kept = |candidates: &Candidates| -> Vec<usize> {
                candidates.0.iter().map(|c| c.token as usize).collect()
            };
            let mut candidates = Candidates::default();
            candidates.keep_top_k(&logits, top_k);
            prop_assert_eq!(kept(&candidates), &sorted[..top_k.min(sorted.len())]);
            candidates.keep_top_k_among(&logits, Mask(&mask), top_k);
            sorted.retain(|&token| mask.get(token / 32).is_some_and(|word| word >> (token % 32) & 1 == 1));
            sorted.truncate(top_k);
            prop_assert_eq!(kept(&candidates), sorted);
        }
    }
}
