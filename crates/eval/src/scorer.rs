//! Learning a scorer from what a model attends to.

use crate::{EvalError, Progress, Step};
use sketchkv_cache::{Cache, Scorer, ScorerFit};
use sketchkv_model::{Logits, Model, Sequence, Workspace};

/// Runs documents through a model and fits a [`Scorer`] to its attention.
///
/// # Errors
/// When the documents are too short to learn from, or the model fails.
pub fn train_scorer(
    model: &Model,
    documents: &[Vec<u32>],
    progress: &mut dyn Progress,
) -> Result<Scorer, EvalError> {
    let mut fit = ScorerFit::new(model.cache_shape());
    let mut workspace = Workspace::new();
    let total = documents.iter().map(|document| document.len() as u64).sum();
    let mut done = 0;
    for document in documents {
        let mut cache = Cache::new(model.cache_shape(), &ScorerFit::spec(document.len())?, 0)?;
        cache.watch_attention();
        for tokens in document.chunks(ScorerFit::CHUNK) {
            let mut batch = [Sequence { tokens, cache: &mut cache }];
            model.forward(&mut batch, &mut workspace, Logits::None).all()?;
            fit.observe(&cache);
            done += tokens.len() as u64;
            progress.step(Step { what: "attention", done, total });
        }
        fit.learn(&cache, model.pool());
    }
    Ok(fit.finish(model.fingerprint())?)
}
