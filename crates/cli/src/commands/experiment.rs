use crate::{
    arguments::{MOST_SAMPLES, MOST_TOKENS, ModelArguments},
    failure::{self, usage},
    format, output, progress, warning,
};
use anyhow::Result;
use clap::{ValueEnum, value_parser};
use serde::de::DeserializeOwned;
use sketchkv_cache::Cap;
use sketchkv_eval::{
    Footprint,
    experiments::{
        AttentionMeasured, Experiment, Generated, Grid, Lab, Outcome, Scope, Scored, Settings, Shard,
        SpeedMeasured, SpeedPoint, TaskMeasured,
    },
    results::{Finished, Results, failures},
    tasks::{Corpus, TaskKind},
};
use std::{ffi::OsString, path::PathBuf, process::ExitCode};

/// Measure caches at length and keep everything in a results file; `sketchkv report` makes a page of it.
///
/// What the results file has already is not measured again: an interrupted experiment goes on with the same command. A
/// cache that fails is kept with its reason and not tried again without --retry-failed; the others finish, and the exit
/// code is 1.
/// Any number of processes may work on one file; over several machines, give each its --shard and merge their files
/// with `sketchkv results merge`.
#[derive(clap::Args)]
#[command(after_help = "\
sketchkv experiment all --quick && sketchkv report
sketchkv experiment compare --model smollm2-135m --budgets 25%,12.5% --samples 8
sketchkv experiment grid --grid my-grid.toml --shard 2/5 --results part2.sqlite")]
pub(crate) struct Arguments {
    /// Which.
    #[arg(value_enum)]
    experiment: Name,
    #[command(flatten)]
    model: ModelArguments,
    /// A look at everything in minutes.
    #[arg(long)]
    quick: bool,
    /// Where results are kept.
    #[arg(long, value_name = "FILE", default_value = "results.sqlite")]
    results: PathBuf,
    /// A file or folder of text (.txt, .jsonl, .parquet); may be given several times [default: prose and passages
    /// that come again, built in].
    #[arg(long, value_name = "FILE")]
    text: Vec<PathBuf>,
    /// A cache to measure instead of the experiment's own; may be given several times.
    #[arg(long, value_name = "SPEC")]
    kv: Vec<String>,
    /// A grid of specs in TOML, for `grid`.
    #[arg(long, value_name = "FILE")]
    grid: Option<PathBuf>,
    /// Run only part I of N, and leave the others to other machines.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Measure cells again that failed before.
    #[arg(long)]
    retry_failed: bool,
    #[command(flatten)]
    amount: Amount,
    /// Print one JSON document: the cells that came to an end, and warnings.
    #[arg(long)]
    json: bool,
}

/// How much is measured; what is not given comes from the standard or the quick settings.
#[derive(clap::Args)]
#[command(next_help_heading = "Amount")]
struct Amount {
    /// Tokens of a scored document.
    #[arg(long, short, value_parser = value_parser!(u64).range(4..=MOST_TOKENS))]
    context: Option<u64>,
    /// Tokens taken in before scoring begins [default: half the context].
    #[arg(long, value_parser = value_parser!(u64).range(1..=MOST_TOKENS))]
    prefill: Option<u64>,
    /// Documents of a scored cell, and tasks of each kind.
    #[arg(long, alias = "documents", value_parser = value_parser!(u64).range(1..=MOST_SAMPLES))]
    samples: Option<u64>,
    /// Tokens of a step while scoring; 1 is true streaming.
    #[arg(long, value_parser = value_parser!(u64).range(1..=512))]
    stream: Option<u64>,
    /// Lengths of `baseline` and of `tasks`, ascending.
    #[arg(long, value_delimiter = ',', value_parser = value_parser!(u64).range(4..=MOST_TOKENS))]
    lengths: Vec<u64>,
    /// Depths of `speed`, ascending.
    #[arg(long, value_delimiter = ',', value_parser = value_parser!(u64).range(1..=MOST_TOKENS))]
    depths: Vec<u64>,
    /// Budgets of `compare`, `tasks` and `pareto`: shares, tokens or bytes.
    #[arg(long, value_delimiter = ',')]
    budgets: Vec<String>,
    /// Tasks of `tasks`.
    #[arg(long, value_delimiter = ',')]
    tasks: Vec<String>,
    /// Compositions that `pareto` tries first.
    #[arg(long, value_parser = value_parser!(u32).range(1..=10_000))]
    candidates: Option<u32>,
    /// Seeds of caches and tasks.
    #[arg(long, value_delimiter = ',')]
    seeds: Vec<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// Every experiment below.
    All,
    /// The full cache over lengths.
    Baseline,
    /// Sketch width × depth × strategy × top-k, or any grid from a file.
    Grid,
    /// All families at equal bytes.
    Compare,
    /// Attention of every layer and head beside the exact one.
    Attention,
    /// Needles, RULER-style tasks, retrieval, copying and arithmetic.
    Tasks,
    /// Decode speed against depth, and time to the first token.
    Speed,
    /// A search over compositions for the frontier of bytes against KL.
    Pareto,
}

