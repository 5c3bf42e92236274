//! Choosing the next token.

mod candidates;
mod history;
mod logprobs;
mod mask;
mod settings;

pub use logprobs::{TokenLogprobs, logprobs};
pub use settings::Sampling;

use crate::ModelError;
use candidates::Candidates;
use history::History;
use mask::Mask;
use serde::{Deserialize, Serialize};
use sketchkv_sketch::SplitMix64;

/// What a [`Sampler`] knows of its text: with it another one goes on as if it were the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplerState {
    /// The state of the random numbers.
    pub random: u64,
    /// The newest tokens of the text, oldest first.
    pub recent: Vec<u32>,
    /// How many of the last of them the model chose, since it was last given some.
    #[serde(default)]
    pub generated: usize,
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
    /// None of those that the model has is allowed.
    #[error("no token can be chosen: none is allowed")]
    NoneAllowed,
}

/// Chooses tokens; remembers what the penalties need of the text.
///
/// ```
/// use sketchkv_model::{Sampler, Sampling};
/// let mut sampler = Sampler::new(Sampling { repetition_penalty: 8.0, ..Sampling::greedy() })?;
/// let token = sampler.sample(&[1.0, 2.0, -1.0]).unwrap();
/// assert_eq!(token, 1);
/// sampler.observe_generated(token);
/// assert_eq!(sampler.sample(&[1.0, 2.0, -1.0]), Ok(0));
/// # Ok::<(), sketchkv_model::ModelError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    random: SplitMix64,
    history: History,
    /// Room for logits that are not the model's any more.
    changed: Vec<f32>,
    candidates: Candidates,
}

