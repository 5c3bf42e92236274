use crate::{arguments::ModelArguments, comparison_text, failure::usage, format, output, progress};
use anyhow::Result;
use clap::{ValueEnum, value_parser};
use sketchkv_eval::{
    experiments::{Experiment, Grid, Lab, Outcome, Settings, Shard},
    results::{Finished, Results},
    tasks::TaskKind,
};
use std::path::PathBuf;

/// Measure caches at length and keep everything in a results file; `sketchkv report` makes a page of it.
///
/// What the results file has already is not measured again: an interrupted experiment goes on with the same command.
/// Any number of processes may work on one file; over several machines, give each its --shard and merge their files
/// with `sketchkv results merge`.
#[derive(clap::Args)]
#[command(after_help = "\
sketchkv experiment all --quick && sketchkv report --out report.html
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
    #[command(flatten)]
    amount: Amount,
    /// Print the finished cells as JSON.
    #[arg(long)]
    json: bool,
}

/// How much is measured; what is not given comes from the standard or the quick settings.
#[derive(clap::Args)]
#[command(next_help_heading = "Amount")]
struct Amount {
    /// Tokens of a scored document.
    #[arg(long, short, value_parser = value_parser!(u64).range(4..))]
    context: Option<u64>,
    /// Tokens taken in before scoring begins [default: half the context].
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    prefill: Option<u64>,
    /// Documents of a scored cell, and tasks of each kind.
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    samples: Option<u64>,
    /// Tokens of a step while scoring; 1 is true streaming.
    #[arg(long, value_parser = value_parser!(u64).range(1..=512))]
    stream: Option<u64>,
    /// Lengths of `baseline` and of `tasks`, ascending.
    #[arg(long, value_delimiter = ',', value_parser = value_parser!(u64).range(4..))]
    lengths: Vec<u64>,
    /// Depths of `speed`, ascending.
    #[arg(long, value_delimiter = ',', value_parser = value_parser!(u64).range(1..))]
    depths: Vec<u64>,
    /// Budgets of `compare`, `tasks` and `pareto`: shares, tokens or bytes.
    #[arg(long, value_delimiter = ',')]
    budgets: Vec<String>,
    /// Tasks of `tasks`.
    #[arg(long, value_delimiter = ',')]
    tasks: Vec<String>,
    /// Compositions that `pareto` tries first.
    #[arg(long)]
    candidates: Option<usize>,
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
    pub(crate) fn run(self) -> Result<()> {
        let grid = self.grid.as_deref().map(Grid::read).transpose()?;
        let corpus = comparison_text::corpus(&self.text)?;
        let command = command_line();
        let mut results = Results::open(&self.results, &command)?;
        let model = self.model.load(false)?;
        let settings = self.settings(&model)?;
        let mut lab = Lab::new(&model, &corpus, settings, &mut results, self.shard)?;
        let mut cells = Vec::new();
        for experiment in self.experiment.experiments() {
            let bar = progress::bar();
            let outcome = lab.run(experiment, grid.as_ref(), &mut progress::shown_on(&bar));
            bar.finish_and_clear();
            let outcome = outcome?;
            if self.json {
                cells.extend(outcome.cells);
            } else {
                show(experiment, &outcome)?;
            }
        }
        if self.json { output::json(&cells) } else { Ok(()) }
    }

