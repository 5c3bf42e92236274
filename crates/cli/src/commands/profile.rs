use crate::{arguments::ModelArguments, format, output, progress};
use anyhow::{Context, Result, bail};
use clap::value_parser;
use serde_json::{Value, json};
use sketchkv_cache::{Scorer, Sensitivity};
use sketchkv_engine::{Losses, Profile};
use sketchkv_eval::{
    Additivity, HeadLosses, measure_head_losses, measure_losses, tasks::Corpus, train_scorer,
};
use sketchkv_model::Model;
use std::path::PathBuf;

/// Measure a model once, for better caches and for `explain`: which tokens it comes back to, which heads it can spare, and what
/// caps cost it.
///
/// First what `train-scorer` learns; then what each KV head loses by itself, by fewer tokens and by fewer bits, on one document of
/// the first two texts; then the loss of `auto` at caps from 50 % down to 3 % of an f16 cache, on the first tokens of each text,
/// which nothing is learned from. It is some kilobytes, lies beside the model and is used from then on.
#[derive(clap::Args)]
#[command(after_help = "\
sketchkv profile --model my.gguf --text my.txt
sketchkv profile --model qwen2.5-coder-0.5b --text novel.txt --text code.txt --samples 12")]
pub(crate) struct Profiling {
    #[command(flatten)]
    arguments: Arguments,
    /// Tokens of a document that losses are measured on.
    #[arg(long, default_value_t = 2048, value_name = "TOKENS", value_parser = value_parser!(u32).range(512..))]
    measured: u32,
    /// Keep what was learned before, and measure what caps cost alone; what heads are worth, too, where that was not measured.
    #[arg(long, conflicts_with_all = ["samples", "context"])]
    losses_only: bool,
}

/// Learn from a text which tokens a model comes back to: a better start for caches that evict (`foreseen`, `auto`).
///
/// What is learned is some kilobytes: for each KV head attention by distance, and factors of a token's key and value that
/// say how much more it will draw than others of its age (ridge regression in closed form). It lies beside the model, in
/// place of a profile that was there, and is used from then on. The first tokens of each text, as many as a document has,
/// are left out: `compare` measures on those.
#[derive(clap::Args)]
#[command(after_help = "\
sketchkv train-scorer --model my.gguf --text my.txt
sketchkv train-scorer --model qwen2.5-coder-0.5b --text novel.txt --text code.txt --samples 12")]
pub(crate) struct Training {
    #[command(flatten)]
    arguments: Arguments,
}

#[derive(clap::Args)]
struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// A file or folder of text (.txt, .jsonl, .parquet); may be given several times [default: a novel and a work of
    /// reference, built in].
    #[arg(long, value_name = "FILE")]
    text: Vec<PathBuf>,
    /// Documents to learn from, in turn from each text.
    #[arg(long, alias = "documents", default_value_t = 12, value_parser = value_parser!(u16).range(1..=4096))]
    samples: u16,
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
/// Texts that heads are measured on.
const SENSED: usize = 2;

impl Profiling {
    pub(crate) fn run(self) -> Result<()> {
        self.arguments.run(Some(self.measured as usize), self.losses_only)
    }
}

impl Training {
    pub(crate) fn run(self) -> Result<()> {
        self.arguments.run(None, false)
    }
}

