mod contenders;
mod reasons;

use crate::{
    CompareOptions, EvalError, Failure, Progress, Row, Schedule,
    compare::compare_with_units,
    format,
    metrics::{Unit, paired_bootstrap},
    row::Entry,
    tasks::{Awareness, Corpus, TaskKind, TaskMaker},
};
use contenders::{Contender, contenders, loses_bits, smallest};
use serde::{Deserialize, Serialize};
use sketchkv_cache::{CacheShape, Cap, Spec};
use sketchkv_model::{Model, Workspace};

/// Tokens of a document of the measurement: a longer context is scaled down to this, with the same share of bytes.
const LONGEST: usize = 1024;

/// The same where that share of so few tokens is less than a cache needs.
const LONGEST_FOR_SMALL_SHARES: usize = 4 * LONGEST;

/// Divergence that nobody notices: below it speed decides.
pub(crate) const UNNOTICED: f64 = 0.01;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdviseOptions {
    /// Bytes that the cache may take.
    pub budget: usize,
    /// Tokens that it is to be used for.
    pub context: usize,
    /// Documents measured.
    pub samples: usize,
    /// Seed of the caches.
    pub seed: u64,
    /// Fewest tokens a second that it is to generate, where that was measured.
    pub min_speed: Option<f64>,
    /// Most mean KL, in nats.
    pub max_kl: Option<f64>,
}

/// Whether facts that a text says once are found again: the same needles under the cache and under a full one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeedleCheck {
    /// Tokens of each text.
    pub tokens: usize,
    /// Texts.
    pub texts: usize,
    /// In how many the needle was found.
    pub found: usize,
    /// In how many with the full cache.
    pub found_by_full: usize,
}

/// The bytes that a cap allows a cache of `context` tokens, at least 1; `None` where there is no cap. A number of tokens means
/// the bytes of an f16 cache of so many.
pub fn budget_bytes(cap: Cap, shape: &CacheShape, context: usize) -> Option<usize> {
    let bytes = match cap {
        Cap::None => return None,
        Cap::Bytes(bytes) => bytes,
        Cap::Tokens(tokens) => shape.f16_bytes(tokens.min(context)),
        Cap::Percent(percent) | Cap::PercentSeen(percent) => {
            (percent / 100.0 * shape.f16_bytes(context) as f64) as usize
        }
    };
    Some(bytes.max(1))
}

/// What to use, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Advice {
    /// The spec to use, with the budget that was asked for.
    pub spec: String,
    /// Why, one sentence each.
    pub reasons: Vec<String>,
    /// Bytes that an f16 cache of the context takes.
    pub full_bytes: usize,
    /// The budget in bytes.
    pub budget_bytes: usize,
    /// The context asked for, in tokens.
    pub context: usize,
    /// Tokens of the documents measured.
    pub measured_context: usize,
    /// Tokens a second of the full cache, in the same run.
    pub full_decode_tps: Option<f64>,
    /// Whether what a text says once is found; `None` where the text has no room for it.
    pub needles: Option<NeedleCheck>,
    /// What was measured and fits, the best first.
    pub candidates: Vec<Candidate>,
    /// What cannot be used within the budget, and why.
    pub rejected: Vec<Failure>,
    /// What to know before relying on the numbers.
    pub warnings: Vec<String>,
}

/// One cache that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// As it would be used.
    pub spec: String,
    /// Bytes it takes at the full context; of a cache with a cap, the most.
    pub bytes: usize,
    /// What was measured of it, at `measured_context` tokens.
    pub row: Row,
}

