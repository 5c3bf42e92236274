//! From a model to a page: every experiment on the embedded model, its results file, and the report in a browser.

#[path = "common/browser.rs"]
mod browser;
mod common;
#[path = "common/pictures.rs"]
mod pictures;

use common::tiny_gpt2;
use pictures::look_at;
use sketchkv_cache::{Cache, CacheShape, Spec};
use sketchkv_eval::{
    Schedule, Silent,
    experiments::{Experiment, Grid, Lab, Scope, Settings, Shard, TaskSettings},
    report::report,
    results::{Finished, Results, State, failures},
    tasks::{Corpus, TaskKind},
};
use sketchkv_model::{Model, WeightFormat};
use std::path::Path;

fn settings(model: &Model) -> Settings {
    Settings {
        context: 160,
        schedule: Schedule { prefill: 80, stream: 1, timed: 4 },
        samples: 2,
        lengths: vec![64, 128],
        depths: vec![64, 128],
        budgets: vec!["50%".into(), "25%".into()],
        tasks: TaskSettings {
            kinds: vec![TaskKind::NiahSingle, TaskKind::Copy],
            needle_lengths: vec![256],
            needle_depths: vec![0.0, 1.0],
            lengths: vec![256],
            samples: 1,
            budgets: vec!["25%".into()],
        },
        candidates: 4,
        specs: Vec::new(),
        ..Settings::quick(model.config())
    }
}

fn corpus() -> Corpus {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/persuasion.txt");
    Corpus::read(&[data]).unwrap().with_repeats()
}

fn run(
    model: &Model,
    settings: Settings,
    file: &Path,
    shard: Option<Shard>,
    experiments: &[Experiment],
) -> (usize, usize) {
    let grid = "[[grid]]\nspec = 'h2o(decay={decay})@{cap}'\nvalues = { decay = [0.9, 0.99], cap = ['50%', '64tok'] }";
    let grid = Grid::parse(grid).unwrap();
    let corpus = corpus();
    let mut results = Results::open(file, "sketchkv experiment all").unwrap();
    let scope = Scope { shard, retry_failed: false };
    let mut lab = Lab::new(model, &corpus, settings, &mut results, scope).unwrap();
    experiments.iter().fold((0, 0), |(measured, known), &experiment| {
        let outcome = lab.run(experiment, Some(&grid), &mut Silent).unwrap();
        assert_eq!(failures(&outcome.cells), [], "{experiment:?}");
        (measured + outcome.measured, known + outcome.known)
    })
}

#[test]
fn everything_is_measured_once_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results.sqlite");
    let model = tiny_gpt2(WeightFormat::Native);
    let (measured, known) = run(&model, settings(&model), &file, None, &Experiment::ALL);
    assert!(measured > 60 && known == 0, "{measured} {known}");
    // The second round of a search may repeat what the first has.
    let again = run(&model, settings(&model), &file, None, &Experiment::ALL);
    assert_eq!(again, (0, measured));

    let cells = Results::open_existing(&file).unwrap().finished().unwrap();
    assert!(cells.iter().all(|cell| cell.state == State::Done && cell.duration_s > 0.0));
    assert_caps(&cells, &model.cache_shape());
    // What was asked for by a preset's name is shown as what it stands for, with the name beside it.
    let named: Spec = "auto@25%".parse().unwrap();
    let mut found =
        cells.iter().filter(|cell| cell.cell.experiment == "compare" && cell.cell.spec == named.to_string());
    assert!(found.clone().count() > 0 && found.all(|cell| cell.cell.name.as_deref() == Some("auto")));
    let page = report(&cells);
    for part in [
        "id=\"frontier\"",
        "<section class=\"card\"><h3>Within 50 % of full",
        "<details class=\"key\" open>",
        "id=\"cost\"",
        "id=\"memory\"",
        "id=\"needles\"",
        "asked to take 25%</th>",
        "id=\"tasks\"",
        "id=\"comparison\"",
        "id=\"generation\"",
        "id=\"grid\"",
        "id=\"baseline\"",
        "id=\"attention\"",
        "<strong>At 50 % of full (",
        "sketchkv experiment all",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("http://") && !page.contains("https://"), "the page loads nothing");
    look_at("pipeline", &page);
}

/// A cell that was run under a share of the bytes took no more than that, unless it is less than the least that such a
/// cache needs, as it may be of so short a document.
fn assert_caps(cells: &[Finished], shape: &CacheShape) {
    let mut capped = 0;
    for cell in cells {
        let number = |name: &str| cell.measured.get(name).and_then(serde_json::Value::as_f64);
        let (Some((body, cap)), Some(bytes), Some(percent)) =
            (cell.cell.spec.rsplit_once('@'), number("kv_bytes"), number("kv_percent"))
        else {
            continue;
        };
        let Some(cap) = cap.strip_suffix('%').and_then(|cap| cap.parse::<f64>().ok()) else { continue };
        let hard: Spec = format!("{body}@{}B", (bytes / percent * cap) as usize).parse().unwrap();
        if Cache::new(shape.clone(), &hard, 0).is_ok() {
            assert!(percent <= cap + 0.01, "{}: {percent}", cell.cell.spec);
            capped += 1;
        }
    }
    assert!(capped > 10, "{capped}");
}

#[test]
fn shards_are_disjoint_and_complete() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_gpt2(WeightFormat::Native);
    let settings = Settings {
        specs: ["full", "window@50%", "window@25%", "random@50%"].map(str::to_owned).to_vec(),
        ..settings(&model)
    };
    let parts: Vec<_> = (1..=2).map(|index| folder.path().join(format!("part{index}.sqlite"))).collect();
    let measured: usize = parts
        .iter()
        .zip(1..)
        .map(|(part, index)| {
            let shard = Some(Shard { index, of: 2 });
            run(&model, settings.clone(), part, shard, &[Experiment::Speed, Experiment::Baseline]).0
        })
        .sum();
    // 4 specs: one cell of speed each, and two lengths of the baseline.
    assert_eq!(measured, 12);
    let mut all = Results::open(&folder.path().join("all.sqlite"), "").unwrap();
    let merged: Vec<_> = parts.iter().map(|part| all.merge(part).unwrap()).collect();
    assert_eq!(
        merged.iter().map(|m| (m.added, m.known)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
        (12, 0)
    );
}
