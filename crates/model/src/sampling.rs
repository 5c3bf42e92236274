//! Choosing the next token.

use crate::ModelError;
use serde::{Deserialize, Serialize};
use sketchkv_sketch::SplitMix64;
use std::collections::VecDeque;

/// Tokens that a sampler remembers at least, so that a text can go on under a wider window, or a penalty, than it was
/// begun with.
const REMEMBERED: usize = 1024;

/// How the next token is chosen.
///
/// The order is fixed: repetition penalty, temperature, top-k, top-p, min-p, draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keeps the k most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most probable tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Drops tokens less probable than this share of the most probable; 0 drops none.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens among the last `repetition_window`; 1 is off.
    /// (CTRL, arXiv 1909.05858)
    pub repetition_penalty: f32,
    /// How many of the last tokens the penalty looks at.
    pub repetition_window: usize,
    /// Reproduces a run.
    pub seed: u64,
}

impl Sampling {
    /// Always the most probable token.
    pub fn greedy() -> Self {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repetition_window: 64,
            seed: 0,
        }
    }

    fn check(&self) -> Result<(), ModelError> {
        let refuse = |what: &str, value: f32, range: &str| {
            Err(ModelError::Argument(format!("{what} must be {range}, not {value}")))
        };
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return refuse("temperature", self.temperature, "0 (greedy) or above");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top-p", self.top_p, "above 0 and at most 1 (off)");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return refuse("min-p", self.min_p, "from 0 (off) to 1");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return refuse("repetition penalty", self.repetition_penalty, "above 0; 1 is off");
        }
        Ok(())
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, ..Sampling::greedy() }
    }
}

/// What a [`Sampler`] knows of its text: with it another one goes on as if it were the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplerState {
    /// The state of the random numbers.
    pub random: u64,
    /// The newest tokens of the text, oldest first.
    pub recent: Vec<u32>,
}

/// Logits that no token can be chosen from.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// NaN or an infinity among them.
    #[error(
        "no token can be chosen: the logit of token {token} is {logit}; try another cache, or weights in f32"
    )]
    NotFinite {
        /// The first token that has one.
        token: usize,
        /// What it has.
        logit: f32,
    },
    /// None at all.
    #[error("no token can be chosen: there are no logits")]
    Empty,
}

/// Chooses tokens; remembers what the repetition penalty needs of the text.
///
/// ```
/// use sketchkv_model::{Sampler, Sampling};
/// let mut sampler = Sampler::new(Sampling { repetition_penalty: 8.0, ..Sampling::greedy() })?;
/// let token = sampler.sample(&[1.0, 2.0, -1.0]).unwrap();
/// assert_eq!(token, 1);
/// sampler.observe(token);
/// assert_eq!(sampler.sample(&[1.0, 2.0, -1.0]), Ok(0));
/// # Ok::<(), sketchkv_model::ModelError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    random: SplitMix64,
    recent: VecDeque<u32>,
    /// Room for the penalised logits, and for the tokens they are those of.
    penalised: Vec<f32>,
    seen: Vec<u32>,
    candidates: Vec<Candidate>,
}

/// Logits that are looked at together: most chunks have none that is good enough.
const CHUNK: usize = 32;

/// A token with its logit, then with its unnormalised probability.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: u32,
    weight: f32,
}

impl Sampler {
    /// A sampler.
    ///
    /// # Errors
    /// When a parameter is out of range; the message names it.
    pub fn new(sampling: Sampling) -> Result<Self, ModelError> {
        let random = sampling.seed;
        Sampler::resume(sampling, SamplerState { random, recent: Vec::new() })
    }

    /// A sampler that goes on where another one left off; the seed of `sampling` plays no part.
    ///
    /// # Errors
    /// As [`Sampler::new`].
    pub fn resume(sampling: Sampling, state: SamplerState) -> Result<Self, ModelError> {
        sampling.check()?;
        Ok(Sampler {
            sampling,
            random: SplitMix64::new(state.random),
            recent: state.recent.into(),
            penalised: Vec::new(),
            seen: Vec::new(),
            candidates: Vec::new(),
        })
    }

    /// Begins the random numbers anew.
    pub fn reseed(&mut self, seed: u64) {
        self.sampling.seed = seed;
        self.random = SplitMix64::new(seed);
    }

