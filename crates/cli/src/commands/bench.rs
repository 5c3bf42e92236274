use crate::{
    arguments::{self, MOST_TOKENS, ModelArguments},
    comparison_text,
    failure::{self, usage},
    format, output, progress, warning,
};
use anyhow::Result;
use clap::{ValueEnum, value_parser};
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::{Value, json};
use sketchkv_cache::Spec;
use sketchkv_eval::{
    EvalError, Failure, Footprint,
    bench::{Bench, BenchOptions, BenchRow, Listener, Sample, Test, Work, bench},
    metrics::median,
};
use sketchkv_model::Model;
use std::{
    io::{self, BufRead},
    process::ExitCode,
};

/// Measure speed, in the manner of llama-bench: prompts (pp) and generation (tg) at depths, cache by cache.
///
/// A cache is filled to each depth once; every repetition starts from a copy of it, and the caches take turns, so that
/// their ratios hold on a noisy machine too. Tokens per second are mean ± standard deviation over the repetitions. A cache
/// that fails is left out; the others finish, and the exit code is 1.
#[derive(clap::Args)]
#[command(after_help = "\
sketchkv bench --model smollm2-135m -t 2 --kv full --kv full+q8 --kv 'full+topk'
sketchkv bench --model smollm2-135m -p 0 -n 32 -d 0,4096 -r 3 --kv full+q8 --profile
sketchkv bench --model smollm2-135m -p 0 -n 32 -d 0 --sequences 1,8 --kv full+q8
sketchkv bench --model smollm2-135m -p 0 -n 128 --beyond 100000 --kv 'window@1024tok'")]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// A cache to measure; may be given several times.
    #[arg(long, value_name = "SPEC", default_values = ["full", "full+q8"])]
    kv: Vec<String>,
    /// Tokens of a prompt; several with commas, 0 for none.
    #[arg(long, short, value_name = "TOKENS", value_delimiter = ',', value_parser = arguments::tokens, default_values_t = [512])]
    prompt: Vec<usize>,
    /// Tokens to generate; several with commas, 0 for none.
    #[arg(long, short = 'n', value_name = "TOKENS", value_delimiter = ',', value_parser = arguments::tokens, default_values_t = [128])]
    generate: Vec<usize>,
    /// Sequences that generate together, a cache each, their tokens added up; several with commas. --profile is of one alone.
    #[arg(long, value_name = "SEQUENCES", value_delimiter = ',', value_parser = value_parser!(u16).range(1..=256), default_values_t = [1])]
    sequences: Vec<u16>,
    /// Tokens in the cache before; several with commas [default: 0,1024,4096,8000].
    #[arg(long, short, value_name = "TOKENS", value_delimiter = ',', value_parser = arguments::tokens)]
    depth: Vec<usize>,
    /// Samples of each test.
    #[arg(long, short, default_value_t = 5, value_parser = value_parser!(u16).range(1..))]
    repetitions: u16,
    /// Also stream so many tokens past the model's context, measuring after 1,000, 10,000, … of them. The caches must
    /// be capped.
    #[arg(long, alias = "stream", value_name = "TOKENS", value_parser = value_parser!(u64).range(1..=MOST_TOKENS))]
    beyond: Option<u64>,
    /// Show where the time of a generated token goes, and what it reads and a prompt multiplies beside what memory and
    /// processor give at best, measured in turn.
    #[arg(long)]
    profile: bool,
    /// Seed of the caches.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How to print the results.
    #[arg(long, alias = "output", short_alias = 'o', value_enum, default_value_t = Form::Md)]
    format: Form,
    /// Print one JSON document, as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Wait for a line on standard input before each measurement and print a line of JSON after it, so that another
    /// program can measure in turn.
    #[arg(long, conflicts_with_all = ["format", "json", "profile"])]
    paced: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A table in Markdown.
    Md,
    /// Comma-separated values.
    Csv,
    /// One JSON document.
    Json,
    /// A JSON object a line.
    Jsonl,
}

const DEPTHS: [usize; 4] = [0, 1024, 4096, 8000];
const FIRST_STREAMED: usize = 1000;

/// The results and what the machine gives.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    bench: &'a Bench,
    /// Bytes per second that the threads together read from memory, the median of the rows; measured with --profile where
    /// tokens are generated.
    bandwidth_bytes_per_s: Option<f64>,
    /// 8-bit multiply-adds per second that the threads together reach at best, the median of the rows; measured with
    /// --profile where there are prompts.
    peak_multiply_adds_per_s: Option<f64>,
}

impl<'a> Document<'a> {
    fn new(bench: &'a Bench) -> Self {
        let median = |of: fn(&BenchRow) -> Option<f64>| median(bench.rows.iter().filter_map(of).collect());
        Document {
            bench,
            bandwidth_bytes_per_s: median(|row| row.profile.as_ref()?.bandwidth_bytes_per_s),
            peak_multiply_adds_per_s: median(|row| row.peak_multiply_adds_per_s),
        }
    }
}

