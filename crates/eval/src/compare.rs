use crate::{
    EvalError, Failure, Machine,
    machine::{peak_resident, reset_peak_resident},
    metrics::{DivergenceTable, TokenScore, Unit, paired_bootstrap},
    progress::{Counter, Progress},
    row::{BLOCK, Entry, Row, resampling_units},
    scoring::{REFERENCE_SPEC, Run, Schedule, Scorer, skip},
    tasks::TextSample,
};
use serde::{Deserialize, Serialize};
use sketchkv_cache::{Cache, Spec};
use sketchkv_model::Model;

/// The uncompressed cache, the controls, of each kind of method one that is worth a look, and the presets, at equal
/// bytes where they evict.
pub const DEFAULT_SPECS: [&str; 14] = [
    "full",
    "full+q8",
    "full+q4h",
    "full+k=kivi4+v=q4",
    "full+graded",
    "full+topk",
    "window@25%",
    "random@25%",
    "h2o@25%",
    "snapkv@25%",
    "cms@25%",
    "aggregate@25%",
    "expected@25%",
    "auto@25%",
];

/// Single-token steps at the end of each document whose time a comparison takes.
pub const TIMED_STEPS: usize = 64;

/// What to compare, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct CompareOptions {
    /// The caches, one row each, in this order.
    pub specs: Vec<Spec>,
    /// How documents are run. Where a row's cap binds later than the prefill's end, scoring begins there, for every row
    /// alike.
    pub schedule: Schedule,
    /// Seed of the caches and of the bootstrap.
    pub seed: u64,
}

/// Caches side by side on the same scored tokens of one text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The model's name.
    pub model: String,
    /// The text's name.
    pub text: String,
    /// Tokens of a document.
    pub context: usize,
    /// Scored tokens of a row, all documents together; the same tokens in every row.
    pub scored_tokens: usize,
    /// Seed of the caches and of the bootstrap.
    pub seed: u64,
    /// Where it ran.
    pub machine: Machine,
    /// Threads that ran the model.
    pub threads: usize,
    /// Version of this program.
    pub version: String,
    /// Names the weights.
    pub model_hash: String,
    /// Names the tokens scored.
    pub text_hash: String,
    /// Documents scored.
    pub documents: usize,
    /// How they were run.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// Position of the first scored token: the end of the prefill, or where the last cap binds that ever does.
    pub scored_from: usize,
    /// What `kl_mean` and `ppl_change` are against.
    pub reference: String,
    /// Its perplexity.
    pub reference_ppl: f64,
    /// What the bootstrap resamples: `documents`, or `blocks` of 64 scored tokens where documents are few.
    pub resampled: String,
    /// One entry per spec.
    pub rows: Vec<Entry>,
    /// What to know before reading the rows: caps below the least that a cache needs.
    pub warnings: Vec<String>,
}

impl Comparison {
    /// The caches that were measured.
    pub fn measured(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter_map(Entry::row)
    }

    /// The caches that could not be.
    pub fn failed(&self) -> impl Iterator<Item = &Failure> {
        self.rows.iter().filter_map(Entry::failure)
    }
}

/// Runs every spec of `options` over `text` and scores it against the uncompressed cache on the same tokens.
///
/// A cache that the model refuses, or that fails on the way, is a failed entry with its reason; the others go on. Rows
/// run one after the other, so that each has the machine to itself.
///
/// # Errors
/// When the model refuses every spec, a document has nothing to score, the uncompressed cache fails, or the disk is full.
pub fn compare(
    model: &Model,
    text: &TextSample,
    options: &CompareOptions,
    progress: &mut dyn Progress,
) -> Result<Comparison, EvalError> {
    compare_with_units(model, text, options, progress).map(|(comparison, _)| comparison)
}

