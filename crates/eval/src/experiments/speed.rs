use super::{
    Experiment, Lab, Settings,
    compare::{CONTROLS, distinct},
    job::{Common, Job, Work},
};
use crate::{
    EvalError, Footprint, Progress, Step,
    machine::{peak_resident, reset_peak_resident},
    metrics::Latency,
};
use serde::{Deserialize, Serialize};
use sketchkv_cache::{Cache, Spec};
use sketchkv_model::{Logits, Sequence};
use std::time::{Duration, Instant};

/// Decode at one depth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpeedPoint {
    /// Tokens seen before the timed steps.
    pub depth: usize,
    /// Times of single-token steps.
    pub latency: Latency,
    /// Time of the prefill to this depth and the first step after it, in milliseconds.
    pub first_token_ms: f64,
    /// Tokens per second of the prefill to this depth.
    pub prefill_tps: f64,
    /// The cache after the timed steps.
    #[serde(flatten)]
    pub footprint: Footprint,
}

/// Decode against depth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpeedMeasured {
    /// By depth, ascending.
    pub points: Vec<SpeedPoint>,
    /// Threads that ran the model.
    pub threads: usize,
    /// Peak of the process's resident memory, in bytes.
    pub peak_rss_bytes: u64,
}

/// Decode speed of the full caches, and of a window and a composition under caps that do not grow.
pub(super) fn jobs(common: &Common<'_>, settings: &Settings, specs: &[Spec]) -> Vec<Job> {
    let own = [
        "window@256tok",
        "h2o@256tok",
        "cms@256tok",
        "h2o+buckets@256tok",
        "expected+graded@256tok",
        "fastest@256tok",
        "topk",
        "fastest",
    ];
    let own = CONTROLS.into_iter().chain(own).map(str::to_owned);
    // Two presets may stand for one cache.
    let own = || distinct(own.filter_map(|text| text.parse().ok()));
    let specs: Vec<Spec> = if specs.is_empty() { own() } else { specs.to_vec() };
    let work = Work::Speed { depths: settings.depths.clone(), timed: settings.schedule.timed };
    specs.iter().map(|spec| common.job(Experiment::Speed, spec, settings.seeds[0], work.clone())).collect()
}

impl Lab<'_> {
    pub(super) fn speed(
        &mut self,
        depths: &[usize],
        timed: usize,
        spec: &Spec,
        seed: u64,
        progress: &mut dyn Progress,
    ) -> Result<SpeedMeasured, EvalError> {
        let longest = depths.last().copied().unwrap_or(0) + timed;
        // Speed does not ask what the text says: a short one goes round.
        let text = self.corpus.texts().map(|(_, text)| text).collect::<Vec<_>>().join("\n");
        let mut tokens = self.model.tokenizer().encode_literal(text.get(..longest * 12).unwrap_or(&text))?;
        if tokens.is_empty() {
            return Err(EvalError::Input("the text has no tokens to run".into()));
        }
        tokens = tokens.iter().copied().cycle().take(longest).collect();
        let mut cache = Cache::new(self.model.cache_shape(), spec, seed)?;
        let (mut at, mut prefill, mut prefilled) = (0, Duration::ZERO, 0);
        let mut points = Vec::new();
        reset_peak_resident();
        for &depth in depths {
            let started = Instant::now();
            if depth > at {
                let mut batch = [Sequence { tokens: &tokens[at..depth], cache: &mut cache }];
                self.model.forward(&mut batch, &mut self.workspace, Logits::Last).all()?;
                prefilled += depth - at;
                prefill += started.elapsed();
                at = depth;
            }
            let mut steps = Vec::new();
            for _ in 0..timed {
                let started = Instant::now();
                let mut batch = [Sequence { tokens: &tokens[at..=at], cache: &mut cache }];
                self.model.forward(&mut batch, &mut self.workspace, Logits::Last).all()?;
                steps.push(started.elapsed());
                at += 1;
            }
            let first = prefill + steps.first().copied().unwrap_or_default();
            let latency = Latency::of(&steps)
                .ok_or_else(|| EvalError::Input("at least one step must be timed at each depth".into()))?;
            points.push(SpeedPoint {
                depth,
                latency,
                first_token_ms: first.as_secs_f64() * 1e3,
                prefill_tps: prefilled as f64 / prefill.as_secs_f64().max(1e-9),
                footprint: Footprint::of(&cache),
            });
            progress.step(Step { what: "speed", done: at as u64, total: longest as u64 });
        }
        let peak_rss_bytes = peak_resident().unwrap_or(0);
        Ok(SpeedMeasured { points, threads: self.model.pool().threads(), peak_rss_bytes })
    }
}
