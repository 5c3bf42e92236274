use crate::{arguments, format, kv_size, output};
use anyhow::Result;
use clap::value_parser;
use serde_json::json;
use sketchkv_engine::{EMBEDDED, Source};
use sketchkv_kernels::ThreadPool;
use sketchkv_model::{ModelFile, TensorInfo};
use std::{collections::BTreeMap, thread::available_parallelism};

/// Show what a model is: its architecture, its tensors, its bytes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A name from `sketchkv models`, a GGUF file, or a Hugging Face folder.
    #[arg(default_value = EMBEDDED)]
    model: String,
    /// A cache whose bytes to show; may be given several times.
    #[arg(long, value_name = "SPEC", default_values = DEFAULT_SPECS)]
    kv: Vec<String>,
    /// Tokens after which to show them [default: 1024, or the model's context if that is less].
    #[arg(long, short, value_parser = value_parser!(u64).range(1..))]
    context: Option<u64>,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

const DEFAULT_SPECS: [&str; 4] = ["full", "full+q8", "full+q4h", "window@25%"];
const DEFAULT_TOKENS: usize = 1024;

/// What a cache takes after some tokens.
struct CacheSize {
    spec: String,
    bytes: u64,
    per_token: f64,
    percent: f64,
}

/// Tensors of one format.
#[derive(Default)]
struct FormatShare {
    tensors: u64,
    elements: u64,
    bytes: u64,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let file = Source::find(&self.model)?.open()?;
        let (tokens, sizes) = self.sizes(&file)?;
        let (config, shape) = (file.config(), file.config().cache_shape());
        let tensors = file.tensors();
        let shares = by_format(&tensors);
        let parameters: u64 = shares.values().map(|share| share.elements).sum();
        let bytes: u64 = shares.values().map(|share| share.bytes).sum();
        let per_token = shape.f16_bytes_per_token() as u64;
        if self.json {
            let formats: Vec<_> = shares
                .iter()
                .map(|(name, share)| {
                    json!({ "format": name, "tensors": share.tensors, "elements": share.elements, "bytes": share.bytes })
                })
                .collect();
            let tensors: Vec<_> = tensors
                .iter()
                .map(|t| json!({ "name": t.name, "shape": t.shape, "format": t.format, "bytes": t.bytes }))
                .collect();
            let kv: Vec<_> = sizes
                .iter()
                .map(|size| {
                    json!({
                        "spec": size.spec,
                        "kv_bytes": size.bytes,
                        "kv_bytes_per_token": size.per_token,
                        "kv_percent": size.percent,
                    })
                })
                .collect();
            return output::json(&json!({
                "name": config.name,
                "architecture": config.architecture.to_string(),
                "layers": config.layers,
                "hidden": config.hidden,
                "heads": config.heads,
                "kv_heads": config.kv_heads,
                "head_dim": config.head_dim,
                "feed_forward": config.feed_forward,
                "vocabulary": config.vocabulary,
                "context": config.context,
                "sliding_window": config.sliding_window,
                "tied_embeddings": config.tied_embeddings,
                "parameters": parameters,
                "weight_bytes": bytes,
                "content_hash": file.content_hash(),
                "f16_kv_bytes_per_token": per_token,
                "kv_tokens": tokens,
                "kv": kv,
                "formats": formats,
                "tensors": tensors,
            }));
        }
        let mut facts = vec![
            ("name", config.name.clone()),
            ("architecture", config.architecture.to_string()),
            ("layers", config.layers.to_string()),
            ("hidden", config.hidden.to_string()),
            ("heads", format!("{} query, {} KV, of {}", config.heads, config.kv_heads, config.head_dim)),
            ("feed-forward", config.feed_forward.to_string()),
            ("vocabulary", format::count(config.vocabulary as u64)),
            ("context", format!("{} tokens", format::count(config.context as u64))),
        ];
        if let Some(window) = config.sliding_window {
            facts.push(("sliding window", format!("{} tokens", format::count(window as u64))));
        }
        facts.push(("parameters", format::count(parameters)));
        facts.push(("weights", format!("{} in {} tensors", format::bytes(bytes), tensors.len())));
        facts.push(("f16 KV", format!("{} a token", format::bytes(per_token))));
        for (name, value) in facts {
            output::line(format!("{name:<15} {value}"))?;
        }
        let rows = shares.iter().map(|(name, share)| {
            vec![
                name.to_string(),
                share.tensors.to_string(),
                format::count(share.elements),
                format::bytes(share.bytes),
            ]
        });
        output::line(format!(
            "\n{}",
            output::table(&["format", "tensors", "values", "bytes"], &[1, 2, 3], rows)
        ))?;
        let rows = sizes.iter().map(|size| {
            vec![
                size.spec.clone(),
                format::bytes(size.bytes),
                format::bytes(size.per_token.round() as u64),
                format!("{:.1}%", size.percent),
            ]
        });
        let title = format!("KV after {} tokens", format::count(tokens as u64));
        output::line(format!(
            "\n{}",
            output::table(&["cache", &title, "a token", "of full"], &[1, 2, 3], rows)
        ))?;
        if self.tensors {
            let rows = tensors.iter().map(|tensor| {
                let shape: Vec<_> = tensor.shape.iter().map(usize::to_string).collect();
                vec![
                    tensor.name.clone(),
                    shape.join(" × "),
                    tensor.format.clone(),
                    format::bytes(tensor.bytes as u64),
                ]
            });
            output::line(format!(
                "\n{}",
                output::table(&["tensor", "shape", "format", "bytes"], &[3], rows)
            ))?;
        }
        Ok(())
    }

    /// The number of tokens, and what each cache takes after them.
    fn sizes(&self, file: &ModelFile) -> Result<(usize, Vec<CacheSize>)> {
        let shape = file.config().cache_shape();
        let tokens = self.context.map_or(DEFAULT_TOKENS.min(shape.context), |tokens| tokens as usize);
        let pool = ThreadPool::new(available_parallelism().map_or(1, usize::from));
        let size = |text: &String| {
            let spec = arguments::spec(text)?;
            let bytes = kv_size::after(&shape, &spec, tokens, &pool)?.total() as u64;
            let per_token = bytes as f64 / tokens as f64;
            let percent = 100.0 * per_token / shape.f16_bytes_per_token() as f64;
            Ok(CacheSize { spec: spec.to_string(), bytes, per_token, percent })
        };
        Ok((tokens, self.kv.iter().map(size).collect::<Result<_>>()?))
    }
}

fn by_format(tensors: &[TensorInfo]) -> BTreeMap<&str, FormatShare> {
    let mut shares = BTreeMap::<_, FormatShare>::new();
    for tensor in tensors {
        let share = shares.entry(tensor.format.as_str()).or_default();
        share.tensors += 1;
        share.elements += tensor.shape.iter().map(|&n| n as u64).product::<u64>();
        share.bytes += tensor.bytes as u64;
    }
    shares
}
