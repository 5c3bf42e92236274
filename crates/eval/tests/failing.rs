//! A cache that fails: the others finish, and its reason is kept.

mod common;

use common::{Spoiled, spoiled, tiny_gpt2};
use sketchkv_cache::Spec;
use sketchkv_eval::{
    CompareOptions, Comparison, EvalError, Failure, Progress, Schedule, Step,
    bench::{BenchOptions, Listener, Sample, Test, Work, bench},
    compare,
    experiments::{Experiment, Lab, Scope, Settings},
    report::report,
    results::{Results, State, failures},
    tasks::Corpus,
};
use sketchkv_model::WeightFormat;
use std::path::Path;

/// A spec that fails, and some that do not.
const FAILING: &str = "window@1KiB";
const SOUND: [&str; 2] = ["full", "window@64tok"];

fn corpus() -> Corpus {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/persuasion.txt");
    Corpus::read(&[data]).unwrap()
}

fn specs(texts: &[&str]) -> Vec<Spec> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[derive(Default)]
struct Last {
    done: u64,
    total: u64,
}

impl Progress for Last {
    fn step(&mut self, step: Step<'_>) {
        assert!(step.done >= self.done, "progress never goes back");
        (self.done, self.total) = (step.done, step.total);
    }
}

#[test]
fn a_comparison_finishes_the_others() {
    let model = tiny_gpt2(WeightFormat::Native);
    let options = CompareOptions {
        specs: specs(&[SOUND[0], FAILING, SOUND[1]]),
        schedule: Schedule { prefill: 64, stream: 1, timed: 4 },
        seed: 0,
    };
    let text = corpus().sample(&model, 96, 2).unwrap();
    let mut last = Last::default();
    let comparison = compare(&model, &text, &options, &mut last).unwrap();
    let failed: Vec<&Failure> = comparison.failed().collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0].spec, FAILING);
    assert!(failed[0].error.contains("below the minimum of"), "{}", failed[0].error);
    assert!(comparison.rows[1].failure().is_some(), "its place is kept");
    let measured: Vec<&str> = comparison.measured().map(|row| row.spec.as_str()).collect();
    assert_eq!(measured, SOUND);
    let json = serde_json::to_value(&comparison).unwrap();
    assert_eq!(json["rows"][1]["error"], failed[0].error);
    assert!(json["rows"][0].get("error").is_none());
    assert_eq!(serde_json::from_value::<Comparison>(json).unwrap(), comparison);
    assert!(comparison.measured().all(|row| row.kl_mean.is_finite() && row.ppl.is_finite()));
    assert!(last.total > 0 && last.done == last.total, "{} of {}", last.done, last.total);
}

/// A model that position 40 gives a value beyond f16: it is all dimension 0, which the first layer makes about 80,000 of.
fn beyond_f16() -> Spoiled {
    spoiled(&[
        ("transformer.wpe.weight", 40 * 64..40 * 64 + 1, 1e4),
        ("transformer.h.0.ln_1.weight", 0..1, 1.0),
        ("transformer.h.0.attn.c_attn.weight", 128..129, 1e4),
    ])
}

#[test]
fn a_cache_that_fails_on_the_way_does_not_stop_the_others() {
    let checkpoint = beyond_f16();
    let model = checkpoint.load(WeightFormat::F32);
    let options = CompareOptions {
        specs: specs(&["full", "full+f32", "full+q8"]),
        schedule: Schedule { prefill: 16, stream: 1, timed: 4 },
        seed: 0,
    };
    let text = corpus().sample(&model, 60, 1).unwrap();
    let mut last = Last::default();
    let comparison = compare(&model, &text, &options, &mut last).unwrap();
    let failed: Vec<&Failure> = comparison.failed().collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0].spec, "full");
    assert!(failed[0].error.contains("at position 40"), "{}", failed[0].error);
    assert_eq!(
        comparison.measured().map(|row| row.spec.as_str()).collect::<Vec<_>>(),
        ["full+f32", "full+q8"]
    );
    assert_eq!(last.done, last.total);
}

