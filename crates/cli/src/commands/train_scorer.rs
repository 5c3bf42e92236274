use crate::{arguments::ModelArguments, format, output, progress};
use anyhow::{Result, bail};
use clap::value_parser;
use serde_json::json;
use sketchkv_engine::{Source, scorers};
use sketchkv_eval::{tasks::Corpus, train_scorer};
use std::path::PathBuf;

/// Learn from a text which tokens a model comes back to: a better start for caches that evict (`foreseen`, `auto`).
///
/// What is learned is some kilobytes: for each KV head attention by distance, and factors of a token's key and value that
/// say how much more it will draw than others of its age (ridge regression in closed form). It lies beside the model and is
/// used from then on. The first tokens of each text, as many as a document has, are left out: `compare` measures on those.
#[derive(clap::Args)]
#[command(after_help = "\
sketchkv train-scorer --model my.gguf --text my.txt
sketchkv train-scorer --model qwen2.5-coder-0.5b --text novel.txt --text code.txt --documents 12")]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// A file or folder of text (.txt, .jsonl, .parquet); may be given several times [default: a novel and a work of
    /// reference, built in].
    #[arg(long, value_name = "FILE")]
    text: Vec<PathBuf>,
    /// Documents to learn from, in turn from each text.
    #[arg(long, default_value_t = 12, value_parser = value_parser!(u16).range(1..=4096))]
    documents: u16,
    /// Tokens of a document [default: the model's context, 4096 at most].
    #[arg(short = 'c', long, value_name = "TOKENS", value_parser = value_parser!(u32).range(1024..))]
    context: Option<u32>,
    /// Write it to this file and leave the model's folder as it is.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

const CONTEXT: usize = 4096;

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let path = match &self.output {
            Some(path) => path.clone(),
            None => match Source::find(&self.model.model)?.path() {
                Some(path) => scorers::path_beside(path),
                None => {
                    bail!("the model in the program has no place of its own: say where to write with -o FILE")
                }
            },
        };
        let model = self.model.load(false)?;
        let context = self.context.map_or(CONTEXT, |context| context as usize).min(model.config().context);
        let corpus = Corpus::of_files(&self.text)?;
        let sample = corpus.sample_from(&model, context, self.documents.into(), context)?;
        let bar = progress::bar();
        let mut shown = progress::shown_on(&bar);
        let scorer = train_scorer(&model, &sample.documents, &mut shown);
        bar.finish_and_clear();
        let bytes = scorer?.to_bytes();
        output::file(&path, &bytes)?;
        let (documents, shown) = (sample.documents.len(), path.display().to_string());
        if self.json {
            return output::json(&json!({
                "model": model.config().name, "text": sample.name, "documents": documents, "context": context,
                "path": shown, "bytes": bytes.len(),
            }));
        }
        let size = format::bytes(bytes.len() as u64);
        output::line(format!(
            "{shown}: {size}, from {documents} documents of {context} tokens of {}",
            sample.name
        ))
    }
}
