use crate::{
    arguments::{self, MOST_SAMPLES, MOST_TOKENS, ModelArguments},
    failure::usage,
    format, output, progress, warning,
};
use anyhow::Result;
use clap::value_parser;
use sketchkv_cache::{Cap, Spec};
use sketchkv_eval::{Advice, AdviseOptions, advise, budget_bytes, tasks::Corpus};
use std::path::PathBuf;

/// Recommend a cache for a model, a budget and a context, by measuring a few.
///
/// Every cache that is named works with the very spec that is printed. What fails, or does not fit, is listed with its
/// reason.
#[derive(clap::Args)]
#[command(after_help = "\
sketchkv advise --model smollm2-135m --budget 64MiB --context 8192
sketchkv advise --budget 25%")]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// What the cache may take: bytes (64MiB), a share of the full cache (25%), or as many bytes as an f16 cache of
    /// so many tokens (512tok).
    #[arg(long, visible_alias = "memory", value_name = "CAP")]
    budget: String,
    /// Fewest tokens a second that it is to generate on this machine.
    #[arg(long, value_name = "TOKENS", value_parser = arguments::limit)]
    min_speed: Option<f64>,
    /// Most loss: mean KL divergence from the uncompressed cache, in nats.
    #[arg(long, value_name = "NATS", value_parser = arguments::limit)]
    max_kl: Option<f64>,
    /// Tokens of context [default: the model's].
    #[arg(long, short, value_parser = value_parser!(u64).range(64..=MOST_TOKENS))]
    context: Option<u64>,
    /// A file or folder of text like the one the model will work on; may be given several times.
    #[arg(long, value_name = "FILE")]
    text: Vec<PathBuf>,
    /// Documents measured; more tell closer candidates apart.
    #[arg(long, alias = "documents", default_value_t = 2, value_parser = value_parser!(u64).range(1..=MOST_SAMPLES))]
    samples: u64,
    /// Seed of the caches.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let cap: Cap = self.budget.trim_start_matches('@').parse()?;
        let model = self.model.load(false)?;
        let limit = model.config().context;
        let context = self.context.map_or(limit, |context| context as usize);
        if context > limit && !model.config().is_rotated() {
            return Err(usage(format!(
                "{} has no positions beyond {limit} tokens: ask for a shorter context",
                model.config().name
            )));
        }
        let budget = budget_bytes(cap, &model.cache_shape(), context)
            .ok_or_else(|| usage("give a budget, as in --budget 64MiB"))?;
        let options = AdviseOptions {
            budget,
            context,
            samples: self.samples as usize,
            seed: self.seed,
            min_speed: self.min_speed,
            max_kl: self.max_kl,
        };
        let corpus = Corpus::of_files(&self.text)?;
        let advice = progress::shown(|progress| advise(&model, &corpus, &options, progress))?;
        warning::show(&advice.warnings);
        if self.json {
            output::json(&advice)
        } else {
            show(&advice, &self.model.model.to_string(), self.context)
        }
    }
}

fn show(advice: &Advice, model: &str, context: Option<u64>) -> Result<()> {
    let context = context.map_or(String::new(), |context| format!(" -c {context}"));
    let spec: Spec = advice.spec.parse()?;
    let auto: Spec = format!("auto{}", spec.cap).parse()?;
    let spec = if auto == spec { &auto } else { &spec };
    output::line(format!(
        "sketchkv run -m {model}{context} --kv {}\n",
        format::in_quotes(&arguments::written(spec))
    ))?;
    for reason in &advice.reasons {
        output::line(format!("- {reason}"))?;
    }
    let (kv, speed) = (
        format!("KV of {} tokens", format::count(advice.context as u64)),
        format!("decode tok/s at {}", format::count(advice.measured_context as u64)),
    );
    let header = ["spec", &kv, "mean KL", "ppl change", "same top", &speed];
    let rows = advice.candidates.iter().map(|candidate| {
        vec![
            candidate.spec.clone(),
            format::bytes(candidate.bytes as u64),
            format::divergence(candidate.row.kl_mean),
            format::change(candidate.row.ppl_change),
            format::share(candidate.row.same_top),
            format::rate(candidate.row.decode_tps),
        ]
    });
    output::line(format!("\n{}", output::table(&header, &[1, 2, 3, 4, 5], rows)))?;
    if !advice.rejected.is_empty() {
        output::line("\nNot to be used here:")?;
    }
    for failure in &advice.rejected {
        output::line(format!("- {}: {}", failure.spec, failure.error))?;
    }
    Ok(())
}
