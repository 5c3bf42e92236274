use crate::{arguments::ModelArguments, format, output, progress};
use anyhow::Result;
use clap::value_parser;
use sketchkv_eval::{Distortion, Recall, StoreDistortion, distortion, tasks::Corpus};
use std::path::PathBuf;

/// Measure what stores lose of vectors, apart from any attention: Gaussian ones, and a model's keys and values.
///
/// Errors are mean squared errors as shares of the mean square, beside 4^-bits, which no code of independent Gaussian
/// values can go below; those of the model's keys and values beside what no code can go below of Gaussian values with the
/// variances that every channel has in every page of 64 tokens. A second table shows what the tail `countsketch` gives back of vectors, as more of them share it.
#[derive(clap::Args)]
#[command(after_help = "\
sketchkv distortion
sketchkv distortion --model smollm2-135m --text my.txt --tokens 2048")]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// A file or folder of text (.txt, .jsonl, .parquet); may be given several times [default: a novel, built in].
    #[arg(long, value_name = "FILE")]
    text: Vec<PathBuf>,
    /// Tokens whose keys and values are stored [default: the model's context, 1024 at most].
    #[arg(long, value_parser = value_parser!(u64).range(256..))]
    tokens: Option<u64>,
    /// Seed of the Gaussian vectors and of the sketch.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

const TOKENS: usize = 1024;

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let model = self.model.load(false)?;
        let count = self.tokens.map_or(TOKENS.min(model.config().context), |tokens| tokens as usize);
        let sample = Corpus::of_files(&self.text)?.sample(&model, count, 1)?;
        let document = &sample.documents[0];
        let distortion = progress::shown(|progress| distortion(&model, document, self.seed, progress))?;
        if self.json { output::json(&distortion) } else { show(&distortion) }
    }
}

fn show(distortion: &Distortion) -> Result<()> {
    let store = |row: &StoreDistortion| {
        vec![
            row.store.clone(),
            format!("{:.2}", row.bits),
            format::divergence(row.least),
            format::divergence(row.gaussian),
            format!("{:.1}", row.gaussian / row.least),
            format!("{:.2}", row.model_bits),
            format::divergence(row.keys),
            format!("{:.1}", row.keys / row.least_keys),
            format::divergence(row.values),
            format!("{:.1}", row.values / row.least_values),
        ]
    };
    let header =
        ["store", "bits a value", "4^-bits", "Gaussian", "ratio", "bits", "keys", "ratio", "values", "ratio"];
    let table = output::table(&header, &[1, 2, 3, 4, 5, 6, 7, 8, 9], distortion.stores.iter().map(store));
    output::line(table)?;
    let recall = |row: &Recall| {
        vec![row.vectors.to_string(), format!("{:.3}", row.cosine), format!("{:.3}", row.theory)]
    };
    let (width, depth) = distortion.countsketch.first().map_or((0, 0), |row| (row.width, row.depth));
    output::line(format!("\ncountsketch(width={width},depth={depth}): cosine of what comes back"))?;
    let header = ["vectors", "cosine", "1/sqrt(1 + vectors/width)"];
    let table = output::table(&header, &[0, 1, 2], distortion.countsketch.iter().map(recall));
    output::line(table)?;
    eprintln!("{}, keys and values of {} tokens", distortion.model, distortion.tokens);
    Ok(())
}
