use crate::{
    arguments::{self, MOST_SAMPLES, MOST_TOKENS, ModelArguments, called},
    failure::{self, usage},
    format, output, progress, warning,
};
use anyhow::Result;
use clap::value_parser;
use sketchkv_cache::Spec;
use sketchkv_eval::{
    CompareOptions, Comparison, DEFAULT_SPECS, Entry, Failure, Row, Schedule, TIMED_STEPS, compare,
    tasks::Corpus,
};
use std::{path::PathBuf, process::ExitCode};

/// Run caches side by side on the same text: bytes, speed, and what is lost against the uncompressed cache.
///
/// Every document is taken in up to a point and streamed token by token from there; only the streamed tokens are
/// scored, so that the cap of every row binds. KL is the mean divergence of the next-token distribution from that of
/// an uncompressed f32 cache. A cache that fails is a row that says so; the others finish, and the exit code is 1.
#[derive(clap::Args)]
#[command(after_help = "\
sketchkv compare --quick
sketchkv compare --model smollm2-135m --context 4096 --kv full+q8 --kv 'window@25%' --kv 'h2o@25%'
sketchkv compare --text my.txt --text more.jsonl --json > results.json")]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Few and short documents: under a minute on the built-in model, some minutes on a larger one.
    #[arg(long)]
    quick: bool,
    /// A file or folder of text (.txt, .jsonl, .parquet); may be given several times [default: prose and passages
    /// that come again, built in].
    #[arg(long, value_name = "FILE")]
    text: Vec<PathBuf>,
    /// A cache to compare; may be given several times [default: the controls and the best of each kind].
    #[arg(long, value_name = "SPEC")]
    kv: Vec<String>,
    /// Tokens of a document [default: the model's context, 2048 at most; 1024 with --quick].
    #[arg(long, short, value_parser = value_parser!(u64).range(4..))]
    context: Option<u64>,
    /// Number of documents [default: 16; with --quick 4, of a larger model 2].
    #[arg(long, alias = "documents", value_parser = value_parser!(u64).range(1..=MOST_SAMPLES))]
    samples: Option<u64>,
    /// Tokens of a document taken in before the first is scored [default: half the document].
    #[arg(long, value_parser = value_parser!(u64).range(1..=MOST_TOKENS))]
    prefill: Option<u64>,
    /// Tokens of each step after that. More is faster, and a little kinder to caches that evict.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u64).range(1..=512))]
    stream: u64,
    /// Seed of the caches and of the bootstrap.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Longest default document: beyond it a comparison of a dozen caches takes minutes.
const LONGEST: usize = 2048;
const QUICK_CONTEXT: usize = 1024;
const DOCUMENTS: usize = 16;
const QUICK_DOCUMENTS: usize = 4;
/// Bytes of weights from which a model is a larger one, and the documents it can do in some minutes.
const LARGER: usize = 32 << 20;
const QUICK_DOCUMENTS_LARGER: usize = 2;

impl Arguments {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let specs = self.specs()?;
        let model = self.model.load(false)?;
        let limit = model.config().context;
        let context = match self.context {
            Some(asked) if asked > limit as u64 => {
                return Err(usage(format!(
                    "{} was made for a context of {limit} tokens, not {asked}: ask for less",
                    model.config().name
                )));
            }
            Some(asked) => asked as usize,
            None => limit.min(if self.quick { QUICK_CONTEXT } else { LONGEST }),
        };
        let documents = match self.samples {
            Some(asked) => asked as usize,
            None if !self.quick => DOCUMENTS,
            None if model.weight_bytes() < LARGER => QUICK_DOCUMENTS,
            None => QUICK_DOCUMENTS_LARGER,
        };
        let text = Corpus::of_files(&self.text)?.sample(&model, context, documents)?;
        let options = CompareOptions {
            specs,
            schedule: Schedule {
                prefill: self.prefill.map_or(context / 2, |tokens| tokens as usize),
                stream: self.stream as usize,
                timed: TIMED_STEPS,
            },
            seed: self.seed,
        };
        let comparison = progress::shown(|progress| compare(&model, &text, &options, progress))?;
        warning::show(&comparison.warnings);
        if self.json {
            output::json(&comparison)?;
        } else {
            output::line(table(&comparison))?;
            eprintln!("{}", footnote(&comparison));
        }
        Ok(failure::of_caches(comparison.failed()))
    }

    fn specs(&self) -> Result<Vec<Spec>> {
        let own: Vec<&str> = self.kv.iter().map(String::as_str).collect();
        let texts = if own.is_empty() { &DEFAULT_SPECS[..] } else { &own };
        texts.iter().map(|text| arguments::spec(text)).collect()
    }
}

const HEADER: [&str; 9] =
    ["spec", "KV", "of full", "asked", "decode tok/s", "ppl", "change", "mean KL", "same top"];

fn table(comparison: &Comparison) -> String {
    let rows = comparison.rows.iter().map(|entry| match entry {
        Entry::Measured(row) => cells(row),
        Entry::Failed(failure) => failed_cells(failure),
    });
    output::table(&HEADER, &[1, 2, 3, 4, 5, 6, 7, 8], rows)
}

fn cells(row: &Row) -> Vec<String> {
    vec![
        called(row.name.as_deref(), &row.spec),
        format::bytes(row.footprint.kv_bytes as u64),
        format!("{:.1}%", row.footprint.kv_percent),
        format::asked(&row.footprint),
        format::rate(row.decode_tps),
        format!("{:.2}", row.ppl),
        format::change(row.ppl_change),
        format::divergence(row.kl_mean),
        format::share(row.same_top),
    ]
}

/// The reason, which is long, stands on standard error.
fn failed_cells(failure: &Failure) -> Vec<String> {
    let mut cells = vec![called(failure.name.as_deref(), &failure.spec), "failed".to_owned()];
    cells.resize(HEADER.len(), "-".to_owned());
    cells
}

fn footnote(comparison: &Comparison) -> String {
    let Comparison { model, text, context, scored_tokens, seed, threads, machine, .. } = comparison;
    format!(
        "{model}, {text}: {} documents of {context} tokens, {} scored from token {} on | reference {}, ppl {:.2} | \
         seed {seed}, {threads} threads, {}",
        comparison.documents,
        format::count(*scored_tokens as u64),
        comparison.scored_from,
        comparison.reference,
        comparison.reference_ppl,
        machine.cpu
    )
}