#[test]
fn an_experiment_stores_the_reason_and_tries_again_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_gpt2(WeightFormat::Native);
    let file = folder.path().join("results.sqlite");
    let quick = Settings::quick(model.config());
    let settings = Settings {
        context: 96,
        schedule: Schedule { prefill: 64, stream: 1, timed: 4 },
        samples: 1,
        lengths: vec![96],
        specs: [SOUND[0], FAILING, SOUND[1]].map(str::to_owned).to_vec(),
        ..quick
    };
    let corpus = corpus();
    let run = |retry_failed: bool| {
        let mut results = Results::open(&file, "").unwrap();
        let scope = Scope { shard: None, retry_failed };
        let mut lab = Lab::new(&model, &corpus, settings.clone(), &mut results, scope).unwrap();
        let mut last = Last::default();
        let outcome = lab.run(Experiment::Baseline, None, &mut last).unwrap();
        assert_eq!(last.done, last.total);
        outcome
    };
    let started = || {
        let cells = Results::open_existing(&file).unwrap().finished().unwrap();
        let mut failed = cells.into_iter().filter(|cell| cell.state == State::Failed);
        (failed.next().unwrap(), failed.count())
    };
    let first = run(false);
    assert_eq!((first.measured, first.failed()), (2, 1));
    let (cell, others) = started();
    assert_eq!((cell.cell.spec.as_str(), others), (FAILING, 0));
    assert_eq!(cell.error.as_deref(), Some(failures(&first.cells)[0].error.as_str()));
    let again = run(false);
    assert_eq!((again.measured, again.known, again.failed()), (0, 3, 1));
    let retried = run(true);
    assert_eq!((retried.measured, retried.known, retried.failed()), (0, 2, 1));
    let page = report(&Results::open_existing(&file).unwrap().finished().unwrap());
    assert!(page.contains("Could not be measured") && page.contains("<code>window@1KiB</code>: "), "{page}");
}

#[derive(Default)]
struct Heard(Vec<Failure>);

impl Listener for Heard {
    fn before(&mut self, _: &Test, _: &Spec) -> Result<(), EvalError> {
        Ok(())
    }

    fn after(&mut self, _: &Sample) -> Result<(), EvalError> {
        Ok(())
    }

    fn failed(&mut self, failure: &Failure) -> Result<(), EvalError> {
        self.0.push(failure.clone());
        Ok(())
    }
}

#[test]
fn a_benchmark_goes_on_without_a_refused_cache() {
    let model = tiny_gpt2(WeightFormat::Native);
    let options = BenchOptions {
        specs: specs(&["window@1KiB", "full"]),
        tests: Test::all(&[Work::Prompt(8), Work::Generate { tokens: 2, sequences: 1 }], &[0, 16]),
        repetitions: 1,
        profile: true,
        seed: 0,
    };
    let mut heard = Heard::default();
    let done = bench(&model, &[1, 2, 3], &options, &mut heard).unwrap();
    assert_eq!(done.rows.len(), 4);
    assert!(done.rows.iter().all(|row| row.spec == "full" && row.samples_ts.len() == 1));
    assert_eq!(done.failed, heard.0);
    assert_eq!(done.failed[0].spec, "window@1KiB");
    let only = BenchOptions { specs: specs(&["window@1KiB"]), ..options };
    let refused = bench(&model, &[1, 2, 3], &only, &mut heard).unwrap_err();
    assert!(matches!(refused, EvalError::Cache(_)), "{refused}");
}

/// Of a cache that fails on the way what was measured before stays, the others finish, and nothing that nobody asked for
/// ends it all.
#[test]
fn a_benchmark_goes_on_without_a_cache_that_fails_on_the_way() {
    let checkpoint = beyond_f16();
    let model = checkpoint.load(WeightFormat::F32);
    let of = |asked: &[&str]| {
        let options = BenchOptions {
            specs: specs(asked),
            tests: Test::all(&[Work::Prompt(50)], &[0]),
            repetitions: 1,
            profile: false,
            seed: 0,
        };
        let mut heard = Heard::default();
        let done = bench(&model, &[1, 2, 3], &options, &mut heard).unwrap();
        assert_eq!(done.failed, heard.0);
        done
    };
    let sound = of(&["full+f32", "full+bf16"]);
    assert_eq!((sound.rows.len(), sound.failed.len()), (2, 0));
    let mixed = of(&["full", "full+f32"]);
    assert_eq!(mixed.rows.iter().map(|row| row.spec.as_str()).collect::<Vec<_>>(), ["full+f32"]);
    assert!(
        mixed.failed[0].spec == "full" && mixed.failed[0].error.contains("at position 40"),
        "{:?}",
        mixed.failed
    );
}
