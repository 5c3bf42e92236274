use crate::{
    EvalError, Machine,
    machine::{peak_resident, reset_peak_resident},
    metrics::{DivergenceTable, Interval, Latency, TokenScore, Unit, bootstrap_mean, paired_bootstrap},
    progress::{Counter, Progress},
    scoring::{REFERENCE_SPEC, Run, Schedule, Scorer, skip},
    tasks::TextSample,
};
use serde::{Deserialize, Serialize};
use sketchkv_cache::{Cache, Ledger, Spec};
use sketchkv_model::Model;

/// What to compare, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct CompareOptions {
    /// The caches, one row each, in this order.
    pub specs: Vec<Spec>,
    /// Tokens taken in at once before scoring starts; later where a row's cap binds later, for every row alike.
    pub prefill: usize,
    /// Tokens of each step after that: 1 is true streaming decode; more is faster, and a little kinder to methods
    /// that evict, since a chunk attends to all of itself.
    pub stream: usize,
    /// Single-token steps at the end of each document whose time is taken.
    pub timed: usize,
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
    /// Tokens of each document taken in at once.
    pub prefill: usize,
    /// Position of the first scored token: the end of the prefill, or where the last cap binds that ever does.
    pub scored_from: usize,
    /// Tokens of a step.
    pub stream: usize,
    /// What `kl_mean` and `ppl_change` are against.
    pub reference: String,
    /// Its perplexity.
    pub reference_ppl: f64,
    /// What the bootstrap resamples: `documents`, or `blocks` of 64 scored tokens where documents are few.
    pub resampled: String,
    /// One row per spec.
    pub rows: Vec<Row>,
}

/// One cache's row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The preset this row came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The full composition.
    pub spec: String,
    /// Bytes of the cache at the end of a document, everything counted.
    pub kv_bytes: usize,
    /// The same in percent of an f16 cache of all tokens.
    pub kv_percent: f64,
    /// Position from which on tokens had been evicted, the latest of all documents; none where the cap never binds.
    pub binds_at: Option<usize>,
    /// The bytes, itemised.
    pub ledger: LedgerBytes,
    /// Tokens per second of the prefill.
    pub prefill_tps: f64,
    /// Tokens per second of single-token steps at the end of a document: one over the median step.
    pub decode_tps: f64,
    /// The steps' times.
    pub latency: Option<Latency>,
    /// Perplexity of the scored tokens.
    pub ppl: f64,
    /// ppl / reference_ppl − 1.
    pub ppl_change: f64,
    /// Mean KL divergence from the uncompressed cache, in nats.
    pub kl_mean: f64,
    /// Its 95 % interval by bootstrap.
    pub kl_interval: Option<[f64; 2]>,
    /// Share of tokens whose most probable next token is the uncompressed cache's.
    pub same_top: f64,
    /// Whether this row's mean KL and that of the row before it in order of KL cannot be told apart.
    pub tie: bool,
    /// Peak of the process's resident memory while the row ran, in bytes; 0 where the system does not tell.
    pub peak_rss_bytes: u64,
    /// The full table of llama-perplexity.
    pub divergence: DivergenceTable,
}

/// A [`Ledger`] with its sum, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The fields are the ledger's.
pub struct LedgerBytes {
    pub keys: usize,
    pub values: usize,
    pub scales: usize,
    pub positions: usize,
    pub scores: usize,
    pub codes: usize,
    pub sketches: usize,
    pub tail: usize,
    pub tables: usize,
    pub slack: usize,
    pub total: usize,
}

impl From<Ledger> for LedgerBytes {
    fn from(ledger: Ledger) -> Self {
        let Ledger { keys, values, scales, positions, scores, codes, sketches, tail, tables, slack } = ledger;
        let total = ledger.total();
        LedgerBytes { keys, values, scales, positions, scores, codes, sketches, tail, tables, slack, total }
    }
}