    /// What [`Sampler::resume`] needs.
    pub fn state(&self) -> SamplerState {
        SamplerState { random: self.random.state(), recent: self.recent.iter().copied().collect() }
    }

    /// What it was made from.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Tells the sampler of the next token of the text: of the prompt, or one that it chose itself.
    pub fn observe(&mut self, token: u32) {
        if self.recent.len() >= self.sampling.repetition_window.max(REMEMBERED) {
            self.recent.pop_front();
        }
        self.recent.push_back(token);
    }

    /// Takes `tokens`, oldest first, for the end of the text, in place of those observed.
    pub fn recall(&mut self, tokens: impl IntoIterator<Item = u32>) {
        self.recent.clear();
        tokens.into_iter().for_each(|token| self.observe(token));
    }

    /// The newest tokens of the text, oldest first.
    pub fn recent(&self) -> impl Iterator<Item = u32> + '_ {
        self.recent.iter().copied()
    }

    /// Chooses the next token from `logits` `[vocabulary]`. It is not part of the text until it is observed.
    ///
    /// # Errors
    /// When a logit is NaN or infinite, or there is none.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, SampleError> {
        check_logits(logits)?;
        if self.sampling.repetition_penalty == 1.0 || self.recent.is_empty() {
            return Ok(self.choose(logits));
        }
        let mut penalised = std::mem::take(&mut self.penalised);
        penalised.clear();
        penalised.extend_from_slice(logits);
        self.penalise(&mut penalised);
        let token = self.choose(&penalised);
        self.penalised = penalised;
        Ok(token)
    }

    fn choose(&mut self, logits: &[f32]) -> u32 {
        if self.sampling.temperature == 0.0 {
            return argmax(logits);
        }
        self.keep_top_k(logits);
        self.exponentiate();
        self.keep_top_p();
        self.keep_min_p();
        self.draw()
    }

    fn penalise(&mut self, logits: &mut [f32]) {
        let penalty = self.sampling.repetition_penalty;
        self.seen.clear();
        self.seen.extend(self.recent.iter().rev().take(self.sampling.repetition_window));
        // However often a token came, it is penalised once.
        self.seen.sort_unstable();
        self.seen.dedup();
        for &token in &self.seen {
            if let Some(logit) = logits.get_mut(token as usize) {
                let penalised = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
                *logit = penalised.clamp(f32::MIN, f32::MAX);
            }
        }
    }

    /// Takes the k best as candidates, best first.
    fn keep_top_k(&mut self, logits: &[f32]) {
        let k = if self.sampling.top_k == 0 { usize::MAX } else { self.sampling.top_k };
        let candidates = &mut self.candidates;
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
                candidates.select_nth_unstable_by(k - 1, |a, b| by_weight(b, a));
                candidates.truncate(k);
                least = candidates.last().map(|c| c.weight);
            }
        }
        candidates.sort_unstable_by(|a, b| by_weight(b, a));
        candidates.truncate(k);
    }

    /// Logits to e^((logit - best) / temperature).
    fn exponentiate(&mut self) {
        let best = self.candidates.first().map_or(0.0, |c| c.weight);
        let inverse = 1.0 / self.sampling.temperature;
        for candidate in &mut self.candidates {
            // With a tiny temperature 0 · ∞ must not become a NaN: the best keeps weight 1.
            let below = candidate.weight - best;
            candidate.weight = if below == 0.0 { 1.0 } else { (below * inverse).exp() };
        }
    }

    fn keep_top_p(&mut self) {
        if self.sampling.top_p >= 1.0 {
            return;
        }
        let target = self.sampling.top_p * self.candidates.iter().map(|c| c.weight).sum::<f32>();
        let mut reached = 0.0;
        let enough = self.candidates.iter().position(|c| {
            reached += c.weight;
            reached >= target
        });
        self.candidates.truncate(enough.map_or(usize::MAX, |last| last + 1));
    }

    fn keep_min_p(&mut self) {
        let least = self.sampling.min_p;
        // The best has weight 1, so the share is the weight.
        let kept = self.candidates.partition_point(|c| c.weight >= least).max(1);
        self.candidates.truncate(kept);
    }

    fn draw(&mut self) -> u32 {
        let total: f64 = self.candidates.iter().map(|c| f64::from(c.weight)).sum();
        let mut left = self.random.unit() * total;
        for candidate in &self.candidates {
            left -= f64::from(candidate.weight);
            if left < 0.0 {
                return candidate.token;
            }
        }
        self.candidates.first().map_or(0, |c| c.token)
    }
}

