use crate::{
    arguments::{self, ModelName},
    config, format, output, warning,
};
use anyhow::Result;
use clap::value_parser;
use serde_json::json;
use sketchkv_cache::{Cache, Forecast, Spec};
use sketchkv_engine::{ExpectedLoss, Losses};
use sketchkv_model::LoadOptions;

/// Say what a cache means on a model before anything runs: how many tokens it keeps, in how many bits, in how many bytes, and
/// what that is expected to cost.
///
/// Tokens, bits and bytes are counted, as if all heads of a layer had equal parts. The loss is from the model's profile: of the
/// automatic cache under caps in bytes. Of others, and on your text, `compare` and `advise` measure it.
#[derive(clap::Args)]
#[command(after_help = "\
sketchkv explain 64MiB --model qwen2.5-coder-0.5b
sketchkv explain best-quality@25% --model my.gguf -c 32768")]
pub(crate) struct Arguments {
    /// The cache: a spec, a preset, or a number of bytes.
    #[arg(value_name = "SPEC")]
    kv: String,
    /// A name from `sketchkv models`, a GGUF file, or a Hugging Face folder.
    #[arg(long, short, default_value_t = config::usual_model())]
    model: ModelName,
    /// Tokens up to which to look [default: the model's context].
    #[arg(long, short, value_parser = value_parser!(u32).range(1..))]
    context: Option<u32>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Tokens of the first row; each further one has twice as many.
const FIRST: usize = 1024;

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let spec: Spec = self.kv.parse()?;
        let source = self.model.source()?;
        let model = arguments::load(&source, &LoadOptions::default())?;
        let config = model.config();
        let cache = Cache::new(model.cache_shape(), &spec, 0)?;
        let losses = source.profile(&model)?.and_then(|profile| profile.losses);
        let expected = |tokens| losses.as_ref()?.expected(&cache, tokens);
        let context = self.context.map_or(config.context, |context| context as usize);
        let doubled = std::iter::successors(Some(FIRST), |tokens| tokens.checked_mul(2));
        let lengths = doubled.take_while(|&tokens| tokens < context).chain([context]);
        let rows: Vec<Forecast> = lengths.map(|tokens| cache.forecast(tokens)).collect();
        let full = |row: &Forecast| cache.shape().f16_bytes(row.tokens);
        let missed = |row: &Forecast| {
            let asked = cache.asked_bytes(row.tokens)?;
            (asked < cache.floor_bytes()).then_some(row.tokens)
        };
        let below = rows.iter().filter_map(missed).max();
        let floor = format::bytes(cache.floor_bytes() as u64);
        let warnings: Vec<String> = below
            .map(|tokens| {
                format!(
                    "`{spec}` asks for less than its floor of {floor} up to some {} tokens",
                    format::count(tokens as u64)
                )
            })
            .into_iter()
            .collect();
        warning::show(&warnings);
        if self.json {
            let row = |row: &Forecast| {
                let expected = expected(row.tokens);
                json!({
                    "tokens": row.tokens, "kept": row.kept, "exact": row.exact, "key_bits": row.key_bits,
                    "value_bits": row.value_bits, "kv_bytes": row.bytes,
                    "kv_percent": 100.0 * row.bytes as f64 / full(row) as f64,
                    "expected_kl": expected.map(|loss| loss.kl),
                    "expected_kl_worst": expected.map(|loss| loss.worst),
                    "expected_kl_bound": expected.map(|loss| loss.bound.word()),
                })
            };
            return output::json(&json!({
                "model": config.name, "spec": spec.to_string(), "floor_bytes": cache.floor_bytes(),
                "rows": rows.iter().map(row).collect::<Vec<_>>(), "warnings": warnings,
            }));
        }
        output::line(output::page(&format!("{spec} on {}: at least {floor}", config.name)) + "\n")?;
        let row = |row: &Forecast| {
            vec![
                format::count(row.tokens as u64),
                format::count(row.kept.round() as u64),
                format::count((row.tokens as f64 - row.kept).round().max(0.0) as u64),
                format::count(row.exact.round() as u64),
                format!("{:.1} / {:.1}", row.key_bits, row.value_bits),
                format::bytes(row.bytes as u64),
                format!("{:.1} %", 100.0 * row.bytes as f64 / full(row) as f64),
                expected(row.tokens).map_or("-".into(), |loss| format::expected_loss(&loss)),
            ]
        };
        let header = [
            "tokens",
            "kept",
            "evicted",
            "newest, in 8 bits or more",
            "bits of keys / values",
            "KV",
            "of f16",
            "expected KL",
        ];
        let table = output::table(&header, &[0, 1, 2, 3, 4, 5, 6, 7], rows.iter().map(row));
        output::line(table)?;
        eprintln!("{}", output::page(&source_of_losses(losses.as_ref(), expected(context))));
        Ok(())
    }
}

/// Where the losses of the table are from, or how there could be some.
fn source_of_losses(losses: Option<&Losses>, expected: Option<ExpectedLoss>) -> String {
    match (losses, expected) {
        (Some(losses), Some(_)) => format!(
            "expected KL, mean and that of the worst text: measured on {} documents of {} tokens of {}",
            losses.documents,
            format::count(losses.context as u64),
            losses.text
        ),
        (Some(_), None) => "a loss is expected of the automatic cache under a cap in bytes alone, as 64MiB; `compare` measures \
                            any cache on your text"
            .to_owned(),
        (None, _) => "this model has no profile: `sketchkv profile` measures what caps cost it".to_owned(),
    }
}
