//! A generation at rest: kept elsewhere, forked, cut back, or under another cap.

use super::{Generation, chosen::Chosen};
use crate::EngineError;
use serde::{Deserialize, Serialize};
use sketchkv_cache::{AttentionWorkspace, Cache, Cap};
use sketchkv_model::{Model, ModelError, Sampler, SamplerState, Sampling, TextStream};

/// All of a generation at rest but its cache and logits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rest {
    seed: u64,
    sampler: SamplerState,
    /// Tokens that were chosen and are not in the cache.
    chosen: Vec<u32>,
    /// How many of them were shown whole, and bytes of the next.
    shown: usize,
    partial: usize,
    /// Bytes of a character that is not finished.
    waiting: Vec<u8>,
    /// Tokens that were fed and are not in the cache.
    prompt: Vec<u32>,
}

impl Rest {
    /// What is wrong with it for `model`.
    ///
    /// # Errors
    /// That.
    pub(crate) fn check(&self, model: &Model, logits: &[f32]) -> Result<(), &'static str> {
        let vocabulary = model.config().vocabulary;
        let mut tokens = self.chosen.iter().chain(&self.prompt).chain(&self.sampler.recent);
        if tokens.any(|&token| token as usize >= vocabulary) {
            return Err("it has a token that the model does not have");
        }
        if self.shown > self.chosen.len() || self.partial > 0 && self.shown == self.chosen.len() {
            return Err("more tokens were shown than chosen");
        }
        if self.waiting.len() > 3 || std::str::from_utf8(&self.waiting).is_ok_and(|text| !text.is_empty()) {
            return Err("a character that is not finished is none");
        }
        if !logits.is_empty() && logits.len() != vocabulary {
            return Err("it has the logits of another vocabulary");
        }
        Ok(())
    }
}

impl Generation {
    /// What goes on from here, with the cache; what is running is interrupted. The logits are empty unless they are all
    /// that there is to go on from.
    pub(crate) fn at_rest(&mut self, model: &Model) -> (Rest, &[f32]) {
        self.interrupt(model);
        let rest = Rest {
            seed: self.sampler.sampling().seed,
            sampler: self.sampler.state(),
            chosen: self.chosen.tokens().collect(),
            shown: self.chosen.shown(),
            partial: self.chosen.partial(),
            waiting: self.stream.waiting().to_vec(),
            prompt: self.prompt[self.prompt_ran..].to_vec(),
        };
        let needed = rest.shown == 0 && rest.partial == 0 && rest.prompt.is_empty();
        (rest, if needed { &self.logits } else { &[] })
    }

    /// Goes on from `rest`, which was checked; tokens are chosen as `sampling` says, but for its seed.
    ///
    /// # Errors
    /// When `sampling` is out of range.
    pub(crate) fn resume(
        cache: Cache,
        sampling: Sampling,
        rest: Rest,
        logits: Vec<f32>,
    ) -> Result<Self, ModelError> {
        let sampling = Sampling { seed: rest.seed, ..sampling };
        let mut stream = TextStream::default();
        stream.push(&rest.waiting, &mut String::new());
        Ok(Generation {
            chosen: Chosen::resume(rest.chosen, rest.shown, rest.partial),
            prompt: rest.prompt,
            logits,
            stream,
            ..Generation::new(cache, Sampler::resume(sampling, rest.sampler)?)
        })
    }

    /// A second text that goes on from here; what is running is interrupted.
    ///
    /// # Errors
    /// Never, but that the sampling is checked once more.
    pub fn fork(&mut self, model: &Model) -> Result<Generation, EngineError> {
        let sampling = self.sampling().clone();
        let (rest, logits) = self.at_rest(model);
        let logits = logits.to_vec();
        Ok(Generation::resume(self.cache.fork(), sampling, rest, logits)?)
    }

    /// Forgets all tokens but the first `tokens`, so that another text can follow them; what is running is interrupted.
    ///
    /// # Errors
    /// As [`Cache::truncate`]; the text is then at rest as it was.
    pub fn truncate(&mut self, model: &Model, tokens: usize) -> Result<(), EngineError> {
        self.interrupt(model);
        if tokens >= self.tokens() {
            return Ok(());
        }
        let seen = self.cache.position();
        self.cache.truncate(tokens)?;
        // What waits to be run comes after what the cache has seen.
        let waiting = self.chosen.tokens().chain(self.prompt[self.prompt_ran..].iter().copied());
        self.prompt = waiting.take(tokens.saturating_sub(seen)).collect();
        self.prompt_ran = 0;
        self.chosen = Chosen::default();
        let recent: Vec<u32> = self.sampler.recent().collect();
        let gone = seen.saturating_sub(tokens);
        let generated = self.sampler.generated().saturating_sub(gone);
        let left = recent.len().saturating_sub(gone);
        self.sampler.recall_generated(recent[..left].iter().copied(), generated);
        self.logits.clear();
        self.stream = TextStream::default();
        self.rest_guesses();
        Ok(())
    }

    /// Gives its cache another cap, also while it is running.
    ///
    /// # Errors
    /// As [`Cache::set_cap`]; the cache is then as it was.
    pub fn set_cap(&mut self, model: &Model, cap: Cap) -> Result<(), EngineError> {
        let mut workspace = AttentionWorkspace::new();
        self.cache.set_cap(cap, model.pool(), &mut workspace)?;
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.cache.set_cap(cap, model.pool(), &mut workspace)?;
        }
        Ok(())
    }

    /// Its cache alone.
    pub fn into_cache(self) -> Cache {
        self.cache
    }

    /// Chooses tokens by `sampling` from now on; the random numbers go on, whatever its seed.
    ///
    /// # Errors
    /// When it is out of range; tokens are then chosen as before.
    pub fn set_sampling(&mut self, sampling: Sampling) -> Result<(), EngineError> {
        let sampling = Sampling { seed: self.sampling().seed, ..sampling };
        self.sampler = Sampler::resume(sampling, self.sampler.state())?;
        Ok(())
    }
}
