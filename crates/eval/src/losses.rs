//! Measuring what the automatic cache costs a model.

use crate::{
    EvalError, Progress, Schedule,
    metrics::{DivergenceTable, TokenScore},
    progress::Counter,
    scoring::Scorer,
    tasks::TextSample,
};
use sketchkv_cache::Cache;
use sketchkv_engine::{Loss, Losses};
use sketchkv_model::Model;

/// Caps, as shares of what an f16 cache of a document takes.
const SHARES: [f64; 5] = [0.5, 0.25, 0.125, 0.0625, 0.03125];
/// Tokens of a step: as a prompt comes in.
const STREAM: usize = 256;

/// Runs documents of one length over automatic caches of several sizes, and scores their second halves. Caps below the
/// least that the cache needs are left out.
///
/// # Errors
/// When a document has nothing to score, the model fails, or the disk is full.
pub fn measure_losses(
    model: &Model,
    text: &TextSample,
    progress: &mut dyn Progress,
) -> Result<Losses, EvalError> {
    let context = text.documents.iter().map(Vec::len).min().unwrap_or(0);
    let full = model.cache_shape().f16_bytes(context);
    let caps = SHARES.map(|share| (full as f64 * share) as usize);
    let fits = |bytes: &usize| Cache::new(model.cache_shape(), &Losses::measured(*bytes), 0).is_ok();
    let caps: Vec<usize> = caps.into_iter().filter(fits).collect();
    let mut counter = Counter::new(progress, Scorer::work(&text.documents) * (caps.len() as u64 + 1));
    let schedule = Schedule { prefill: context / 2, stream: STREAM, timed: 0 };
    let mut scorer = Scorer::new(model, text.documents.clone(), schedule, &mut counter)?;
    let mut points = Vec::new();
    for bytes in caps {
        let scores = scorer.run(&Losses::measured(bytes), 0, &mut counter)?.scores;
        let mean =
            |scores: &[TokenScore]| DivergenceTable::of(scores).map_or(f64::NAN, |table| table.kl.mean);
        let worst = scores.iter().map(|document| mean(document)).fold(0.0, f64::max);
        points.push(Loss { share: bytes as f64 / full as f64, kl: mean(&scores.concat()), worst });
    }
    let documents = text.documents.len();
    Losses::new(text.name.clone(), context, documents, points).map_err(EvalError::Unanswered)
}
