use super::{
    Experiment, Lab, Settings,
    job::{Common, Job, Work},
};
use crate::{
    EvalError, Footprint, Progress, Step,
    tasks::{Awareness, TaskKind},
};
use serde::{Deserialize, Serialize};
use sketchkv_cache::Spec;

/// How a cache did on one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskMeasured {
    /// Mean of the scores, 0 to 1.
    pub score: f64,
    /// Score of each sample.
    pub scores: Vec<f64>,
    /// The cache before the question; of the samples, that which took the largest share.
    #[serde(flatten)]
    pub footprint: Footprint,
    /// What was expected of the first sample.
    pub expected: String,
    /// What the model said to the first sample.
    pub output: String,
}

/// Caches that are tried on tasks; the uncompressed one tells what the model can do at all.
const UNCAPPED: [&str; 2] = ["full", "full+q4h"];
const CAPPED: [&str; 5] = ["window", "h2o", "snapkv", "expected", "auto"];

/// Every task over lengths, the single needle over depths too, with the question known before the text and not.
pub(super) fn jobs(common: &Common<'_>, settings: &Settings, specs: &[Spec]) -> Vec<Job> {
    let specs: Vec<Spec> = if specs.is_empty() {
        let capped = settings.tasks.budgets.iter().flat_map(|cap| CAPPED.map(|keep| format!("{keep}@{cap}")));
        let own = UNCAPPED.map(str::to_owned).into_iter().chain(capped);
        own.filter_map(|text| text.parse().ok()).collect()
    } else {
        specs.to_vec()
    };
    let tasks = &settings.tasks;
    let mut jobs = Vec::new();
    for &seed in &settings.seeds {
        for &kind in &tasks.kinds {
            let lengths = if kind.has_depth() { &tasks.needle_lengths } else { &tasks.lengths };
            for &length in lengths {
                for awareness in [Awareness::Agnostic, Awareness::Aware] {
                    // A task without a question has nothing to know beforehand.
                    let no_question = matches!(kind, TaskKind::Copy | TaskKind::Arithmetic);
                    if awareness == Awareness::Aware && no_question {
                        continue;
                    }
                    let half = [0.5];
                    let over_depths = kind.has_depth() && awareness == Awareness::Agnostic;
                    let depths = if over_depths { &tasks.needle_depths[..] } else { &half[..] };
                    for &depth in depths {
                        for spec in &specs {
                            let samples = tasks.samples;
                            let work = Work::Task { kind, length, depth, awareness, samples };
                            jobs.push(common.job(Experiment::Tasks, spec, seed, work));
                        }
                    }
                }
            }
        }
    }
    jobs
}

impl Lab<'_> {
    pub(super) fn task(
        &mut self,
        work: &Work,
        spec: &Spec,
        seed: u64,
        progress: &mut dyn Progress,
    ) -> Result<TaskMeasured, EvalError> {
        let &Work::Task { kind, length, depth, awareness, samples } = work else { unreachable!("task work") };
        let (mut scores, mut footprint, mut first) = (Vec::new(), None::<Footprint>, None);
        for sample in 0..samples {
            let Some(maker) = self.maker() else { unreachable!("made before tasks") };
            // The task depends on the seed and the sample only: every cache gets the same ones.
            let task =
                maker.make(kind, length, depth, awareness, seed.wrapping_add(1_000 * sample as u64))?;
            let answer = task.run(self.model, spec, seed, &mut self.workspace)?;
            scores.push(answer.score);
            footprint = footprint
                .filter(|most| most.kv_percent >= answer.footprint.kv_percent)
                .or(Some(answer.footprint));
            first.get_or_insert((task.answers.join(", "), answer.output));
            progress.step(Step { what: kind.name(), done: sample as u64 + 1, total: samples as u64 });
        }
        let (Some((expected, output)), Some(footprint)) = (first, footprint) else {
            return Err(EvalError::Input("a task needs at least one sample".into()));
        };
        let score = scores.iter().sum::<f64>() / scores.len() as f64;
        Ok(TaskMeasured { score, scores, footprint, expected, output })
    }
}