/// Measures caches that take at most `budget` bytes at `context` tokens, briefly, and recommends one.
///
/// A context above 1,024 tokens is measured at 1,024 with the same share of bytes; at up to 4,096 where that share is
/// less than a cache needs. Of the candidates whose divergence nobody notices (mean KL below 0.01) the fastest is
/// recommended, else of those that cannot be told apart from the one of least divergence the fastest; where some of them keep
/// every token, of these.
///
/// Every candidate is one that the model accepts with the very spec that is named. What fails, misses its cap, or evicts
/// nothing is no candidate.
///
/// # Errors
/// When no cache fits the budget (the message names the smallest that works), none of those that do can be measured, the
/// text is too short, or the model fails.
pub fn advise(
    model: &Model,
    corpus: &Corpus,
    options: &AdviseOptions,
    progress: &mut dyn Progress,
) -> Result<Advice, EvalError> {
    let &AdviseOptions { budget, context, samples, seed, .. } = options;
    let full_bytes = crate::footprint::full_bytes(&model.cache_shape(), context);
    let (contenders, mut rejected) = contenders(model, budget, context);
    if contenders.is_empty() {
        return Err(nothing_fits(model, budget, context));
    }
    // Where every cache can be measured, if that is not too long; else where one can.
    let shortest = || contenders.iter().map(|contender| contender.shortest(budget, context));
    let (one, all) = (shortest().min().unwrap_or(0), shortest().max().unwrap_or(0));
    let measured_context =
        LONGEST.max(all.min(LONGEST_FOR_SMALL_SHARES)).max(one).min(context).min(model.config().context);
    let schedule = Schedule { prefill: measured_context / 2, stream: 8, timed: 24 };
    let mut specs: Vec<Spec> =
        contenders.iter().map(|contender| contender.measured(measured_context, context)).collect();
    // Beside the others, whether it fits or not: what the speed of a cache is worth.
    let full = specs.iter().position(|spec| *spec == Spec::default()).unwrap_or(specs.len());
    if full == specs.len() {
        specs.push(Spec::default());
    }
    let text = corpus.sample(model, measured_context, samples)?;
    let compared = compare_with_units(model, &text, &CompareOptions { specs, schedule, seed }, progress);
    let (comparison, units) = compared?;
    let full_decode_tps = match &comparison.rows[full] {
        Entry::Measured(row) => Some(row.decode_tps),
        Entry::Failed(_) => None,
    };
    let mut candidates: Vec<(Candidate, Vec<Unit>)> = Vec::new();
    for ((contender, entry), units) in contenders.into_iter().zip(comparison.rows).zip(units) {
        match candidate(&contender, entry, measured_context, context) {
            Ok(candidate) => candidates.push((candidate, units)),
            Err(reason) => rejected.push(Failure::of(&contender.spec, reason)),
        }
    }
    candidates.sort_by(|(a, _), (b, _)| a.row.kl_mean.total_cmp(&b.row.kl_mean));
    if candidates.is_empty() {
        return Err(nothing_works(&rejected));
    }
    let mut missed = vec![];
    candidates.retain(|(candidate, _)| match candidate.misses(options) {
        None => true,
        Some(why) => {
            missed.push(Failure { name: None, spec: candidate.spec.clone(), error: why });
            false
        }
    });
    let Some(chosen) = choose(&candidates, seed) else { return Err(nothing_is_enough(&missed)) };
    rejected.extend(missed);
    let candidates: Vec<Candidate> = candidates.into_iter().map(|(candidate, _)| candidate).collect();
    let needles = needles(model, corpus, &candidates[chosen].row.spec, measured_context, seed)?;
    let mut advice = Advice {
        spec: candidates[chosen].spec.clone(),
        reasons: Vec::new(),
        full_bytes,
        budget_bytes: budget,
        context,
        measured_context,
        full_decode_tps,
        needles,
        candidates,
        rejected,
        warnings: comparison.warnings,
    };
    advice.reasons = reasons::reasons(&advice, chosen);
    Ok(advice)
}

/// What was measured of a contender, or why it is none.
fn candidate(
    contender: &Contender,
    entry: Entry,
    measured: usize,
    context: usize,
) -> Result<Candidate, String> {
    let at = format!("at {} tokens", format::count(measured as u64));
    let row = match entry {
        Entry::Measured(row) => *row,
        Entry::Failed(failure) => return Err(format!("{at}: {}", failure.error)),
    };
    if let Some(mark) = row.footprint.mark() {
        return Err(format!("{at}: {mark}"));
    }
    if contender.spec.evicts() && row.binds_at.is_none() && !loses_bits(&contender.spec) {
        return Err(format!("never evicts: its cap does not bind {at}"));
    }
    let bytes = if measured == context { row.footprint.kv_bytes } else { contender.bytes };
    Ok(Candidate { spec: contender.spec.to_string(), bytes, row })
}