impl Name {
    fn experiments(self) -> Vec<Experiment> {
        match self {
            Name::All => Experiment::ALL.to_vec(),
            Name::Baseline => vec![Experiment::Baseline],
            Name::Grid => vec![Experiment::Grid],
            Name::Compare => vec![Experiment::Compare],
            Name::Attention => vec![Experiment::Attention],
            Name::Tasks => vec![Experiment::Tasks],
            Name::Speed => vec![Experiment::Speed],
            Name::Pareto => vec![Experiment::Pareto],
        }
    }
}

impl Arguments {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let grid = self.grid.as_deref().map(Grid::read).transpose()?;
        let corpus = Corpus::of_files(&self.text)?;
        let command = command_line();
        let mut results = Results::open(&self.results, &command)?;
        let model = self.model.load(false)?;
        let settings = self.settings(&model)?;
        let scope = Scope { shard: self.shard, retry_failed: self.retry_failed };
        let mut lab = Lab::new(&model, &corpus, settings, &mut results, scope)?;
        let mut all = Outcome::default();
        for experiment in self.experiment.experiments() {
            let outcome = progress::shown(|progress| lab.run(experiment, grid.as_ref(), progress))?;
            if !self.json {
                show(experiment, &outcome)?;
            }
            all.extend(outcome);
        }
        let warnings = all.warnings();
        if self.json {
            output::json(&serde_json::json!({"cells": all.cells, "warnings": warnings}))?;
        }
        warning::show(&warnings);
        Ok(failure::of_caches(&failures(&all.cells)))
    }

    fn settings(&self, model: &sketchkv_model::Model) -> Result<Settings> {
        let config = model.config();
        let mut settings = if self.quick { Settings::quick(config) } else { Settings::standard(config) };
        let amount = &self.amount;
        for (name, list) in [
            ("--context", amount.context.as_slice()),
            ("--lengths", &amount.lengths),
            ("--depths", &amount.depths),
        ] {
            if let Some(long) = list.iter().find(|&&tokens| tokens > config.context as u64) {
                return Err(usage(format!(
                    "{} was made for a context of {} tokens, not the {long} of {name}: ask for less",
                    config.name, config.context
                )));
            }
        }
        let given = |list: &[u64], own: &mut Vec<usize>| {
            if !list.is_empty() {
                *own = list.iter().map(|&value| value as usize).collect();
                own.sort_unstable();
                own.dedup();
            }
        };
        if let Some(context) = amount.context {
            settings.context = context as usize;
            settings.schedule.prefill = settings.context / 2;
        }
        if let Some(prefill) = amount.prefill {
            settings.schedule.prefill = prefill as usize;
        }
        if let Some(samples) = amount.samples {
            settings.samples = samples as usize;
            settings.tasks.samples = samples as usize;
        }
        if let Some(stream) = amount.stream {
            settings.schedule.stream = stream as usize;
        }
        given(&amount.lengths, &mut settings.lengths);
        given(&amount.lengths, &mut settings.tasks.needle_lengths);
        given(&amount.lengths, &mut settings.tasks.lengths);
        given(&amount.depths, &mut settings.depths);
        if !amount.budgets.is_empty() {
            for budget in &amount.budgets {
                match budget.trim_start_matches('@').parse::<Cap>()? {
                    Cap::None => {
                        return Err(usage("--budgets takes shares, tokens or bytes, as in 25%,64MiB"));
                    }
                    _ => continue,
                }
            }
            settings.budgets = amount.budgets.iter().map(|b| b.trim_start_matches('@').to_owned()).collect();
            settings.tasks.budgets.clone_from(&settings.budgets);
        }
        if !amount.tasks.is_empty() {
            let find = |name: &String| {
                let names: Vec<&str> = TaskKind::ALL.iter().map(|kind| kind.name()).collect();
                TaskKind::find(name).ok_or_else(|| {
                    usage(format!("no task is called {name:?}; there are {}", names.join(", ")))
                })
            };
            settings.tasks.kinds = amount.tasks.iter().map(find).collect::<Result<_>>()?;
        }
        if let Some(candidates) = amount.candidates {
            settings.candidates = candidates as usize;
        }
        if !amount.seeds.is_empty() {
            settings.seeds.clone_from(&amount.seeds);
        }
        settings.specs.clone_from(&self.kv);
        let task_lengths = settings.tasks.needle_lengths.iter().chain(&settings.tasks.lengths);
        let longest = settings.lengths.iter().chain(task_lengths).chain([&settings.context]).max();
        if longest.is_some_and(|&longest| longest > config.context) {
            return Err(usage(format!(
                "{} was made for a context of {} tokens: ask for less",
                config.name, config.context
            )));
        }
        if settings.schedule.prefill >= settings.context {
            return Err(usage(format!(
                "a prefill of {} leaves nothing to score of {} tokens",
                settings.schedule.prefill, settings.context
            )));
        }
        Ok(settings)
    }
}

