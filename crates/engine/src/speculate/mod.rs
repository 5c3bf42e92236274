//! Speculation: what comes next is guessed, and the model checks several guesses by reading its weights once.
//!
//! A guess that the model would not have chosen costs time and nothing else: each token is chosen, in turn, from the very logits
//! that it would have been chosen from alone, by the same random numbers, and the cache goes back to the last that was
//! guessed rightly ([`Cache::guess`](sketchkv_cache::Cache::guess)). So the text is the same, token for token, whether
//! sampled or not, over every cache.

mod draft;
mod lookup;
mod pace;

pub use draft::DraftModel;
pub use lookup::Lookup;

use pace::Pace;
use sketchkv_model::Model;
use std::time::Duration;

/// Most guesses in a pass. With the token before them they are two groups of a product's tokens.
const MOST: usize = 15;
/// Tokens that a drafter may have to catch up with within what a pass is known to take.
const CAUGHT_UP: usize = 2 * MOST;

/// How sure a drafter is of its guesses; what each is worth is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// As after two or three tokens that came before.
    Low,
    /// As after some more.
    Middle,
    /// As in the midst of a copied text.
    High,
}

/// What guesses how a text goes on.
pub trait Drafter: Send {
    /// Puts up to `most` tokens into `guesses`, which is empty: the first that may follow `text`, then those after it. `model` is
    /// the one that will check them. To give none is no failure.
    fn draft(&mut self, model: &Model, text: &[u32], most: usize, guesses: &mut Vec<u32>) -> Confidence;

    /// How sure it is of all its guesses, where that is known before they are made: they are not made then where it would not
    /// pay. For those to whom guesses come dear.
    fn confidence(&self) -> Option<Confidence> {
        None
    }
}

/// A drafter at work on one text.
pub(crate) struct Speculator {
    drafter: Box<dyn Drafter>,
    pace: Pace,
    /// The newest tokens that the cache has seen, and the position of the first.
    text: Vec<u32>,
    first: usize,
    /// Tokens of it that the drafter was shown.
    shown: usize,
    /// The token that is certain and, behind it, the guesses of the pass that is next.
    tokens: Vec<u32>,
    confidence: Confidence,
}

impl Speculator {
    /// From a cache on that has seen `position` tokens, the newest of which were `seen`.
    pub(crate) fn new(drafter: Box<dyn Drafter>, position: usize, seen: &[u32]) -> Self {
        let seen = &seen[seen.len().saturating_sub(position)..];
        Speculator {
            drafter,
            pace: Pace::default(),
            text: seen.to_vec(),
            first: position - seen.len(),
            shown: 0,
            tokens: vec![],
            confidence: Confidence::Low,
        }
    }

    /// The cache has seen `token`.
    pub(crate) fn see(&mut self, token: u32) {
        self.text.push(token);
    }

    /// The cache is at `position`, which may be an earlier one.
    pub(crate) fn rest_at(&mut self, position: usize) {
        self.text.truncate(position.saturating_sub(self.first));
        self.first = self.first.min(position);
        self.tokens.clear();
    }

    /// Guesses what comes after the text and `next`, at most `most` tokens.
    pub(crate) fn guess(&mut self, model: &Model, next: u32, most: usize) {
        self.tokens.clear();
        let most = match self.drafter.confidence() {
            Some(confidence) => most.min(self.pace.count(confidence)),
            None => most.min(self.pace.most()),
        };
        if most == 0 {
            return;
        }
        self.text.push(next);
        self.confidence = self.drafter.draft(model, &self.text, most, &mut self.tokens);
        self.pace.caught_up = self.text.len() <= self.shown + CAUGHT_UP;
        self.shown = self.text.len();
        self.text.pop();
        let vocabulary = model.config().vocabulary;
        let known = self.tokens.iter().take_while(|&&token| (token as usize) < vocabulary).count();
        let count = match self.drafter.confidence() {
            None if known > 0 => self.pace.count(self.confidence),
            _ => most,
        };
        self.tokens.truncate(count.min(known).min(most));
        if !self.tokens.is_empty() {
            self.tokens.insert(0, next);
        }
    }

    /// The tokens of the next pass, if there are guesses among them.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Takes them.
    pub(crate) fn take(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.tokens)
    }

    /// A pass over `guesses` guesses, of which the first `right` were right, took so long with all that goes with it.
    pub(crate) fn note(&mut self, guesses: usize, right: usize, elapsed: Duration) {
        self.pace.note(self.confidence, guesses, right, elapsed);
    }
}
