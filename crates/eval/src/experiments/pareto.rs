use super::{
    Experiment, Settings,
    compare::{CONTROLS, fitting},
    job::{Common, Job, Scored, Work},
};
use crate::{Rng, results::Finished};
use sketchkv_model::Model;

const KEEPS: [&str; 6] = ["window", "h2o(recent=64)", "tova(recent=32)", "expected", "snapkv", "cms"];
const STORES: [&str; 5] = ["", "+q8", "+k=kivi4+v=q4", "+graded", "+tq4"];
const TAILS: [&str; 3] = ["", "+buckets(n=32)", "+race"];
const BUDGETS: [&str; 4] = ["", "+pyramid(beta=0.75)", "+ada", "+critical"];

/// Every composition of the lists above at every cap: two documents each, as many as the settings allow, chosen by the
/// seed.
pub(super) fn first_round(common: &Common<'_>, settings: &Settings, model: &Model) -> Vec<Job> {
    let mut specs = Vec::new();
    for cap in settings.budgets.iter().map(String::as_str).chain(["6.25%"]) {
        for keep in KEEPS {
            for store in STORES {
                for tail in TAILS {
                    specs.extend(BUDGETS.map(|budget| format!("{keep}{store}{tail}{budget}@{cap}")));
                }
            }
        }
    }
    let mut jobs = Vec::new();
    for &seed in &settings.seeds {
        let mut specs = specs.clone();
        Rng::for_part(seed, "pareto").shuffle(&mut specs);
        // Fitting specs are found one by one, so that a build that lacks a method still tries as many.
        let mut chosen = fitting(model, CONTROLS.map(str::to_owned));
        for spec in specs {
            if chosen.len() >= CONTROLS.len() + settings.candidates {
                break;
            }
            // What a preset stands for may be among the controls already.
            let new: Vec<_> =
                fitting(model, [spec]).into_iter().filter(|spec| !chosen.contains(spec)).collect();
            chosen.extend(new);
        }
        jobs.extend(
            chosen.iter().map(|spec| {
                common.job(Experiment::Pareto, spec, seed, work(settings, settings.samples.min(2)))
            }),
        );
    }
    jobs
}

/// The first round's frontier and what lies within twice its KL, on all documents.
pub(super) fn second_round(common: &Common<'_>, settings: &Settings, first: &[Finished]) -> Vec<Job> {
    if settings.samples <= 2 {
        return Vec::new();
    }
    // By the bytes taken; what missed its cap is no candidate.
    let point = |cell: &Finished| {
        let Scored { row, .. } = cell.measured_as("score")?;
        (!row.footprint.missed()).then_some((row.footprint.kv_bytes, row.kl_mean))
    };
    let points: Vec<(usize, f64)> = first.iter().filter_map(point).collect();
    let near = |cell: &&Finished| {
        point(cell).is_some_and(|(bytes, kl)| {
            points
                .iter()
                .all(|&(other_bytes, other_kl)| other_bytes > bytes || kl <= 2.0 * other_kl.max(1e-6))
        })
    };
    first
        .iter()
        .filter(near)
        .filter_map(|cell| {
            let spec = cell.cell.spec.parse().ok()?;
            let work = work(settings, settings.samples);
            Some(common.job(Experiment::Pareto, &spec, cell.cell.seed, work))
        })
        .collect()
}

fn work(settings: &Settings, samples: usize) -> Work {
    Work::Score { context: settings.context, samples, schedule: settings.schedule }
}