/// The command as typed, to be stored with every cell.
fn command_line() -> String {
    let quoted = |argument: OsString| {
        let argument = argument.to_string_lossy().into_owned();
        let plain =
            !argument.is_empty() && argument.chars().all(|c| c.is_alphanumeric() || "-_./=,:+@%".contains(c));
        if plain { argument } else { format::in_quotes(&argument) }
    };
    let arguments: Vec<String> = std::env::args_os().skip(1).map(quoted).collect();
    format!("sketchkv {}", arguments.join(" "))
}

fn show(experiment: Experiment, outcome: &Outcome) -> Result<()> {
    output::line(format!("\n{}", experiment.name()))?;
    let header =
        ["spec", "context", "KV", "of full", "asked", "decode tok/s", "ppl", "change", "mean KL", "same top"];
    table(outcome, "score", &header, 1, scored_row)?;
    let header =
        ["spec", "KV", "of full", "asked", "KL", "cosine", "top 64", "peak shift", "lost", "worst layer"];
    table(outcome, "attention", &header, 1, attention_row)?;
    let header = ["spec", "depth", "KV", "of full", "asked", "decode tok/s", "p95 ms", "first token ms"];
    table(outcome, "speed", &header, 1, speed_rows)?;
    let header = ["spec", "KV", "of full", "asked", "BLEU to uncompressed", "BLEU to text", "identical"];
    table(outcome, "generate", &header, 1, generated_row)?;
    let header = ["task", "question", "spec", "length", "depth", "KV", "of full", "asked", "score"];
    table(outcome, "task", &header, 3, task_row)?;
    let (name, failed) = (experiment.name(), outcome.failed());
    let Outcome { measured, known, taken, .. } = outcome;
    let elsewhere = if *taken > 0 { format!(", {taken} in another process") } else { String::new() };
    eprintln!("{name}: {measured} measured, {known} known before, {failed} failed{elsewhere}");
    Ok(())
}

