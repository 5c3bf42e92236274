use super::{
    Experiment, Settings,
    job::{Common, Job, Work},
};
use sketchkv_cache::Spec;

/// The full cache over lengths; every second half of a length is scored.
pub(super) fn jobs(common: &Common<'_>, settings: &Settings, specs: &[Spec]) -> Vec<Job> {
    let own = [Spec::default()];
    let specs = if specs.is_empty() { &own[..] } else { specs };
    let mut jobs = Vec::new();
    for &seed in &settings.seeds {
        for &context in &settings.lengths {
            for spec in specs {
                let work = Work::Score {
                    context,
                    samples: settings.samples,
                    prefill: context / 2,
                    stream: settings.stream,
                    timed: settings.timed,
                };
                jobs.push(common.job(Experiment::Baseline, spec, seed, work));
            }
        }
    }
    jobs
}
