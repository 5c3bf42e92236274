use crate::{CompareOptions, EvalError, Progress, Row, compare, experiments::fitting, tasks::Corpus};
use serde::{Deserialize, Serialize};
use sketchkv_cache::Spec;
use sketchkv_model::Model;

/// Caches of all tokens: those that fit the budget need no eviction.
const UNCAPPED: [&str; 6] = ["full", "full+q8", "full+k=q8+v=q4", "full+q4h", "full+tq4", "full+k=q4h+v=tq3"];

/// Caches that are held to the budget.
const CAPPED: [&str; 6] =
    ["window", "h2o+q8", "h2o(recent=64)+k=kivi4+v=q4", "fastest", "balanced", "best-quality"];

/// Tokens of a document of the measurement: a longer context is scaled down to this, with the same share of bytes.
const LONGEST: usize = 1024;

/// Divergence that nobody notices: below it speed decides.
const UNNOTICED: f64 = 0.01;

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
    /// What was measured, the best first.
    pub candidates: Vec<Candidate>,
}

/// One cache that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// As it would be used.
    pub spec: String,
    /// Bytes it would take at the full context.
    pub bytes: usize,
    /// What was measured of it.
    pub row: Row,
}

/// Measures candidates that take at most `budget` bytes at `context` tokens, briefly, and recommends one.
///
/// A context above 1,024 tokens is measured at 1,024 with the same share of bytes. Of the candidates whose divergence
/// nobody notices (mean KL below 0.01) the fastest is recommended, else the one of least divergence; of those that
/// cannot be told apart from it, the fastest.
///
/// # Errors
/// When no candidate fits the budget, the text is too short, or the model fails.
pub fn advise(
    model: &Model,
    corpus: &Corpus,
    budget: usize,
    context: usize,
    samples: usize,
    seed: u64,
    progress: &mut dyn Progress,
) -> Result<Advice, EvalError> {
    let per_token = model.cache_shape().f16_bytes_per_token();
    let full_bytes = per_token * context;
    let share = 100.0 * budget as f64 / full_bytes as f64;
    let measured_context = context.min(LONGEST).min(model.config().context);
    let capped = CAPPED.iter().filter(|_| share < 100.0).map(|keep| format!("{keep}@{share:.3}%"));
    let specs = fitting(model, UNCAPPED.iter().map(|&spec| spec.to_owned()).chain(capped));
    let options = CompareOptions { specs, prefill: measured_context / 2, stream: 1, timed: 24, seed };
    let text = corpus.sample(model, measured_context, samples)?;
    let comparison = compare(model, &text, &options, progress)?;
    let suffix = format!("@{budget}B");
    let mut candidates: Vec<Candidate> = comparison
        .rows
        .into_iter()
        .map(|row| {
            let bytes = (row.kv_percent / 100.0 * full_bytes as f64) as usize;
            match row.spec.split_once('@') {
                Some((body, _)) => {
                    let spec: String = format!("{body}{suffix}");
                    // The cap is held whatever the share came out as.
                    Candidate { spec: canonical(&spec), bytes: bytes.min(budget), row }
                }
                None => Candidate { spec: row.spec.clone(), bytes, row },
            }
        })
        .filter(|candidate| candidate.bytes <= budget)
        .collect();
    candidates.sort_by(|a, b| a.row.kl_mean.total_cmp(&b.row.kl_mean));
    let Some(best) = candidates.first() else {
        return Err(EvalError::Input(format!(
            "no cache of {context} tokens fits into {budget} bytes on this model, whose full f16 cache takes \
             {full_bytes}: raise the budget or shorten the context"
        )));
    };
    let good: Vec<usize> = if best.row.kl_mean < UNNOTICED {
        (0..candidates.len()).filter(|&i| candidates[i].row.kl_mean < UNNOTICED).collect()
    } else {
        // Candidates are in order of KL: a run of ties with the row before is a tie with the best.
        let ties = candidates.iter().skip(1).take_while(|candidate| candidate.row.tie).count();
        (0..=ties).collect()
    };
    let fastest = good
        .iter()
        .copied()
        .max_by(|&a, &b| candidates[a].row.decode_tps.total_cmp(&candidates[b].row.decode_tps))
        .unwrap_or(0);
    // A few percent of speed is noise; then the better one is taken.
    let chosen = good
        .into_iter()
        .find(|&i| candidates[i].row.decode_tps * 1.05 >= candidates[fastest].row.decode_tps)
        .unwrap_or(fastest);
    let reasons = reasons(&candidates, chosen, full_bytes, budget, context, measured_context);
    let spec = candidates[chosen].spec.clone();
    Ok(Advice { spec, reasons, full_bytes, budget_bytes: budget, context, measured_context, candidates })
}

/// The spec as it prints itself, so that `@67108864B` reads `@64MiB`.
fn canonical(text: &str) -> String {
    text.parse::<Spec>().map_or_else(|_| text.to_owned(), |spec| spec.to_string())
}

fn reasons(
    candidates: &[Candidate],
    chosen: usize,
    full_bytes: usize,
    budget: usize,
    context: usize,
    measured: usize,
) -> Vec<String> {
    let Candidate { spec, bytes, row } = &candidates[chosen];
    let mib = |bytes: usize| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let mut reasons = Vec::new();
    if full_bytes <= budget {
        reasons.push(format!("The whole f16 cache of {context} tokens takes {} and fits.", mib(full_bytes)));
    } else {
        reasons.push(format!(
            "The whole f16 cache of {context} tokens would take {}; this takes {}.",
            mib(full_bytes),
            mib(*bytes)
        ));
    }
    reasons.push(format!(
        "It changes perplexity by {:+.1} % and keeps the most probable next token in {:.1} % of places (mean KL {:.4}).",
        100.0 * row.ppl_change,
        100.0 * row.same_top,
        row.kl_mean
    ));
    let best = &candidates[0];
    if best.spec != *spec {
        let faster = 100.0 * (row.decode_tps / best.row.decode_tps - 1.0);
        reasons.push(format!(
            "{} diverges a little less ({:.4}), but this decodes {faster:.0} % faster.",
            best.spec, best.row.kl_mean
        ));
    }
    let next = candidates
        .iter()
        .enumerate()
        .find(|&(i, candidate)| i > chosen && candidate.row.kl_mean > 1.2 * row.kl_mean.max(1e-6));
    if let Some((_, next)) = next {
        let times = next.row.kl_mean / row.kl_mean.max(1e-6);
        reasons.push(format!(
            "The next best of another kind, {}, diverges {times:.1} times as much.",
            next.spec
        ));
    }
    if measured < context {
        reasons.push(format!(
            "Measured at {measured} tokens with the same share of bytes; at {context} expect the same order, not the \
             same numbers."
        ));
    }
    reasons
}
