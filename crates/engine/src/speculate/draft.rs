//! Guesses by a model: a smaller one of the same vocabulary, or the same weights over a smaller cache.

use super::{Confidence, Drafter};
use crate::EngineError;
use sketchkv_cache::{Cache, Spec};
use sketchkv_model::{Logits, Model, ModelError, Sequence, Workspace};
use std::sync::Arc;

/// The most probable tokens of a draft model.
pub struct DraftModel {
    /// `None` for the weights of the model that checks.
    model: Option<Arc<Model>>,
    cache: Cache,
    workspace: Workspace,
    /// What the cache has seen.
    seen: Vec<u32>,
    /// The cache before the last guesses.
    base: Option<(Cache, usize)>,
}

impl DraftModel {
    /// Guesses for `target` by `model`, over a cache of `spec`, on the same threads.
    ///
    /// # Errors
    /// When the two do not have the same tokens, or the spec does not fit.
    pub fn new(mut model: Model, target: &Model, spec: &Spec) -> Result<Self, EngineError> {
        if let Some(why) = difference(&model, target) {
            let (draft, target) = (&model.config().name, &target.config().name);
            return Err(ModelError::Argument(format!(
                "{draft} cannot guess for {target}: {why}; take a smaller model of the same family"
            ))
            .into());
        }
        model.share_threads(target);
        let cache = Cache::new(model.cache_shape(), spec, 0)?;
        let model = Some(Arc::new(model));
        Ok(DraftModel { model, cache, workspace: Workspace::new(), seen: vec![], base: None })
    }

    /// Guesses for `target` by its own weights over a cache of `spec`: worth it where attention takes most of the time.
    ///
    /// # Errors
    /// When the spec does not fit.
    pub fn same_weights(target: &Model, spec: &Spec) -> Result<Self, EngineError> {
        let cache = Cache::new(target.cache_shape(), spec, 0)?;
        Ok(DraftModel { model: None, cache, workspace: Workspace::new(), seen: vec![], base: None })
    }

    /// Makes the cache one that has seen a beginning of `text`, which is not all of it.
    fn return_to(&mut self, text: &[u32]) {
        let is_beginning = |seen: &[u32]| seen.len() < text.len() && text.starts_with(seen);
        if is_beginning(&self.seen) {
            return;
        }
        if let Some((base, length)) = self.base.take()
            && is_beginning(&self.seen[..length])
        {
            self.cache = base;
            self.seen.truncate(length);
            return;
        }
        self.cache.reset();
        self.seen.clear();
    }

    /// The guesses; an error where the model cannot go on.
    fn guess(
        &mut self,
        target: &Model,
        text: &[u32],
        most: usize,
        guesses: &mut Vec<u32>,
    ) -> Result<(), ModelError> {
        self.return_to(text);
        let own = self.model.clone();
        let model = own.as_deref().unwrap_or(target);
        let mut run = |cache: &mut Cache, tokens: &[u32]| {
            let batch = &mut [Sequence { tokens, cache }];
            model.forward(batch, &mut self.workspace, Logits::Last).of(0).map(most_probable)
        };
        let fresh = &text[self.seen.len()..];
        let mut next = run(&mut self.cache, fresh)?;
        self.seen.extend_from_slice(fresh);
        self.base = Some((self.cache.fork(), self.seen.len()));
        guesses.push(next);
        while guesses.len() < most {
            let token = next;
            next = run(&mut self.cache, &[token])?;
            self.seen.push(token);
            guesses.push(next);
        }
        Ok(())
    }
}

impl Drafter for DraftModel {
    fn draft(&mut self, model: &Model, text: &[u32], most: usize, guesses: &mut Vec<u32>) -> Confidence {
        if self.guess(model, text, most, guesses).is_err() {
            // Beyond its context, say: what it has guessed may still be right, and it begins anew.
            self.cache.reset();
            self.seen.clear();
            self.base = None;
        }
        Confidence::High
    }

    fn confidence(&self) -> Option<Confidence> {
        Some(Confidence::High)
    }
}

fn most_probable(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(token, _)| token as u32)
}

/// Why tokens of one model are not tokens of the other, if they are not.
fn difference(draft: &Model, target: &Model) -> Option<String> {
    let [a, b] = [draft, target].map(|model| model.config().vocabulary);
    let least = a.min(b);
    // Vocabularies are padded to different widths; what both have must be the same.
    let (draft, target) = (draft.tokenizer(), target.tokenizer());
    let other = (0..least as u32).find(|&token| draft.token_bytes(token) != target.token_bytes(token))?;
    Some(format!("their tokens are different, from token {other} on"))
}