impl Arguments {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let specs = self.kv.iter().map(|text| arguments::spec(text)).collect::<Result<Vec<Spec>>>()?;
        if let Some(open) = specs.iter().find(|spec| self.beyond.is_some() && !spec.evicts()) {
            return Err(usage(format!(
                "`{open}` grows with every token: --beyond needs a cap, such as `window@1024tok`"
            )));
        }
        let model = self.model.load(self.beyond.is_some())?;
        let tests = self.tests(&model)?;
        let longest = tests.iter().map(Test::length).max().unwrap_or(0);
        let tokens = comparison_text::tokens(&model, longest)?;
        let options = BenchOptions {
            specs,
            tests,
            repetitions: self.repetitions.into(),
            profile: self.profile,
            seed: self.seed,
        };
        if self.paced {
            bench(&model, &tokens, &options, &mut Paced)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut watching =
            Watching { bar: progress::bar(), tests: options.tests.iter().map(Test::to_string).collect() };
        let samples = options.tests.len() * options.specs.len() * options.repetitions;
        watching.bar.set_length(samples as u64);
        let results = bench(&model, &tokens, &options, &mut watching);
        watching.bar.finish_and_clear();
        let results = results?;
        warning::show(&results.warnings);
        let document = Document::new(&results);
        match if self.json { Form::Json } else { self.format } {
            Form::Md => {
                output::line(table(&results))?;
                if document.peak_multiply_adds_per_s.is_some() {
                    output::line(format!("\n{}", products_table(&results)))?;
                }
                if document.bandwidth_bytes_per_s.is_some() {
                    output::line(format!("\n{}", parts_table(&results)))?;
                }
                eprintln!("{}", footnote(&document));
            }
            Form::Csv => csv(&results)?,
            Form::Json => output::json(&document)?,
            Form::Jsonl => jsonl(&document)?,
        }
        Ok(failure::of_caches(&results.failed))
    }

    /// The tests that fit into the context; those asked for that do not are named on standard error.
    fn tests(&self, model: &Model) -> Result<Vec<Test>> {
        let prompts = self.prompt.iter().filter(|&&n| n > 0).map(|&n| Work::Prompt(n));
        let generated = self.generate.iter().filter(|&&n| n > 0).flat_map(|&tokens| {
            self.sequences
                .iter()
                .map(move |&sequences| Work::Generate { tokens, sequences: sequences.into() })
        });
        let works: Vec<Work> = prompts.chain(generated).collect();
        let mut depths = match (self.depth.is_empty(), self.beyond) {
            (false, _) => self.depth.clone(),
            (true, None) => DEPTHS.to_vec(),
            (true, Some(_)) => vec![],
        };
        if let Some(tokens) = self.beyond.map(|tokens| tokens as usize) {
            let decades = std::iter::successors(Some(FIRST_STREAMED), |depth| depth.checked_mul(10));
            depths.extend(decades.take_while(|&depth| depth < tokens));
            depths.push(tokens);
        }
        let context = if self.beyond.is_some() { usize::MAX } else { model.config().context };
        let (fit, long): (Vec<Test>, Vec<Test>) =
            Test::all(&works, &depths).into_iter().partition(|test| test.length() <= context);
        let names = long.iter().map(Test::to_string).collect::<Vec<_>>().join(", ");
        if fit.is_empty() {
            return Err(usage(match works.is_empty() {
                true => "there is nothing to measure: give a number of tokens with -p or -n".to_owned(),
                false => {
                    format!("{} has a context of {context} tokens, too few for {names}", model.config().name)
                }
            }));
        }
        if !long.is_empty() {
            eprintln!("left out, longer than the context of {context} tokens: {names}");
        }
        Ok(fit)
    }
}

/// Shows on standard error how far it is.
struct Watching {
    bar: ProgressBar,
    /// The tests that were asked for; filling a cache in between is none of them.
    tests: Vec<String>,
}

impl Listener for Watching {
    fn before(&mut self, test: &Test, spec: &Spec) -> Result<(), EvalError> {
        self.bar.set_message(format!("{test}  {spec}"));
        Ok(())
    }

    fn after(&mut self, sample: &Sample) -> Result<(), EvalError> {
        if self.tests.contains(&sample.test) {
            self.bar.inc(1);
        }
        Ok(())
    }

    fn failed(&mut self, _: &Failure) -> Result<(), EvalError> {
        Ok(())
    }
}

/// Goes on when told to.
struct Paced;

impl Listener for Paced {
    fn before(&mut self, _: &Test, _: &Spec) -> Result<(), EvalError> {
        let mut line = String::new();
        match io::stdin().lock().read_line(&mut line) {
            Ok(0) => Err(EvalError::Input("standard input ended before the last measurement".into())),
            Ok(_) => Ok(()),
            Err(error) => Err(EvalError::Input(format!("cannot read standard input: {error}"))),
        }
    }

    fn after(&mut self, sample: &Sample) -> Result<(), EvalError> {
        let line = serde_json::to_string(sample).map_err(io::Error::other);
        let written = line.and_then(|line| {
            use io::Write;
            let mut out = io::stdout().lock();
            writeln!(out, "{line}")?;
            out.flush()
        });
        written.map_err(|source| EvalError::Export { source })
    }

