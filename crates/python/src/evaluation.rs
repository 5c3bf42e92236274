//! `compare` and `advise`, as JSON; `sketchkv/evaluation.py` makes frames of it.

use crate::error::Failure;
use crate::interrupt::Interrupt;
use crate::model::Model;
use crate::options;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::Serialize;
use sketchkv_cache::Spec;
use sketchkv_eval::tasks::Corpus;
use sketchkv_eval::{AdviseOptions, CompareOptions, DEFAULT_SPECS, Schedule, TIMED_STEPS, budget_bytes};
use std::path::PathBuf;

#[pyfunction]
pub(crate) fn compare(
    py: Python<'_>,
    model: &Model,
    kv: Option<Vec<String>>,
    text: Option<String>,
    files: Vec<PathBuf>,
    context: Option<usize>,
    documents: usize,
    prefill: Option<usize>,
    stream: usize,
    seed: u64,
) -> Result<String, Failure> {
    let specs = match kv {
        Some(texts) => texts.iter().map(|text| text.parse()).collect::<Result<Vec<Spec>, _>>()?,
        None => DEFAULT_SPECS.iter().map(|text| text.parse()).collect::<Result<Vec<Spec>, _>>()?,
    };
    if specs.is_empty() || stream == 0 || documents == 0 {
        let reason = "a comparison needs at least one cache, one document and one token a step";
        return Err(PyValueError::new_err(reason).into());
    }
    let context = context.unwrap_or(model.model.config().context.min(QUICK_CONTEXT));
    let prefill = prefill.unwrap_or(context / 2);
    let options = CompareOptions { specs, schedule: Schedule { prefill, stream, timed: TIMED_STEPS }, seed };
    let mut interrupt = Interrupt::new();
    let comparison = py.detach(|| {
        model.model.check_position(context)?;
        let text = corpus(text, &files)?.sample(&model.model, context, documents)?;
        Ok::<_, Failure>(sketchkv_eval::compare(&model.model, &text, &options, &mut interrupt)?)
    });
    json(&interrupt.outcome(comparison)?)
}

#[pyfunction]
pub(crate) fn advise(
    py: Python<'_>,
    model: &Model,
    budget: &Bound<'_, PyAny>,
    context: Option<usize>,
    text: Option<String>,
    files: Vec<PathBuf>,
    samples: usize,
    seed: u64,
) -> Result<String, Failure> {
    let context = context.unwrap_or(model.model.config().context);
    let budget = budget_bytes(options::cap(budget)?, &model.model.cache_shape(), context)
        .ok_or_else(|| PyValueError::new_err("give a budget, as \"64MiB\" or \"25%\""))?;
    if samples == 0 || context < LEAST_CONTEXT {
        return Err(PyValueError::new_err(format!(
            "advice needs at least 1 sample of {LEAST_CONTEXT} tokens of context"
        ))
        .into());
    }
    let options = AdviseOptions { budget, context, samples, seed, min_speed: None, max_kl: None };
    let mut interrupt = Interrupt::new();
    let advice = py.detach(|| {
        let corpus = corpus(text, &files)?;
        Ok::<_, Failure>(sketchkv_eval::advise(&model.model, &corpus, &options, &mut interrupt)?)
    });
    json(&interrupt.outcome(advice)?)
}

/// Tokens of a document where nothing else is said: a comparison of a dozen caches takes a minute or so.
const QUICK_CONTEXT: usize = 1024;

/// Below this there is nothing to advise.
const LEAST_CONTEXT: usize = 64;

/// A text of the caller's, files, or the text in the program.
fn corpus(text: Option<String>, files: &[PathBuf]) -> Result<Corpus, Failure> {
    match text {
        Some(_) if !files.is_empty() => Err(PyValueError::new_err("give text or files, not both").into()),
        Some(text) => Ok(Corpus::of("text", text)),
        None => Ok(Corpus::of_files(files)?),
    }
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map_err(|error| Failure::refuse(format!("the results cannot be written: {error}")))
}
