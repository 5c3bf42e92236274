//! Measuring what a model loses by what is taken from one of its heads.

use crate::{EvalError, Progress, metrics::Reference, progress::Counter};
use serde::Serialize;
use sketchkv_cache::{Cache, Sensitivity};
use sketchkv_engine::Losses;
use sketchkv_model::{Logits, Model, Sequence, Workspace};

/// Tokens at the end of a document that are scored.
const SCORED: usize = 128;
/// Tokens of a pass on the way there.
const CHUNK: usize = 256;
/// The part of the tokens that a head sees, of which it keeps so many when others go.
const KEPT: usize = 8;
/// A cap that never binds.
const AMPLE: usize = 1 << 40;

/// What a model loses by its heads.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadLosses {
    /// `[layer][kv_head]`
    pub sensitivities: Vec<Vec<Sensitivity>>,
    /// When every head keeps an eighth of its tokens, as mean KL divergence in nats.
    pub eviction: Additivity,
    /// When every head has two bits a number.
    pub coding: Additivity,
}

/// A loss by one head after the other, and by all together: how far losses of heads add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Additivity {
    /// The sum of what is lost by each head alone.
    pub alone: f64,
    /// What is lost by all of them at once.
    pub together: f64,
}

/// What of one head was measured, summed over documents: the losses by eviction and by coding, and the importance evicted.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    eviction: f64,
    importance: f64,
    coding: f64,
}

/// Runs documents over automatic caches of which one head after the other loses seven eighths of its tokens, and then all but
/// two bits of them, and then all heads at once, and scores the last tokens.
///
/// # Errors
/// When a document is too short, the model fails, or the disk is full.
pub fn measure_head_losses(
    model: &Model,
    documents: &[Vec<u32>],
    progress: &mut dyn Progress,
) -> Result<HeadLosses, EvalError> {
    let shape = model.cache_shape();
    let mut sums: Vec<Vec<Sums>> =
        shape.layers.iter().map(|layer| vec![Sums::default(); layer.kv_heads]).collect();
    let heads: usize = sums.iter().map(Vec::len).sum();
    let lengths: usize = documents.iter().map(|document| document.len() + 2 * (heads + 1) * SCORED).sum();
    let mut counter = Counter::new(progress, lengths as u64);
    counter.begin("what each head is worth");
    let mut workspace = Workspace::new();
    let (mut eviction, mut coding) = (Additivity::default(), Additivity::default());
    let share = 1.0 / documents.len().max(1) as f64;
    for document in documents {
        let Some(context) = document.len().checked_sub(SCORED + 1).filter(|context| *context >= CHUNK) else {
            let reason = format!("a document of {} tokens is too short to measure heads on", document.len());
            return Err(EvalError::Unanswered(reason));
        };
        let mut cache = Cache::new(model.cache_shape(), &Losses::measured(AMPLE), 0)?;
        for tokens in document[..context].chunks(CHUNK) {
            let mut batch = [Sequence { tokens, cache: &mut cache }];
            model.forward(&mut batch, &mut workspace, Logits::None).all()?;
            counter.add(tokens.len())?;
        }
        let mut trial = Trial {
            model,
            reference: Reference::new(model.config().vocabulary)?,
            workspace: &mut workspace,
            tokens: &document[context..],
        };
        trial.run(&mut cache.fork())?;
        let (mut thin, mut coarse) = (cache.fork(), cache.fork());
        for (number, heads) in sums.iter_mut().enumerate() {
            let kept = shape.layers[number].visible(context) / KEPT;
            for (h, sums) in heads.iter_mut().enumerate() {
                let mut fork = cache.fork();
                sums.importance += fork.evict_from(number, h, kept);
                sums.eviction += trial.run(&mut fork)?;
                let mut fork = cache.fork();
                fork.coarsen(number, h);
                sums.coding += trial.run(&mut fork)?;
                thin.evict_from(number, h, kept);
                coarse.coarsen(number, h);
                counter.add(2 * SCORED)?;
            }
        }
        eviction.together += share * trial.run(&mut thin)?;
        coding.together += share * trial.run(&mut coarse)?;
        counter.add(2 * SCORED)?;
    }
    for sums in sums.iter().flatten() {
        eviction.alone += share * sums.eviction;
        coding.alone += share * sums.coding;
    }
    Ok(HeadLosses { sensitivities: sensitivities(&sums, documents.len()), eviction, coding })
}

/// The last tokens of a document.
struct Trial<'a> {
    model: &'a Model,
    reference: Reference,
    workspace: &'a mut Workspace,
    tokens: &'a [u32],
}

impl Trial<'_> {
    /// The mean KL divergence over a cache from the first one that was run.
    fn run(&mut self, cache: &mut Cache) -> Result<f64, EvalError> {
        let (tokens, targets) = (&self.tokens[..SCORED], &self.tokens[1..]);
        let mut batch = [Sequence { tokens, cache }];
        let logits = self.model.forward(&mut batch, self.workspace, Logits::All).all()?;
        let rows = logits.chunks_exact(self.model.config().vocabulary).zip(targets);
        if self.reference.rows() == 0 {
            rows.into_iter().try_for_each(|(row, &target)| self.reference.push(row, target))?;
            return Ok(0.0);
        }
        let scores =
            rows.enumerate().map(|(row, (logits, &target))| self.reference.score(row, logits, target));
        let sum = scores.map(|score| score.map(|score| score.kl)).sum::<Result<f64, _>>()?;
        Ok(sum / SCORED as f64)
    }
}

/// Any change, however small, moves activations that are rounded to bytes: the least that a head loses is that noise.
fn sensitivities(sums: &[Vec<Sums>], documents: usize) -> Vec<Vec<Sensitivity>> {
    let losses = sums.iter().flatten().flat_map(|sums| [sums.eviction, sums.coding]);
    let noise = losses.fold(f64::INFINITY, f64::min).max(1e-12 * documents as f64);
    let beyond = |loss: f64| (loss - noise).max(noise / 4.0);
    let of_head = |sums: &Sums| Sensitivity {
        eviction: (beyond(sums.eviction) / sums.importance.max(1e-6)) as f32,
        coding: (beyond(sums.coding) / documents as f64) as f32,
    };
    sums.iter().map(|heads| heads.iter().map(of_head).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_head_loses_counts_beyond_the_noise_and_by_what_went() {
        let head = |eviction, importance, coding| Sums { eviction, importance, coding };
        let sums = [vec![head(0.021, 10.0, 0.002), head(0.001, 1.0, 0.003)]];
        let [heads] = &sensitivities(&sums, 2)[..] else { panic!("one layer") };
        let about = |x: f32, y: f64| assert!((f64::from(x) / y - 1.0).abs() < 1e-5, "{x} {y}");
        about(heads[0].eviction, 0.002);
        about(heads[0].coding, 0.0005);
        about(heads[1].eviction, 0.00025);
        about(heads[1].coding, 0.001);
    }
}