    fn settings(&self, model: &sketchkv_model::Model) -> Result<Settings> {
        let config = model.config();
        let mut settings = if self.quick { Settings::quick(config) } else { Settings::standard(config) };
        let amount = &self.amount;
        let given = |list: &[u64], own: &mut Vec<usize>| {
            if !list.is_empty() {
                *own = list.iter().map(|&value| value as usize).collect();
                own.sort_unstable();
            }
        };
        if let Some(context) = amount.context {
            settings.context = context as usize;
            settings.prefill = settings.context / 2;
        }
        if let Some(prefill) = amount.prefill {
            settings.prefill = prefill as usize;
        }
        if let Some(samples) = amount.samples {
            settings.samples = samples as usize;
            settings.task_samples = samples as usize;
        }
        if let Some(stream) = amount.stream {
            settings.stream = stream as usize;
        }
        given(&amount.lengths, &mut settings.lengths);
        given(&amount.lengths, &mut settings.needle_lengths);
        given(&amount.lengths, &mut settings.task_lengths);
        given(&amount.depths, &mut settings.depths);
        if !amount.budgets.is_empty() {
            settings.budgets = amount.budgets.iter().map(|b| b.trim_start_matches('@').to_owned()).collect();
            settings.task_budgets.clone_from(&settings.budgets);
        }
        if !amount.tasks.is_empty() {
            let find = |name: &String| {
                let names: Vec<&str> = TaskKind::ALL.iter().map(|kind| kind.name()).collect();
                TaskKind::find(name)
                    .ok_or_else(|| usage(format!("no task is called {name}; there are {}", names.join(", "))))
            };
            settings.tasks = amount.tasks.iter().map(find).collect::<Result<_>>()?;
        }
        if let Some(candidates) = amount.candidates {
            settings.candidates = candidates;
        }
        if !amount.seeds.is_empty() {
            settings.seeds.clone_from(&amount.seeds);
        }
        settings.specs.clone_from(&self.kv);
        let task_lengths = settings.needle_lengths.iter().chain(&settings.task_lengths);
        let longest = settings.lengths.iter().chain(task_lengths).chain([&settings.context]).max();
        if longest.is_some_and(|&longest| longest > config.context) {
            return Err(usage(format!(
                "{} was made for a context of {} tokens: ask for less",
                config.name, config.context
            )));
        }
        if settings.prefill >= settings.context {
            return Err(usage(format!(
                "a prefill of {} leaves nothing to score of {} tokens",
                settings.prefill, settings.context
            )));
        }
        Ok(settings)
    }
}

/// The command as typed, to be stored with every cell.
fn command_line() -> String {
    let quoted = |argument: String| {
        let plain =
            !argument.is_empty() && argument.chars().all(|c| c.is_alphanumeric() || "-_./=,:+@%".contains(c));
        if plain { argument } else { format!("'{}'", argument.replace('\'', r"'\''")) }
    };
    let arguments: Vec<String> = std::env::args().skip(1).map(quoted).collect();
    format!("sketchkv {}", arguments.join(" "))
}

fn show(experiment: Experiment, outcome: &Outcome) -> Result<()> {
    let name = experiment.name();
    output::line(format!("\n{name}"))?;
    let of_work = |work: &str| -> Vec<&Finished> {
        outcome
            .cells
            .iter()
            .filter(|cell| cell.cell.settings.get("work").is_some_and(|w| w == work))
            .collect()
    };
    let scored = of_work("score");
    if !scored.is_empty() {
        let header =
            ["spec", "context", "KV", "of full", "decode tok/s", "ppl", "change", "mean KL", "same top"];
        output::line(
            output::table(&header, &[1, 2, 3, 4, 5, 6, 7, 8], scored.into_iter().map(scored_row)).to_string(),
        )?;
    }
    let attention = of_work("attention");
    if !attention.is_empty() {
        let header = ["spec", "KV", "of full", "KL", "cosine", "top 64", "peak shift", "lost", "worst layer"];
        let rows = attention.into_iter().map(attention_row);
        output::line(output::table(&header, &[1, 2, 3, 4, 5, 6, 7, 8], rows).to_string())?;
    }
    let speed = of_work("speed");
    if !speed.is_empty() {
        let header = ["spec", "depth", "KV", "decode tok/s", "p95 ms", "first token ms"];
        let rows = speed.into_iter().flat_map(speed_rows);
        output::line(output::table(&header, &[1, 2, 3, 4, 5], rows).to_string())?;
    }
    let generated = of_work("generate");
    if !generated.is_empty() {
        let header = ["spec", "BLEU to uncompressed", "BLEU to text", "identical"];
        output::line(
            output::table(&header, &[1, 2, 3], generated.into_iter().map(generated_row)).to_string(),
        )?;
    }
    let tasks = of_work("task");
    if !tasks.is_empty() {
        let header = ["task", "length", "depth", "question", "spec", "score"];
        output::line(output::table(&header, &[1, 2, 5], tasks.into_iter().map(task_row)).to_string())?;
    }
    for (spec, reason) in &outcome.failed {
        eprintln!("{spec}: {reason}");
    }
    let Outcome { measured, known, taken, failed, .. } = outcome;
    let elsewhere = if *taken > 0 { format!(", {taken} in another process") } else { String::new() };
    eprintln!("{name}: {measured} measured, {known} known before, {} failed{elsewhere}", failed.len());
    Ok(())
}

