use super::{
    Experiment, Settings,
    job::{Common, Job, Work},
};
use sketchkv_cache::{Cache, Spec};
use sketchkv_model::Model;

/// Caches without a cap, which stand in every comparison.
pub(super) const CONTROLS: [&str; 4] = ["full", "full+q8", "full+q4h", "full+k=kivi4+v=q4"];

/// Families, each run at every budget. `window` and `random` are the controls that evict.
const FAMILIES: [&str; 22] = [
    "window",
    "random",
    "h2o(decay=1)",
    "h2o",
    "tova",
    "snapkv",
    "keydiff",
    "knorm",
    "expected",
    "hashevict",
    "cms",
    "countsketch",
    "race",
    "h2o+buckets",
    "h2o+race",
    "h2o+countsketch",
    "h2o+merge",
    "h2o+k=kivi4+v=q4",
    "tova+k=kivi4+v=q4",
    "topk",
    "aggregate",
    "auto",
];

/// Caches that keep every token and read some.
const SPARSE: [&str; 3] = ["topk", "full+topk(rest=pages)", "full+quest"];

/// The specs that fit this model, each once; what a build of the cache does not know is left out.
pub(super) fn fitting(model: &Model, specs: impl IntoIterator<Item = String>) -> Vec<Spec> {
    let fits = |text: String| {
        let spec: Spec = text.parse().ok()?;
        Cache::new(model.cache_shape(), &spec, 0).ok()?;
        Some(spec)
    };
    distinct(specs.into_iter().filter_map(fits))
}

/// The specs, each once. A preset may stand for what is there already: then that goes by its name, too.
pub(crate) fn distinct(specs: impl IntoIterator<Item = Spec>) -> Vec<Spec> {
    let mut all: Vec<Spec> = Vec::new();
    for spec in specs {
        match all.iter_mut().find(|other| **other == spec) {
            Some(known) => known.preset = known.preset.or(spec.preset),
            None => all.push(spec),
        }
    }
    all
}

/// All families at equal bytes: divergence and speed on text, and BLEU of continuations.
pub(super) fn jobs(common: &Common<'_>, settings: &Settings, specs: &[Spec], model: &Model) -> Vec<Job> {
    let specs = if specs.is_empty() {
        let capped = settings.budgets.iter().flat_map(|cap| FAMILIES.map(|family| format!("{family}@{cap}")));
        fitting(model, CONTROLS.into_iter().chain(SPARSE).map(str::to_owned).chain(capped))
    } else {
        specs.to_vec()
    };
    let &Settings { context, samples, schedule, .. } = settings;
    let mut jobs = Vec::new();
    for &seed in &settings.seeds {
        for spec in &specs {
            let work = Work::Score { context, samples, schedule };
            jobs.push(common.job(Experiment::Compare, spec, seed, work));
        }
        for spec in &specs {
            let work = Work::Generate { prompt: schedule.prefill, samples: samples.max(2), tokens: 32 };
            jobs.push(common.job(Experiment::Compare, spec, seed, work));
        }
    }
    jobs
}