/// One pass without a branch, for there are a hundred thousand of them in every step.
fn check_logits(logits: &[f32]) -> Result<(), SampleError> {
    let largest = logits.iter().fold(0, |largest: u32, logit| largest.max(logit.to_bits() & !(1 << 31)));
    if largest >= f32::INFINITY.to_bits() {
        let (token, &logit) =
            logits.iter().enumerate().find(|(_, logit)| !logit.is_finite()).expect("one of them");
        return Err(SampleError::NotFinite { token, logit });
    }
    if logits.is_empty() { Err(SampleError::Empty) } else { Ok(()) }
}

/// By weight, and among equals the smaller token first, so that the order is total.
fn by_weight(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    a.weight.total_cmp(&b.weight).then(b.token.cmp(&a.token))
}

/// The first of the largest.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, logit) in logits.iter().enumerate() {
        if *logit > best.1 {
            best = (token as u32, *logit);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOGITS: [f32; 5] = [0.0, 2.0, 1.0, -1.0, 1.5];

    fn plain() -> Sampling {
        Sampling { temperature: 1.0, ..Sampling::greedy() }
    }

    /// Shares of each token over many draws.
    fn shares(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        let mut sampler = Sampler::new(sampling).unwrap();
        let mut counts = vec![0.0; logits.len()];
        (0..20_000).for_each(|_| counts[sampler.sample(logits).unwrap() as usize] += 1.0 / 20_000.0);
        counts
    }

    fn softmax(logits: &[f32], temperature: f32) -> Vec<f64> {
        let weights: Vec<f64> = logits.iter().map(|l| f64::from(l / temperature).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|w| w / sum).collect()
    }

    #[test]
    fn draws_follow_the_softmax() {
        for temperature in [0.5, 1.0, 2.0] {
            let drawn = shares(Sampling { temperature, ..plain() }, &LOGITS);
            for (drawn, exact) in drawn.iter().zip(softmax(&LOGITS, temperature)) {
                assert!((drawn - exact).abs() < 0.015, "{drawn} {exact}");
            }
        }
    }

    #[test]
    fn cuts_leave_the_best() {
        let kept = |sampling| -> Vec<usize> {
            let shares = shares(sampling, &LOGITS);
            (0..LOGITS.len()).filter(|t| shares[*t] > 0.0).collect()
        };
        assert_eq!(kept(Sampling { top_k: 2, ..plain() }), [1, 4]);
        // Probabilities 0.455, 0.276, 0.168, 0.062, 0.023 of tokens 1, 4, 2, 0, 3.
        assert_eq!(kept(Sampling { top_p: 0.7, ..plain() }), [1, 4]);
        assert_eq!(kept(Sampling { top_p: 0.75, ..plain() }), [1, 2, 4]);
        assert_eq!(kept(Sampling { min_p: 0.3, ..plain() }), [1, 2, 4]);
        assert_eq!(kept(Sampling { min_p: 1.0, ..plain() }), [1]);
        assert_eq!(kept(Sampling { temperature: 1e-30, ..plain() }), [1]);
        assert_eq!(kept(Sampling { temperature: 0.0, ..plain() }), [1]);
    }

    #[test]
    fn the_penalty_sees_the_window_only() {
        let sampling = Sampling { repetition_penalty: 2.0, repetition_window: 2, ..Sampling::greedy() };
        let mut sampler = Sampler::new(sampling).unwrap();
        let logits = [2.0, 1.9, 1.8, -0.1];
        // Each choice halves its own logit until two others have been made.
        let mut next = || {
            let token = sampler.sample(&logits).unwrap();
            sampler.observe(token);
            token
        };
        assert_eq!([next(), next(), next(), next(), next(), next()], [0, 1, 2, 0, 1, 2]);
        let mut sampler = Sampler::new(Sampling { repetition_penalty: 2.0, ..Sampling::greedy() }).unwrap();
        sampler.observe(0);
        sampler.observe(0);
        assert_eq!(sampler.sample(&[-1.0, -1.5]), Ok(1), "a negative logit is made more negative, once");
        assert_eq!(sampler.sample(&[-1.0, -3.0]), Ok(0));
    }

    #[test]
    fn a_state_goes_on_as_if_it_had_not_stopped() {
        let sampling = |repetition_window, seed| Sampling {
            repetition_penalty: 1.3,
            repetition_window,
            seed,
            ..plain()
        };
        let run = |sampler: &mut Sampler, count: usize| -> Vec<u32> {
            let next = |_| {
                let token = sampler.sample(&LOGITS).unwrap();
                sampler.observe(token);
                token
            };
            (0..count).map(next).collect()
        };
        let mut whole = Sampler::new(sampling(3, 5)).unwrap();
        let mut first = Sampler::new(sampling(3, 5)).unwrap();
        let text = run(&mut whole, 40);
        assert_eq!(run(&mut first, 17), text[..17]);
        let mut second = Sampler::resume(sampling(3, 9), first.state()).unwrap();
        assert_eq!(run(&mut second, 23), text[17..]);
        assert_eq!(second.state(), whole.state());
        // A wider window than before finds what it asks for.
        let mut wider = Sampler::resume(sampling(30, 0), whole.state()).unwrap();
        assert_eq!(wider.recent().collect::<Vec<_>>(), text);
        wider.recall(text[..30].iter().copied());
        assert_eq!(wider.state().recent, text[..30]);
    }

    #[test]
    fn logits_that_are_not_finite_are_refused() {
        for sampling in [Sampling::greedy(), plain()] {
            let mut sampler = Sampler::new(sampling).unwrap();
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let refused = sampler.sample(&[0.0, bad, 1.0]).unwrap_err();
                assert!(matches!(refused, SampleError::NotFinite { token: 1, .. }), "{refused}");
            }
            assert_eq!(sampler.sample(&[]), Err(SampleError::Empty));
            assert_eq!(sampler.sample(&[f32::MIN, f32::MAX]), Ok(1));
        }
    }

    #[test]
    fn a_seed_reproduces_and_another_differs() {
        let run = |seed| -> Vec<u32> {
            let mut sampler = Sampler::new(Sampling { seed, ..plain() }).unwrap();
            (0..64).map(|_| sampler.sample(&LOGITS).unwrap()).collect()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn parameters_out_of_range_are_named() {
        let message = |sampling| Sampler::new(sampling).unwrap_err().to_string();
        assert!(message(Sampling { temperature: f32::NAN, ..plain() }).starts_with("temperature must be"));
        assert!(message(Sampling { top_p: 0.0, ..plain() }).starts_with("top-p must be"));
        assert!(message(Sampling { min_p: 1.5, ..plain() }).starts_with("min-p must be"));
        assert!(
            message(Sampling { repetition_penalty: 0.0, ..plain() })
                .starts_with("repetition penalty must be")
        );
    }

    proptest! {
        #[test]
        fn the_best_are_those_of_a_sort(
            logits in prop::collection::vec((-40i32..40).prop_map(|x| x as f32 / 4.0), 1..700),
            top_k in 1usize..60,
        ) {
            let mut sampler = Sampler::new(Sampling { top_k, ..plain() }).unwrap();
            sampler.keep_top_k(&logits);
            let mut sorted: Vec<usize> = (0..logits.len()).collect();
            sorted.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            sorted.truncate(top_k);
            let kept: Vec<usize> = sampler.candidates.iter().map(|c| c.token as usize).collect();
            prop_assert_eq!(kept, sorted);
        }

        /// Whatever the logits and parameters, a token of the vocabulary comes out, or an error where one is not finite.
        #[test]
        fn always_a_token(
            logits in prop::collection::vec(any::<f32>(), 1..40),
            temperature in prop_oneof![Just(0.0f32), 1e-30f32..1e30],
            top_k in 0usize..50,
            top_p in 0.01f32..=1.0,
            min_p in 0.0f32..=1.0,
            repetition_penalty in 0.1f32..10.0,
        ) {
            let sampling = Sampling { temperature, top_k, top_p, min_p, repetition_penalty, ..Sampling::greedy() };
            let mut sampler = Sampler::new(sampling).unwrap();
            for _ in 0..4 {
                match sampler.sample(&logits) {
                    Ok(token) => {
                        prop_assert!((token as usize) < logits.len() && logits.iter().all(|l| l.is_finite()));
                        sampler.observe(token);
                    }
                    Err(_) => prop_assert!(!logits.iter().all(|l| l.is_finite())),
                }
            }
        }
    }
}