    /// Whoever sets the pace counts on every measurement.
    fn failed(&mut self, failure: &Failure) -> Result<(), EvalError> {
        Err(EvalError::Unanswered(format!("`{}`: {}", failure.spec, failure.error)))
    }
}

fn table(bench: &Bench) -> String {
    let header = ["test", "spec", "KV", "of full", "asked", "tok/s"];
    let rows = bench.rows.iter().map(|row| {
        vec![
            row.test.clone(),
            row.spec.clone(),
            format::bytes(row.footprint.kv_bytes as u64),
            format!("{:.1}%", row.footprint.kv_percent),
            format::asked(&row.footprint),
            format!("{:.2} ± {:.2}", row.avg_ts, row.stddev_ts),
        ]
    });
    output::table(&header, &[2, 3, 4, 5], rows)
}

/// The products of prompts beside what the processor gives.
fn products_table(bench: &Bench) -> String {
    let rows = bench.rows.iter().filter_map(|row| {
        let (rate, peak) = (row.multiply_adds_per_s?, row.peak_multiply_adds_per_s?);
        Some(vec![
            row.test.clone(),
            row.spec.clone(),
            format!("{:.0}", rate / 1e9),
            format!("{:.0}", peak / 1e9),
            format!("{:.0}%", 100.0 * rate / peak),
        ])
    });
    let header = ["test", "spec", "10⁹ multiply-adds/s", "at best", "of that"];
    output::table(&header, &[2, 3, 4], rows)
}

/// Where the time goes, beside what memory gives.
fn parts_table(bench: &Bench) -> String {
    let header = ["test", "spec", "part", "µs a token", "share", "reads", "GB/s", "memory", "of that"];
    let rows = bench.rows.iter().filter_map(|row| Some((row, row.profile.as_ref()?)));
    let rows = rows.flat_map(|(row, profile)| {
        profile.parts.iter().map(|part| {
            let gb = |rate: f64| format!("{:.1}", rate / 1e9);
            let beside = part.bytes_per_s.zip(profile.bandwidth_bytes_per_s);
            vec![
                row.test.clone(),
                row.spec.clone(),
                part.part.clone(),
                format!("{:.1}", part.us),
                format!("{:.1}%", 100.0 * part.share),
                part.bytes.map(format::bytes).unwrap_or_default(),
                part.bytes_per_s.map(gb).unwrap_or_default(),
                beside.map(|(_, bandwidth)| gb(bandwidth)).unwrap_or_default(),
                beside
                    .map(|(rate, bandwidth)| format!("{:.0}%", 100.0 * rate / bandwidth))
                    .unwrap_or_default(),
            ]
        })
    });
    output::table(&header, &[3, 4, 5, 6, 7, 8], rows)
}

fn footnote(document: &Document<'_>) -> String {
    let Bench { model, weight_bytes, threads, seed, machine, .. } = document.bench;
    let memory = document
        .bandwidth_bytes_per_s
        .map_or(String::new(), |rate| format!(" | memory reads at {:.1} GB/s", rate / 1e9));
    format!(
        "{model}, weights {} | {threads} threads, seed {seed}{memory} | {}",
        format::bytes(*weight_bytes as u64),
        machine.cpu
    )
}

fn csv(bench: &Bench) -> Result<()> {
    output::line(
        "test,n_prompt,n_gen,n_depth,spec,avg_ts,stddev_ts,kv_bytes,kv_percent,asked_percent,threads,model,n_seq",
    )?;
    for row in &bench.rows {
        let BenchRow { n_prompt, n_gen, n_seq, n_depth, avg_ts, stddev_ts, footprint, .. } = row;
        let [test, spec, model] = [&row.test, &row.spec, &bench.model].map(|text| format::csv_field(text));
        let Footprint { kv_bytes, kv_percent, asked_percent, .. } = footprint;
        let asked = asked_percent.map(|asked| asked.to_string()).unwrap_or_default();
        output::line(format!(
            "{test},{n_prompt},{n_gen},{n_depth},{spec},{avg_ts},{stddev_ts},{kv_bytes},{kv_percent},{asked},{},{model},{n_seq}",
            bench.threads
        ))?;
    }
    Ok(())
}

/// A row a line, each with what the document says once.
fn jsonl(document: &Document<'_>) -> Result<()> {
    let Bench { model, weight_bytes, threads, seed, machine, rows, .. } = document.bench;
    let common = json!({
        "model": model,
        "weight_bytes": weight_bytes,
        "threads": threads,
        "seed": seed,
        "machine": machine,
        "bandwidth_bytes_per_s": document.bandwidth_bytes_per_s,
        "peak_multiply_adds_per_s": document.peak_multiply_adds_per_s,
    });
    for row in rows {
        let (mut line, mut row) = (common.clone(), serde_json::to_value(row)?);
        if let (Value::Object(line), Value::Object(row)) = (&mut line, &mut row) {
            line.append(row);
        }
        output::line(line.to_string())?;
    }
    Ok(())
}
