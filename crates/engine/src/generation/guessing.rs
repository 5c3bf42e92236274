//! Guessed tokens of a generation.

use super::Generation;
use crate::EngineError;
use crate::speculate::{Drafter, Speculator};
use sketchkv_model::Model;
use std::time::Instant;

impl Generation {
    /// Lets `drafter` guess what comes next from now on, or nothing. The text stays the same, token for token; it comes faster
    /// where many guesses are right, and guesses are made only where that pays, by [`Generation::step`], or by who calls
    /// [`Generation::guess`]. `seen` are the newest tokens that the cache has seen, as far as they are known.
    ///
    /// What is running is interrupted.
    pub fn speculate(&mut self, model: &Model, drafter: Option<Box<dyn Drafter>>, seen: &[u32]) {
        self.interrupt(model);
        let position = self.cache.position();
        self.speculator = drafter.map(|drafter| Speculator::new(drafter, position, seen));
    }

    /// Guesses at most `most` tokens, which go with the one that [`Generation::sequence`] gives next, and says how many:
    /// [`Generation::accept`] then wants the logits `[tokens][vocabulary]` of all of them, and [`Generation::ready`] has the
    /// steps beyond the first. Whoever runs them may give them up by [`Generation::stop_guessing`] when the pass fails.
    pub fn guess(&mut self, model: &Model, most: usize) -> usize {
        let Some(speculator) = &mut self.speculator else { return 0 };
        // All but the newest token were chosen before.
        let Some(&next) = self.chosen.next().filter(|_| self.running && self.chosen.is_last()) else {
            return 0;
        };
        // The last token to be chosen has no need of a guess behind it.
        let tokens = self.max_tokens.map_or(usize::MAX, |most| most.saturating_sub(self.generated + 1));
        let context =
            if model.check_position(usize::MAX).is_ok() { usize::MAX } else { model.config().context };
        let room = context.saturating_sub(self.cache.position() + 1);
        self.started = Some(Instant::now());
        speculator.guess(model, next, tokens.min(room).min(most));
        speculator.tokens().len().saturating_sub(1)
    }

    /// Guesses no more, for a guess may be why a pass failed, of which nothing has run then.
    pub fn stop_guessing(&mut self) {
        self.certain_position = None;
        self.speculator = None;
    }

    /// The cache has seen a token.
    pub(super) fn see(&mut self, token: u32) {
        if let Some(speculator) = &mut self.speculator {
            speculator.see(token);
        }
    }

    /// The cache is where it is to be.
    pub(super) fn rest_guesses(&mut self) {
        if let Some(speculator) = &mut self.speculator {
            speculator.rest_at(self.cache.position());
        }
    }

    /// Takes guesses out of the cache that are not known to be right.
    pub(super) fn go_back(&mut self) {
        if let Some(position) = self.certain_position.take() {
            self.cache.go_back(position).expect("the last pass went through every guess");
        }
    }

    /// Goes on from the `logits` of `token`, `[vocabulary]`, and of as many of the guesses behind it as turn out to be what is
    /// chosen; gives what is chosen last. Steps before that are owed.
    pub(super) fn take_in_guesses(
        &mut self,
        model: &Model,
        token: u32,
        logits: &[f32],
        started: Instant,
    ) -> Result<Option<u32>, EngineError> {
        let tokens = self.speculator.as_mut().map_or(vec![], Speculator::take);
        let begin = self.certain_position;
        let taken = begin.map_or(1, |begin| self.cache.position() - begin);
        let mut rows = logits.chunks_exact((logits.len() / tokens.len().max(1)).max(1));
        let mut row = move || rows.next().unwrap_or_default();
        let mut stay = 1;
        let mut chosen = self.ran(model, token, begin.map(|begin| begin + stay), row());
        while let (Ok(token), Some(begin)) = (&chosen, begin) {
            let guess = tokens.get(stay).copied().filter(|_| stay < taken && self.running);
            let is_right = guess.is_some() && guess == self.chosen.next().copied();
            // What may have to be taken out again needs a fork before it.
            if !is_right || self.chosen.risks() && self.snapshot.is_none() {
                break;
            }
            self.owe(*token);
            stay += 1;
            chosen = self.ran(model, guess.unwrap_or_default(), Some(begin + stay), row());
        }
        self.go_back();
        let guesses = tokens.len().saturating_sub(1);
        self.timing.decode_tokens += stay;
        self.timing.guesses += guesses;
        self.timing.right_guesses += stay - 1;
        let elapsed = started.elapsed();
        self.timing.decode += elapsed;
        if let Some(speculator) = &mut self.speculator {
            speculator.note(guesses, stay - 1, elapsed);
        }
        chosen
    }

    /// The cache has seen `token`, which is behind the position that is then certain; chooses the next.
    fn ran(
        &mut self,
        model: &Model,
        token: u32,
        certain: Option<usize>,
        logits: &[f32],
    ) -> Result<Option<u32>, EngineError> {
        self.certain_position = certain;
        self.sampler.observe_generated(token);
        self.see(token);
        self.chosen.run();
        self.settle();
        self.advance(model, logits)
    }
}