impl Arguments {
    /// Learns, unless what the model has is to be kept, and measures on documents of so many tokens.
    fn run(self, measured: Option<usize>, keeps: bool) -> Result<()> {
        let path = self.path()?;
        output::check(&path)?;
        let mut model = self.model.load(false)?;
        let corpus = Corpus::of_files(&self.text)?;
        let (scorer, learned) = if keeps {
            let kept = model.cache_shape().scorer;
            (kept.context("nothing was learned of this model before: leave --losses-only out")?, json!(null))
        } else {
            self.learn(&model, &corpus)?
        };
        let known = model.cache_shape().scorer.and_then(|known| Some(known.sensitivities()?.to_vec()));
        let measured_heads = match measured {
            Some(tokens) if !keeps || known.is_none() => Some(self.head_losses(&model, &corpus, tokens)?),
            _ => None,
        };
        let sensitivities = measured_heads.as_ref().map(|heads| heads.sensitivities.clone()).or(known);
        let scorer = match sensitivities {
            Some(all) => scorer.with_sensitivities(&model.cache_shape(), all).map_err(anyhow::Error::msg)?,
            None => scorer,
        };
        model.set_scorer(scorer.clone());
        let losses = measured.map(|tokens| self.losses(&model, &corpus, tokens)).transpose()?;
        let bytes = Profile { scorer: scorer.clone(), losses: losses.clone() }.to_bytes();
        output::file(&path, &bytes)?;
        let shown = path.display().to_string();
        if self.json {
            return output::json(&json!({
                "model": model.config().name, "learned": learned, "heads": heads(&scorer, measured_heads.as_ref()),
                "losses": losses, "path": shown, "bytes": bytes.len(),
            }));
        }
        if let Some(heads) = measured_heads {
            output::line(head_table(&heads))?;
        }
        if let Some(losses) = losses {
            output::line(table(&losses))?;
        }
        output::line(format!("{shown}: {}", format::bytes(bytes.len() as u64)))
    }

    /// A scorer, and what it was learned from.
    fn learn(&self, model: &Model, corpus: &Corpus) -> Result<(Scorer, Value)> {
        let context = self.context.map_or(CONTEXT, |context| context as usize).min(model.config().context);
        let sample = corpus.sample_from(model, context, self.samples.into(), context)?;
        let scorer = progress::shown(|progress| train_scorer(model, &sample.documents, progress));
        let learned = json!({ "text": sample.name, "documents": sample.documents.len(), "context": context });
        Ok((scorer?, learned))
    }

    /// Where to write.
    fn path(&self) -> Result<PathBuf> {
        if let Some(path) = &self.output {
            return Ok(path.clone());
        }
        match self.model.source()?.path() {
            Some(path) => Ok(Profile::path_beside(path)),
            None => {
                bail!("the model in the program has no place of its own: say where to write with -o FILE")
            }
        }
    }

    /// On a document of the first texts, behind the tokens that losses are measured on.
    fn head_losses(&self, model: &Model, corpus: &Corpus, tokens: usize) -> Result<HeadLosses> {
        let tokens = tokens.min(model.config().context);
        let texts = corpus.texts().count().min(SENSED);
        let text = corpus.sample_from(model, tokens, texts, CONTEXT.min(model.config().context))?;
        Ok(progress::shown(|progress| measure_head_losses(model, &text.documents, progress))?)
    }

    /// On the first document of each text.
    fn losses(&self, model: &Model, corpus: &Corpus, tokens: usize) -> Result<Losses> {
        let text = corpus.sample(model, tokens.min(model.config().context), corpus.texts().count())?;
        let losses = progress::shown(|progress| measure_losses(model, &text, progress));
        Ok(losses?)
    }
}

/// What each head is worth, `[layer][kv_head]`, and how far that adds up where it was measured now; nothing without.
fn heads(scorer: &Scorer, measured: Option<&HeadLosses>) -> Value {
    let of_layer = |heads: &Vec<Sensitivity>| -> Vec<Value> {
        heads.iter().map(|head| json!({ "eviction": head.eviction, "coding": head.coding })).collect()
    };
    let sensitivities: Option<Vec<_>> = scorer.sensitivities().map(|all| all.iter().map(of_layer).collect());
    let added = measured.map(|heads| json!({ "eviction": heads.eviction, "coding": heads.coding }));
    json!({ "sensitivities": sensitivities, "added": added })
}

fn head_table(heads: &HeadLosses) -> String {
    let header = ["of every KV head", "sum of each alone", "all together"];
    let row = |what: &str, loss: Additivity| {
        vec![what.to_owned(), format::divergence(loss.alone), format::divergence(loss.together)]
    };
    let rows =
        [row("an eighth of the tokens stays", heads.eviction), row("2 bits a number stay", heads.coding)];
    output::table(&header, &[1, 2], rows)
}

fn table(losses: &Losses) -> String {
    let header = ["auto at", "mean KL", "of the worst document"];
    let rows = losses.points.iter().map(|loss| {
        vec![
            format!("{:.1} %", 100.0 * loss.share),
            format::divergence(loss.kl),
            format::divergence(loss.worst),
        ]
    });
    output::table(&header, &[0, 1, 2], rows)
}
