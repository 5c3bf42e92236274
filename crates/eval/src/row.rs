use crate::{
    EvalError, Failure, Footprint,
    footprint::LedgerBytes,
    metrics::{DivergenceTable, Latency, TokenScore, Unit, bootstrap_mean},
    scoring::Run,
};
use serde::{Deserialize, Serialize};
use sketchkv_cache::Spec;

/// What was measured of one cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The preset this row came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The full composition.
    pub spec: String,
    /// The cache at the end of the longest document.
    #[serde(flatten)]
    pub footprint: Footprint,
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

/// What became of one cache of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    /// It was measured.
    Measured(Box<Row>),
    /// It could not be.
    Failed(Failure),
}

impl Entry {
    /// What was measured; `None` where it failed.
    pub fn row(&self) -> Option<&Row> {
        match self {
            Entry::Measured(row) => Some(row),
            Entry::Failed(_) => None,
        }
    }

    /// Why it failed; `None` where it was measured.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Entry::Measured(_) => None,
            Entry::Failed(failure) => Some(failure),
        }
    }
}

impl Row {
    /// Of a run of `spec`, whose scores are resampled in `units`.
    ///
    /// # Errors
    /// When no token was scored.
    pub(crate) fn of(
        spec: &Spec,
        run: &Run,
        units: &[Unit],
        seed: u64,
        peak_rss_bytes: u64,
    ) -> Result<Row, EvalError> {
        let divergence = DivergenceTable::of(&run.scores.concat())
            .ok_or_else(|| EvalError::Input(format!("`{spec}` scored no token")))?;
        let latency = Latency::of(&run.steps);
        Ok(Row {
            name: spec.preset.map(str::to_owned),
            spec: spec.to_string(),
            footprint: run.footprint,
            binds_at: run.binds_at,
            ledger: run.ledger.clone(),
            prefill_tps: run.prefill_tokens as f64 / run.prefill.as_secs_f64().max(1e-9),
            decode_tps: latency.map_or(0.0, |latency| 1e3 / latency.median_ms),
            latency,
            ppl: divergence.ppl.mean,
            ppl_change: divergence.ln_ppl_ratio.mean.exp_m1(),
            kl_mean: divergence.kl.mean,
            kl_interval: bootstrap_mean(units, seed).map(|interval| [interval.low, interval.high]),
            same_top: divergence.same_top.mean,
            tie: false,
            peak_rss_bytes,
            divergence,
        })
    }
}

/// Scored tokens of a block that is resampled as a whole where documents are few.
pub(crate) const BLOCK: usize = 64;

/// The KL of `[document][token]` in units that are resampled as wholes, and their name.
pub(crate) fn resampling_units(scores: &[Vec<TokenScore>]) -> (Vec<Unit>, &'static str) {
    let unit = |tokens: &[TokenScore]| Unit::of(tokens.iter().map(|score| score.kl));
    if scores.len() >= 8 {
        return (scores.iter().map(|document| unit(document)).collect(), "documents");
    }
    (scores.iter().flat_map(|document| document.chunks(BLOCK)).map(unit).collect(), "blocks")
}