/// As [`compare`]; beside it what the bootstrap resamples, by entry, empty for one that failed.
pub(crate) fn compare_with_units(
    model: &Model,
    text: &TextSample,
    options: &CompareOptions,
    progress: &mut dyn Progress,
) -> Result<(Comparison, Vec<Vec<Unit>>), EvalError> {
    let &CompareOptions { schedule, seed, .. } = options;
    let refused = options.specs.iter().map(|spec| Cache::new(model.cache_shape(), spec, seed).err());
    if let Some(all) = refused.collect::<Option<Vec<_>>>()
        && let Some(first) = all.into_iter().next()
    {
        return Err(first.into());
    }
    let work = Scorer::work(&text.documents) * (options.specs.len() as u64 + 1);
    let mut counter = Counter::new(progress, work);
    let mut scorer = Scorer::new(model, text.documents.clone(), schedule, &mut counter)?;
    let mut base = scorer.reference_scores()?;
    let mut runs = Vec::new();
    for spec in &options.specs {
        reset_peak_resident();
        runs.push(match scorer.run(spec, seed, &mut counter) {
            Err(error) if error.stops_all() => return Err(error),
            Err(error) => Err(Failure::of(spec, error)),
            Ok(run) => Ok((spec, run, peak_resident().unwrap_or(0))),
        });
    }
    let done = runs.iter().flatten().map(|(_, run, _)| run);
    let scored_from = scored_from(schedule.prefill, &base, done);
    skip(&mut base, scored_from - schedule.prefill);
    let mut rows = Vec::new();
    let mut units = Vec::new();
    for run in runs {
        let (entry, of_run) = match run {
            Err(failure) => (Entry::Failed(failure), Vec::new()),
            Ok((spec, mut run, peak)) => {
                run.skip(scored_from - schedule.prefill);
                let (of_run, _) = resampling_units(&run.scores);
                (Entry::Measured(Box::new(Row::of(spec, &run, &of_run, seed, peak)?)), of_run)
            }
        };
        rows.push(entry);
        units.push(of_run);
    }
    mark_ties(&mut rows, &units, seed);
    let resampled = resampling_units(&base).1.to_owned();
    let base = base.concat();
    let warnings =
        rows.iter().filter_map(Entry::row).filter_map(|row| row.footprint.warning(&row.spec)).collect();
    let comparison = Comparison {
        model: model.config().name.clone(),
        text: text.name.clone(),
        context: text.documents.iter().map(Vec::len).max().unwrap_or(0),
        scored_tokens: base.len(),
        seed,
        machine: Machine::this(),
        threads: model.pool().threads(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model_hash: model.content_hash()?,
        text_hash: text.hash(),
        documents: text.documents.len(),
        schedule,
        scored_from,
        reference: REFERENCE_SPEC.to_owned(),
        reference_ppl: DivergenceTable::of(&base).map_or(f64::NAN, |table| table.ppl.mean),
        resampled,
        rows,
        warnings,
    };
    Ok((comparison, units))
}

/// The first position at which every cap that ever binds has bound, if at least a block of every document is then
/// left to score; else the end of the prefill.
fn scored_from<'r>(prefill: usize, base: &[Vec<TokenScore>], runs: impl Iterator<Item = &'r Run>) -> usize {
    let shortest = base.iter().map(Vec::len).min().unwrap_or(0);
    let last = (prefill + shortest).saturating_sub(BLOCK).max(prefill);
    runs.filter_map(|run| run.binds_at).filter(|&at| at <= last).fold(prefill, usize::max)
}

fn mark_ties(entries: &mut [Entry], units: &[Vec<Unit>], seed: u64) {
    let rows = entries.iter_mut().zip(units);
    let mut rows: Vec<(&mut Row, &Vec<Unit>)> = rows
        .filter_map(|(entry, units)| match entry {
            Entry::Measured(row) => Some((&mut **row, units)),
            Entry::Failed(_) => None,
        })
        .collect();
    rows.sort_by(|(a, _), (b, _)| a.kl_mean.total_cmp(&b.kl_mean));
    for at in 1..rows.len() {
        let difference = paired_bootstrap(rows[at].1, rows[at - 1].1, seed);
        rows[at].0.tie = difference.is_some_and(|interval| interval.is_tie());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_cache_parses() {
        for text in DEFAULT_SPECS {
            assert!(text.parse::<Spec>().is_ok(), "{text}");
        }
    }
}