/// Runs every spec of `options` over `text` and scores it against the uncompressed cache on the same tokens.
///
/// Every spec is checked against the model before the first runs. Rows run one after the other, so that each has the
/// machine to itself.
///
/// # Errors
/// When a spec does not fit the model, a document has nothing to score, the model fails, or the disk is full.
pub fn compare(
    model: &Model,
    text: &TextSample,
    options: &CompareOptions,
    progress: &mut dyn Progress,
) -> Result<Comparison, EvalError> {
    for spec in &options.specs {
        Cache::new(model.cache_shape(), spec, options.seed)?;
    }
    let &CompareOptions { prefill, stream, timed, seed, .. } = options;
    let work = Scorer::work(&text.documents) * (options.specs.len() as u64 + 1);
    let mut counter = Counter::new(progress, work);
    let schedule = Schedule { prefill, stream, timed };
    let mut scorer = Scorer::new(model, text.documents.clone(), schedule, &mut counter)?;
    let mut base = scorer.reference_scores()?;
    let mut runs = Vec::new();
    for spec in &options.specs {
        reset_peak_resident();
        let run = scorer.run(spec, seed, &mut counter)?;
        runs.push((spec, run, peak_resident().unwrap_or(0)));
    }
    let scored_from = scored_from(prefill, &base, runs.iter().map(|(_, run, _)| run));
    skip(&mut base, scored_from - prefill);
    let mut rows = Vec::new();
    let mut units = Vec::new();
    for (spec, mut run, peak) in runs {
        run.skip(scored_from - prefill);
        let (of_run, _) = resampling_units(&run.scores);
        rows.push(row(model, spec, &run, &of_run, seed, peak)?);
        units.push(of_run);
    }
    mark_ties(&mut rows, &units, seed);
    let resampled = resampling_units(&base).1.to_owned();
    let base = base.concat();
    Ok(Comparison {
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
        prefill,
        scored_from,
        stream,
        reference: REFERENCE_SPEC.to_owned(),
        reference_ppl: DivergenceTable::of(&base).map_or(f64::NAN, |table| table.ppl.mean),
        resampled,
        rows,
    })
}

pub(crate) fn row(
    model: &Model,
    spec: &Spec,
    run: &Run,
    units: &[Unit],
    seed: u64,
    peak_rss_bytes: u64,
) -> Result<Row, EvalError> {
    let divergence = DivergenceTable::of(&run.scores.concat())
        .ok_or_else(|| EvalError::Input(format!("`{spec}` scored no token")))?;
    let latency = Latency::of(&run.steps);
    let kv_bytes = run.ledger.total();
    let uncompressed = (model.cache_shape().f16_bytes_per_token() * run.depth) as f64;
    let interval: Option<Interval> = bootstrap_mean(units, seed);
    Ok(Row {
        name: spec.preset.map(str::to_owned),
        spec: spec.to_string(),
        kv_bytes,
        kv_percent: 100.0 * kv_bytes as f64 / uncompressed,
        binds_at: run.binds_at,
        ledger: run.ledger.into(),
        prefill_tps: run.prefill_tokens as f64 / run.prefill.as_secs_f64(),
        decode_tps: latency.map_or(0.0, |latency| 1e3 / latency.median_ms),
        latency,
        ppl: divergence.ppl.mean,
        ppl_change: divergence.ln_ppl_ratio.mean.exp_m1(),
        kl_mean: divergence.kl.mean,
        kl_interval: interval.map(|i| [i.low, i.high]),
        same_top: divergence.same_top.mean,
        tie: false,
        peak_rss_bytes,
        divergence,
    })
}

/// The first position at which every cap that ever binds has bound, if at least a block of every document is then
/// left to score; else the end of the prefill.
fn scored_from<'r>(prefill: usize, base: &[Vec<TokenScore>], runs: impl Iterator<Item = &'r Run>) -> usize {
    let shortest = base.iter().map(Vec::len).min().unwrap_or(0);
    let last = (prefill + shortest).saturating_sub(BLOCK).max(prefill);
    runs.filter_map(|run| run.binds_at).filter(|&at| at <= last).fold(prefill, usize::max)
}

/// Scored tokens of a block that is resampled as a whole where documents are few.
const BLOCK: usize = 64;

/// The KL of `[document][token]` in units that are resampled as wholes, and their name.
pub(crate) fn resampling_units(scores: &[Vec<TokenScore>]) -> (Vec<Unit>, &'static str) {
    let unit = |tokens: &[TokenScore]| Unit::of(tokens.iter().map(|score| score.kl));
    if scores.len() >= 8 {
        return (scores.iter().map(|document| unit(document)).collect(), "documents");
    }
    (scores.iter().flat_map(|document| document.chunks(BLOCK)).map(unit).collect(), "blocks")
}

fn mark_ties(rows: &mut [Row], units: &[Vec<Unit>], seed: u64) {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|&a, &b| rows[a].kl_mean.total_cmp(&rows[b].kl_mean));
    for pair in order.windows(2) {
        let difference = paired_bootstrap(&units[pair[1]], &units[pair[0]], seed);
        rows[pair[1]].tie = difference.is_some_and(|interval| interval.is_tie());
    }
}
