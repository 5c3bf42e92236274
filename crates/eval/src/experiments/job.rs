use super::Experiment;
use crate::{
    Row, Schedule,
    metrics::Unit,
    results::Cell,
    tasks::{Awareness, TaskKind},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sketchkv_cache::Spec;

/// A cell and how to measure it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The cache to measure.
    pub spec: Spec,
    /// The cell's inputs.
    pub cell: Cell,
    /// What is done.
    pub work: Work,
    /// About how many tokens run through the model.
    pub cost: u64,
}

/// What is measured of one spec. What it serializes to, with its context, is all that changes the numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "work", rename_all = "lowercase")]
pub enum Work {
    /// Divergence, perplexity, bytes and speed on documents of text.
    Score {
        /// Tokens of a document.
        #[serde(skip)]
        context: usize,
        /// Documents.
        samples: usize,
        /// How they are run.
        #[serde(flatten)]
        schedule: Schedule,
    },
    /// BLEU of greedy continuations.
    Generate {
        /// Tokens of each prompt.
        #[serde(skip)]
        prompt: usize,
        /// Prompts.
        samples: usize,
        /// Tokens of each continuation.
        tokens: usize,
    },
    /// Attention weights beside the exact ones.
    Attention {
        /// Tokens of a document.
        #[serde(skip)]
        context: usize,
        /// Documents.
        samples: usize,
        /// Tokens before the first step that is compared.
        warm_up: usize,
    },
    /// Decode speed at depths.
    Speed {
        /// Tokens in the cache before the timed steps, ascending.
        depths: Vec<usize>,
        /// Timed steps at each.
        timed: usize,
    },
    /// Scores of a task.
    Task {
        /// Which.
        #[serde(rename = "task")]
        kind: TaskKind,
        /// Tokens of the prompt.
        #[serde(skip)]
        length: usize,
        /// Place of the needle, 0 to 1.
        depth: f64,
        /// Whether the cache knows the question before the text.
        awareness: Awareness,
        /// Tasks made.
        samples: usize,
    },
}

/// What [`Work::Score`] measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// As in a comparison.
    #[serde(flatten)]
    pub row: Row,
    /// Perplexity of the uncompressed cache on the same tokens.
    pub reference_ppl: f64,
    /// Scored tokens.
    pub scored_tokens: usize,
    /// Sums of KL and token counts of what the bootstrap resamples, in order: pairs up between cells of one text.
    pub units: Vec<Unit>,
}

impl Work {
    /// The cell's settings.
    pub(super) fn settings(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(settings)) => settings,
            _ => Map::new(),
        }
    }

    pub(super) fn context(&self) -> usize {
        match self {
            Work::Score { context, .. } | Work::Attention { context, .. } => *context,
            Work::Generate { prompt, .. } => *prompt,
            Work::Speed { depths, .. } => depths.last().copied().unwrap_or(0),
            Work::Task { length, .. } => *length,
        }
    }

    pub(super) fn cost(&self) -> u64 {
        let tokens = match self {
            // A token in a step of its own costs about four times one in a large chunk.
            Work::Score { context, samples, schedule: Schedule { prefill, stream, .. } } => {
                samples * (prefill + (context - prefill.min(context)) * if *stream < 8 { 4 } else { 1 })
            }
            Work::Generate { prompt, samples, tokens } => samples * (prompt + 4 * tokens),
            Work::Attention { context, samples, .. } => 10 * samples * context,
            Work::Speed { depths, timed } => self.context() + 4 * timed * depths.len(),
            Work::Task { length, samples, .. } => samples * (length + 80),
        };
        tokens as u64
    }
}

/// What all cells of a lab have in common.
pub(super) struct Common<'a> {
    pub(super) model: &'a str,
    pub(super) model_hash: &'a str,
    pub(super) text: &'a str,
    pub(super) text_hash: &'a str,
}

impl Common<'_> {
    pub(super) fn job(&self, experiment: Experiment, spec: &Spec, seed: u64, work: Work) -> Job {
        Job {
            cost: work.cost(),
            spec: spec.clone(),
            cell: Cell {
                experiment: experiment.name().to_owned(),
                model: self.model.to_owned(),
                model_hash: self.model_hash.to_owned(),
                name: spec.preset.map(str::to_owned),
                spec: spec.to_string(),
                context: work.context(),
                text: self.text.to_owned(),
                text_hash: self.text_hash.to_owned(),
                seed,
                settings: work.settings(),
            },
            work,
        }
    }
}