impl Sampler {
    /// A sampler.
    ///
    /// # Errors
    /// When a parameter is out of range; the message names it.
    pub fn new(sampling: Sampling) -> Result<Self, ModelError> {
        let random = sampling.seed;
        Sampler::resume(sampling, SamplerState { random, ..SamplerState::default() })
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
            history: History::new(state.recent, state.generated),
            changed: Vec::new(),
            candidates: Candidates::default(),
        })
    }

    /// Begins the random numbers anew.
    pub fn reseed(&mut self, seed: u64) {
        self.sampling.seed = seed;
        self.random = SplitMix64::new(seed);
    }

    /// What [`Sampler::resume`] needs.
    pub fn state(&self) -> SamplerState {
        SamplerState {
            random: self.random.state(),
            recent: self.recent().collect(),
            generated: self.history.generated(),
        }
    }

    /// What it was made from.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Tells the sampler of the next token of the text that the model was given, as those of a prompt. What the model chose
    /// before counts as given from then on.
    pub fn observe(&mut self, token: u32) {
        self.history.push(token, false, self.sampling.repetition_window);
    }

    /// Tells the sampler of the next token of the text that the model chose.
    pub fn observe_generated(&mut self, token: u32) {
        self.history.push(token, true, self.sampling.repetition_window);
    }

    /// Takes `tokens`, oldest first, for the end of the text, in place of those observed. All count as given.
    pub fn recall(&mut self, tokens: impl IntoIterator<Item = u32>) {
        self.recall_generated(tokens, 0);
    }

    /// As [`Sampler::recall`], of tokens of which the model chose the last `generated`.
    pub fn recall_generated(&mut self, tokens: impl IntoIterator<Item = u32>, generated: usize) {
        self.history = History::recall(tokens, generated, self.sampling.repetition_window);
    }

    /// The newest tokens of the text, oldest first.
    pub fn recent(&self) -> impl Iterator<Item = u32> + '_ {
        self.history.tokens()
    }

    /// How many of the last tokens the model chose, since it was last given some.
    pub fn generated(&self) -> usize {
        self.history.generated()
    }

    /// Chooses the next token from `logits` `[vocabulary]`. It is not part of the text until it is observed.
    ///
    /// # Errors
    /// When a logit is NaN or infinite, or there is none.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, SampleError> {
        self.sample_masked(logits, None)
    }

    /// As [`Sampler::sample`], but only among tokens that are `allowed`: token i if bit i % 32 of word i / 32 is set.
    ///
    /// ```
    /// use sketchkv_model::{Sampler, Sampling};
    /// let mut sampler = Sampler::new(Sampling::greedy())?;
    /// assert_eq!(sampler.sample_among(&[1.0, 2.0, -1.0], &[0b101]), Ok(0));
    /// # Ok::<(), sketchkv_model::ModelError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Sampler::sample`], and when no token is allowed.
    pub fn sample_among(&mut self, logits: &[f32], allowed: &[u32]) -> Result<u32, SampleError> {
        self.sample_masked(logits, Some(Mask(allowed)))
    }

    fn sample_masked(&mut self, logits: &[f32], mask: Option<Mask>) -> Result<u32, SampleError> {
        check_logits(logits)?;
        if mask.is_some_and(|mask| mask.tokens(logits.len()).next().is_none()) {
            return Err(SampleError::NoneAllowed);
        }
        if self.sampling.logit_bias.is_empty() && !self.history.penalises(&self.sampling) {
            return Ok(self.choose(logits, mask));
        }
        let mut changed = std::mem::take(&mut self.changed);
        changed.clear();
        changed.extend_from_slice(logits);
        for &(token, bias) in &self.sampling.logit_bias {
            if let Some(logit) = changed.get_mut(token as usize) {
                *logit = (*logit + bias).clamp(f32::MIN, f32::MAX);
            }
        }
        self.history.penalise(&self.sampling, &mut changed);
        let token = self.choose(&changed, mask);
        self.changed = changed;
        Ok(token)
    }

    fn choose(&mut self, logits: &[f32], mask: Option<Mask>) -> u32 {
        match mask {
            None if self.sampling.temperature == 0.0 => argmax((0..).zip(logits.iter().copied())),
            Some(mask) if self.sampling.temperature == 0.0 => {
                argmax(mask.tokens(logits.len()).map(|token| (token, logits[token as usize])))
            }
            mask => self.candidates.choose(&self.sampling, logits, mask, &mut self.random),
        }
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

/// The first of the largest.
fn argmax(logits: impl Iterator<Item = (u32, f32)>) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, logit) in logits {
        if logit > best.1 {
            best = (token, logit);
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
    fn what_the_model_chose_is_penalised_and_the_prompt_is_not() {
        let mut sampler =
            Sampler::new(Sampling { presence_penalty: 0.5, frequency_penalty: 0.5, ..Sampling::greedy() })
                .unwrap();
        let logits = [2.0, 1.9, 0.0];
        (0..9).for_each(|_| sampler.observe(0));
        let mut next = || {
            let token = sampler.sample(&logits).unwrap();
            sampler.observe_generated(token);
            token
        };
        // A choice costs 1, each further one a half.
        assert_eq!([next(), next(), next(), next(), next(), next()], [0, 1, 0, 1, 0, 1]);
        // Both came three times: what is taken from them is 2.
        assert_eq!(sampler.sample(&[2.5, 0.0, 0.6]), Ok(2));
        assert_eq!(sampler.sample(&[2.5, 0.0, 0.4]), Ok(0));
    }

    #[test]
    fn a_bias_comes_first() {
        let biased =
            |logit_bias| Sampler::new(Sampling { logit_bias, repetition_penalty: 2.0, ..plain() }).unwrap();
        let all =
            |sampler: &mut Sampler| (0..99).map(|_| sampler.sample(&LOGITS).unwrap()).collect::<Vec<_>>();
        assert!(all(&mut biased(vec![(3, 100.0), (77, 100.0)])).iter().all(|&token| token == 3));
        assert!(all(&mut biased(vec![(1, -100.0), (4, -100.0)])).iter().all(|token| ![1, 4].contains(token)));
        // The penalty halves what the bias has made: 0.5 + 1.5 against 1.5.
        let mut sampler =
            Sampler::new(Sampling { temperature: 0.0, ..biased(vec![(0, 1.5)]).sampling().clone() }).unwrap();
        assert_eq!(sampler.sample(&[0.5, 1.5]), Ok(0));
        sampler.observe(0);
        assert_eq!(sampler.sample(&[0.5, 1.5]), Ok(1));
        assert_eq!(sampler.sample(&[0.5, 0.9]), Ok(0));
    }

    #[test]
    fn only_what_is_allowed_is_chosen() {
        for sampling in [Sampling::greedy(), plain(), Sampling { top_k: 1, ..plain() }] {
            let mut sampler = Sampler::new(sampling.clone()).unwrap();
            assert_eq!(sampler.sample_among(&LOGITS, &[0b01000]), Ok(3));
            for nothing in [&[][..], &[0], &[0b100000, 1]] {
                assert_eq!(sampler.sample_among(&LOGITS, nothing), Err(SampleError::NoneAllowed));
            }
            let refused = sampler.sample_among(&[0.0, f32::NAN], &[1]);
            assert!(matches!(refused, Err(SampleError::NotFinite { token: 1, .. })), "{sampling:?}");
        }
        let mut sampler = Sampler::new(plain()).unwrap();
        let mut counts = [0; 5];
        (0..9999).for_each(|_| counts[sampler.sample_among(&LOGITS, &[0b01101]).unwrap() as usize] += 1);
        let exact = softmax(&[0.0, 1.0, -1.0], 1.0);
        for (count, exact) in [counts[0], counts[2], counts[3]].into_iter().zip(exact) {
            assert!((f64::from(count) / 9999.0 - exact).abs() < 0.015, "{counts:?}");
        }
        assert_eq!((counts[1], counts[4]), (0, 0));
    }

    #[test]
    fn a_state_goes_on_as_if_it_had_not_stopped() {
        let sampling = |repetition_window, seed| Sampling {
            repetition_penalty: 1.3,
            presence_penalty: 0.3,
            frequency_penalty: 0.1,
            repetition_window,
            seed,
            ..plain()
        };
        let run = |sampler: &mut Sampler, count: usize| -> Vec<u32> {
            let next = |_| {
                let token = sampler.sample(&LOGITS).unwrap();
                sampler.observe_generated(token);
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
        wider.recall_generated(text[..30].iter().copied(), 4);
        assert_eq!((wider.state().recent, wider.generated()), (text[..30].to_vec(), 4));
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

    /// A seed gives what it gave in the first version.
    #[test]
    fn seeds_are_kept() {
        let logits: Vec<f32> = (0..300).map(|i| ((i * 7919) % 101) as f32 / 10.0).collect();
        let sampling = Sampling { repetition_penalty: 1.1, seed: 7, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling).unwrap();
        let next = |_| {
            let token = sampler.sample(&logits).unwrap();
            sampler.observe_generated(token);
            token
        };
        let tokens: Vec<u32> = (0..12).map(next).collect();
        assert_eq!(tokens, [298, 32, 49, 192, 229, 266, 261, 27, 64, 91, 234, 113]);
    }

    proptest! {
        /// Whatever the logits and parameters, a token of the vocabulary comes out, or an error where one is not finite.
        #[test]
        fn always_a_token(
            logits in prop::collection::vec(any::<f32>(), 1..40),
            temperature in prop_oneof![Just(0.0f32), 1e-30f32..1e30],
            top_k in 0usize..50,
            top_p in 0.01f32..=1.0,
            min_p in 0.0f32..=1.0,
            repetition_penalty in 0.1f32..10.0,
            presence_penalty in -2.0f32..=2.0,
            logit_bias in prop::collection::vec((0u32..50, -100.0f32..=100.0), 0..3),
            allowed in prop::option::of(any::<[u32; 2]>()),
        ) {
            let sampling = Sampling {
                temperature,
                top_k,
                top_p,
                min_p,
                repetition_penalty,
                presence_penalty,
                frequency_penalty: -presence_penalty,
                logit_bias,
                ..Sampling::greedy()
            };
            let mut sampler = Sampler::new(sampling).unwrap();
            for _ in 0..4 {
                let is_allowed = |token: usize| allowed.is_none_or(|words| words[token / 32] >> (token % 32) & 1 == 1);
                let chosen = match &allowed {
                    Some(allowed) => sampler.sample_among(&logits, allowed),
                    None => sampler.sample(&logits),
                };
                let finite = logits.iter().all(|l| l.is_finite());
                match chosen {
                    Ok(token) => {
                        prop_assert!((token as usize) < logits.len() && is_allowed(token as usize) && finite);
                        sampler.observe_generated(token);
                    }
                    Err(SampleError::NoneAllowed) => prop_assert!(!(0..logits.len()).any(is_allowed)),
                    Err(_) => prop_assert!(!finite),
                }
            }
        }

        /// What is forbidden is as if it were not there, to the last random number; where nothing is, nothing changes.
        #[test]
        fn a_mask_is_a_smaller_vocabulary(
            logits in prop::collection::vec((-40i32..40).prop_map(|x| x as f32 / 8.0), 1..200),
            words in prop::collection::vec(any::<u32>(), 7),
            top_k in 0usize..40,
            top_p in 0.3f32..=1.0,
            temperature in prop_oneof![Just(0.0f32), 0.2f32..3.0],
        ) {
            let sampling = Sampling { temperature, top_k, top_p, seed: 5, ..Sampling::greedy() };
            let sampler = || Sampler::new(sampling.clone()).unwrap();
            let (mut whole, mut all, mut masked, mut small) = (sampler(), sampler(), sampler(), sampler());
            let tokens: Vec<u32> = Mask(&words).tokens(logits.len()).collect();
            let left: Vec<f32> = tokens.iter().map(|&token| logits[token as usize]).collect();
            for _ in 0..8 {
                prop_assert_eq!(whole.sample(&logits), all.sample_among(&logits, &[u32::MAX; 7]));
                let among = small.sample(&left).map(|token| tokens[token as usize]);
                prop_assert_eq!(masked.sample_among(&logits, &words).ok(), among.ok());
            }
        }
    }
}