/// The place of the recommended candidate, where they are in order of KL.
fn choose(candidates: &[(Candidate, Vec<Unit>)], seed: u64) -> Option<usize> {
    let (best, best_units) = candidates.first()?;
    let good: Vec<usize> = (0..candidates.len())
        .filter(|&i| {
            let (candidate, units) = &candidates[i];
            let tie =
                || paired_bootstrap(units, best_units, seed).is_some_and(|difference| difference.is_tie());
            i == 0 || if best.row.kl_mean < UNNOTICED { candidate.row.kl_mean < UNNOTICED } else { tie() }
        })
        .collect();
    // A mean hides the one fact that was evicted: nothing is, where that can be had.
    let whole: Vec<usize> =
        good.iter().copied().filter(|&i| candidates[i].0.row.binds_at.is_none()).collect();
    let good = if whole.is_empty() { good } else { whole };
    let rate = |&i: &usize| candidates[i].0.row.decode_tps;
    let fastest = good.iter().map(rate).fold(0.0, f64::max);
    // A few percent of speed is noise; then the better one is taken.
    good.into_iter().find(|i| rate(i) * 1.05 >= fastest)
}

impl Candidate {
    /// Which limit of speed or loss it does not keep to, if any.
    fn misses(&self, options: &AdviseOptions) -> Option<String> {
        let rate = self.row.decode_tps;
        if options.min_speed.is_some_and(|least| rate < least) {
            return Some(format!("generates {} tokens a second", format::rate(rate)));
        }
        let kl = self.row.kl_mean;
        options
            .max_kl
            .filter(|most| kl > *most)
            .map(|_| format!("has a mean KL of {}", format::divergence(kl)))
    }
}

/// Places of the needle.
const DEPTHS: [f64; 4] = [0.1, 0.35, 0.6, 0.85];

/// Hides a needle in texts of `tokens` tokens and asks for it, with `spec` and with a full cache.
fn needles(
    model: &Model,
    corpus: &Corpus,
    spec: &str,
    tokens: usize,
    seed: u64,
) -> Result<Option<NeedleCheck>, EvalError> {
    let Ok(maker) = TaskMaker::new(model, corpus) else { return Ok(None) };
    let (spec, mut workspace) = (spec.parse::<Spec>()?, Workspace::new());
    // The question and its answer need room.
    let length = tokens.min(model.config().context.saturating_sub(64));
    let mut check = NeedleCheck { tokens: length, texts: 0, found: 0, found_by_full: 0 };
    for (number, depth) in DEPTHS.into_iter().enumerate() {
        let seed = seed + number as u64;
        let Ok(task) = maker.make(TaskKind::NiahSingle, length, depth, Awareness::Agnostic, seed) else {
            return Ok(None);
        };
        let mut finds = |spec: &Spec| -> Result<bool, EvalError> {
            Ok(task.run(model, spec, seed, &mut workspace)?.score > 0.5)
        };
        check.texts += 1;
        check.found += usize::from(finds(&spec)?);
        check.found_by_full += usize::from(finds(&Spec::default())?);
    }
    Ok(Some(check))
}

/// What fits keeps to no limit of speed or loss.
fn nothing_is_enough(missed: &[Failure]) -> EvalError {
    let each: Vec<String> =
        missed.iter().map(|failure| format!("`{}` {}", failure.spec, failure.error)).collect();
    EvalError::Input(format!(
        "no cache within the budget keeps to the limits of speed and loss, min-speed and max-kl; with a larger budget or other limits \
         there may be one: {}",
        each.join("; ")
    ))
}

/// `budget` is too small for everything.
fn nothing_fits(model: &Model, budget: usize, context: usize) -> EvalError {
    let (name, budget) = (&model.config().name, format::bytes(budget as u64));
    EvalError::Input(match smallest(model, context) {
        Some((spec, bytes)) => format!(
            "no cache of {} tokens of {name} works within {budget}: raise the budget to {bytes}B, where `{spec}` does",
            format::count(context as u64)
        ),
        None => format!("no cache works on {name} within {budget}: raise the budget"),
    })
}

fn nothing_works(rejected: &[Failure]) -> EvalError {
    let each: Vec<String> =
        rejected.iter().map(|failure| format!("`{}`: {}", failure.spec, failure.error)).collect();
    EvalError::Unanswered(format!("no cache that fits the budget could be recommended: {}", each.join("; ")))
}
