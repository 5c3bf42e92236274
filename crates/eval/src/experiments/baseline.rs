use super::{
    Experiment, Settings,
    job::{Common, Job, Work},
};
use crate::Schedule;
use sketchkv_cache::Spec;

/// The full cache over lengths; every second half of a length is scored.
pub(super) fn jobs(common: &Common<'_>, settings: &Settings, specs: &[Spec]) -> Vec<Job> {
    let own = [Spec::default()];
    let specs = if specs.is_empty() { &own[..] } else { specs };
    let mut jobs = Vec::new();
    for &seed in &settings.seeds {
        for &context in &settings.lengths {
            for spec in specs {
                let schedule = Schedule { prefill: context / 2, ..settings.schedule };
                let work = Work::Score { context, samples: settings.samples, schedule };
                jobs.push(common.job(Experiment::Baseline, spec, seed, work));
            }
        }
    }
    jobs
}