/// The cells of one kind of work, if there are any; columns from `numbers` on hold numbers.
fn table<T: DeserializeOwned>(
    outcome: &Outcome,
    work: &str,
    header: &[&str],
    numbers: usize,
    rows: fn(&Finished, &T) -> Vec<Vec<String>>,
) -> Result<()> {
    let measured = outcome.cells.iter().filter_map(|cell| Some((cell, cell.measured_as::<T>(work)?)));
    let mut rows = measured.flat_map(|(cell, measured)| rows(cell, &measured)).peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let right: Vec<usize> = (numbers..header.len()).collect();
    output::line(output::table(header, &right, rows))
}

/// What a cache took and what it was asked to take.
fn taken(footprint: &Footprint) -> [String; 3] {
    [
        format::bytes(footprint.kv_bytes as u64),
        format!("{:.1}%", footprint.kv_percent),
        format::asked(footprint),
    ]
}

fn scored_row(cell: &Finished, Scored { row, .. }: &Scored) -> Vec<Vec<String>> {
    let [kv, percent, asked] = taken(&row.footprint);
    vec![vec![
        row.spec.clone(),
        cell.cell.context.to_string(),
        kv,
        percent,
        asked,
        format::rate(row.decode_tps),
        format!("{:.2}", row.ppl),
        format::change(row.ppl_change),
        format::divergence(row.kl_mean),
        format::share(row.same_top),
    ]]
}

fn attention_row(cell: &Finished, measured: &AttentionMeasured) -> Vec<Vec<String>> {
    let AttentionMeasured { mean, layers, footprint, .. } = measured;
    let [kv, percent, asked] = taken(footprint);
    let worst = layers.iter().enumerate().max_by(|(_, a), (_, b)| a.kl.total_cmp(&b.kl));
    vec![vec![
        cell.cell.spec.clone(),
        kv,
        percent,
        asked,
        format::divergence(mean.kl),
        format!("{:.4}", mean.cosine),
        format::share(mean.topk_recall),
        format!("{:.1}", mean.peak_shift),
        format::share(mean.lost_mass),
        worst.map(|(layer, of)| format!("{layer}: {}", format::divergence(of.kl))).unwrap_or_default(),
    ]]
}

fn speed_rows(cell: &Finished, measured: &SpeedMeasured) -> Vec<Vec<String>> {
    let row = |point: &SpeedPoint| {
        let [kv, percent, asked] = taken(&point.footprint);
        vec![
            cell.cell.spec.clone(),
            point.depth.to_string(),
            kv,
            percent,
            asked,
            format::rate(point.latency.tokens_per_second),
            format!("{:.1}", point.latency.p95_ms),
            format!("{:.0}", point.first_token_ms),
        ]
    };
    measured.points.iter().map(row).collect()
}

fn generated_row(cell: &Finished, measured: &Generated) -> Vec<Vec<String>> {
    let [kv, percent, asked] = taken(&measured.footprint);
    vec![vec![
        cell.cell.spec.clone(),
        kv,
        percent,
        asked,
        format!("{:.1}", measured.bleu_uncompressed),
        format!("{:.1}", measured.bleu_reference),
        format!("{} of {}", measured.identical, measured.samples),
    ]]
}

fn task_row(cell: &Finished, measured: &TaskMeasured) -> Vec<Vec<String>> {
    let [kv, percent, asked] = taken(&measured.footprint);
    let question = if cell.setting("awareness") == "aware" { "known before" } else { "after the text" };
    vec![vec![
        cell.setting("task"),
        question.to_owned(),
        cell.cell.spec.clone(),
        cell.cell.context.to_string(),
        cell.setting("depth"),
        kv,
        percent,
        asked,
        format!("{:.2}", measured.score),
    ]]
}