fn number(cell: &Finished, pointer: &str) -> f64 {
    cell.measured.pointer(pointer).and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN)
}

fn scored_row(cell: &Finished) -> Vec<String> {
    vec![
        cell.cell.spec.clone(),
        cell.cell.context.to_string(),
        format::bytes(number(cell, "/kv_bytes") as u64),
        format!("{:.1}%", number(cell, "/kv_percent")),
        format::rate(number(cell, "/decode_tps")),
        format!("{:.2}", number(cell, "/ppl")),
        format!("{:+.1}%", 100.0 * number(cell, "/ppl_change")),
        format::divergence(number(cell, "/kl_mean")),
        format!("{:.1}%", 100.0 * number(cell, "/same_top")),
    ]
}

fn attention_row(cell: &Finished) -> Vec<String> {
    let count = cell.measured.get("layers").and_then(|layers| layers.as_array()).map_or(0, Vec::len);
    let kl = |layer: &usize| number(cell, &format!("/layers/{layer}/kl"));
    let worst = (0..count).max_by(|a, b| kl(a).total_cmp(&kl(b))).unwrap_or(0);
    vec![
        cell.cell.spec.clone(),
        format::bytes(number(cell, "/kv_bytes") as u64),
        format!("{:.1}%", number(cell, "/kv_percent")),
        format::divergence(number(cell, "/mean/kl")),
        format!("{:.4}", number(cell, "/mean/cosine")),
        format!("{:.1}%", 100.0 * number(cell, "/mean/topk_recall")),
        format!("{:.1}", number(cell, "/mean/peak_shift")),
        format!("{:.1}%", 100.0 * number(cell, "/mean/lost_mass")),
        format!("{worst}: {}", format::divergence(kl(&worst))),
    ]
}

fn speed_rows(cell: &Finished) -> Vec<Vec<String>> {
    let points = cell.measured.get("points").and_then(|points| points.as_array()).map_or(0, Vec::len);
    (0..points)
        .map(|i| {
            vec![
                cell.cell.spec.clone(),
                number(cell, &format!("/points/{i}/depth")).to_string(),
                format::bytes(number(cell, &format!("/points/{i}/kv_bytes")) as u64),
                format::rate(number(cell, &format!("/points/{i}/latency/tokens_per_second"))),
                format!("{:.1}", number(cell, &format!("/points/{i}/latency/p95_ms"))),
                format!("{:.0}", number(cell, &format!("/points/{i}/first_token_ms"))),
            ]
        })
        .collect()
}

fn generated_row(cell: &Finished) -> Vec<String> {
    vec![
        cell.cell.spec.clone(),
        format!("{:.1}", number(cell, "/bleu_uncompressed")),
        format!("{:.1}", number(cell, "/bleu_reference")),
        format!("{} of {}", number(cell, "/identical"), number(cell, "/samples")),
    ]
}

fn task_row(cell: &Finished) -> Vec<String> {
    let setting = |name: &str| cell.cell.settings.get(name).cloned().unwrap_or_default();
    vec![
        setting("task").as_str().unwrap_or_default().to_owned(),
        cell.cell.context.to_string(),
        setting("depth").to_string(),
        match setting("awareness").as_str() {
            Some("aware") => "known before".to_owned(),
            _ => "after the text".to_owned(),
        },
        cell.cell.spec.clone(),
        format!("{:.2}", number(cell, "/score")),
    ]
}
