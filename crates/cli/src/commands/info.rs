use crate::{
    arguments::{self, MOST_TOKENS, ModelName},
    config, format, output, warning,
};
use anyhow::Result;
use clap::value_parser;
use serde_json::{Value, json};
use sketchkv_cache::LayerShape;
use sketchkv_eval::{Footprint, footprint_after};
use sketchkv_kernels::ThreadPool;
use sketchkv_model::{Config, ModelFile, TensorInfo};
use std::{collections::BTreeMap, thread::available_parallelism};

/// Show what a model is: its architecture, its tensors, its bytes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// As --model: how it was named before.
    #[arg(value_name = "MODEL", hide = true)]
    named: Option<ModelName>,
    /// A name from `sketchkv models`, a GGUF file, or a Hugging Face folder [default: tiny-gpt2].
    #[arg(long, short, value_name = "MODEL", conflicts_with = "named")]
    model: Option<ModelName>,
    /// A cache whose bytes to show; may be given several times.
    #[arg(long, value_name = "SPEC", default_values = DEFAULT_SPECS)]
    kv: Vec<String>,
    /// Tokens after which to show them [default: 1024, or the model's context if that is less].
    #[arg(long, short, value_parser = value_parser!(u64).range(1..=MOST_TOKENS))]
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
    footprint: Footprint,
}

impl CacheSize {
    fn per_token(&self) -> f64 {
        self.footprint.kv_bytes as f64 / self.footprint.kv_tokens as f64
    }
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
        let name = self.model.clone().or(self.named.clone()).unwrap_or_else(config::usual_model);
        let file = name.source()?.open()?;
        warning::notes(&file.config().notes);
        match file.tokenizer() {
            Ok(tokenizer) => warning::notes(tokenizer.notes()),
            Err(error) => warning::show(&[format!("this model cannot be run: {error}")]),
        }
        let (tokens, sizes) = self.sizes(&file)?;
        let (config, shape) = (file.config(), file.config().cache_shape());
        let tensors = file.tensors();
        let shares = by_format(&tensors);
        // What the file holds twice is one matrix of the model.
        let repeated = file.repeated().map_or(0, |tensor| tensor.shape.iter().product::<usize>() as u64);
        let parameters = shares.values().map(|share| share.elements).sum::<u64>() - repeated;
        let bytes: u64 = shares.values().map(|share| share.bytes).sum();
        // A layer with a window grows no more once that is full.
        let growing = shape.layers.iter().filter(|layer| layer.window.is_none());
        let per_token = growing.map(|layer| layer.f16_bytes_per_token()).sum::<usize>() as u64;
        let window = |layer: &LayerShape| layer.window.map(|window| window * layer.f16_bytes_per_token());
        let windows = shape.layers.iter().filter_map(window).sum::<usize>() as u64;
        let warnings: Vec<String> =
            sizes.iter().filter_map(|size| size.footprint.warning(&size.spec)).collect();
        warning::show(&warnings);
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
                        "kv_bytes": size.footprint.kv_bytes,
                        "kv_bytes_per_token": size.per_token(),
                        "kv_percent": size.footprint.kv_percent,
                        "asked_percent": size.footprint.asked_percent,
                        "floor_bytes": size.footprint.floor_bytes,
                    })
                })
                .collect();
            return output::json(&json!({
                "name": config.name,
                "architecture": config.architecture.to_string(),
                "layers": config.layers.len(),
                "hidden": config.hidden,
                "heads": of_layers(config, |layer| Some(layer.heads)),
                "kv_heads": of_layers(config, |layer| Some(layer.kv_heads)),
                "head_dim": of_layers(config, |layer| Some(layer.key_dim)),
                "feed_forward": config.feed_forward,
                "vocabulary": config.vocabulary,
                "context": config.context,
                "sliding_window": of_layers(config, |layer| layer.window),
                "tied_embeddings": config.tied_embeddings,
                "parameters": parameters,
                "weight_bytes": bytes,
                "content_hash": file.content_hash(),
                "f16_kv_bytes_per_token": per_token,
                "f16_kv_window_bytes": windows,
                "kv_tokens": tokens,
                "kv": kv,
                "warnings": warnings,
                "formats": formats,
                "tensors": tensors,
            }));
        }
        let mut facts = vec![
            ("name", config.name.clone()),
            ("architecture", config.architecture.to_string()),
            ("layers", config.layers.len().to_string()),
            ("hidden", config.hidden.to_string()),
            ("heads", kinds(config, |layer| Some(heads(layer)))),
            ("feed-forward", config.feed_forward.to_string()),
            ("vocabulary", format::count(config.vocabulary as u64)),
            ("context", format!("{} tokens", format::count(config.context as u64))),
        ];
        if config.layers.iter().any(|layer| layer.window.is_some()) {
            let window =
                |layer: &LayerShape| layer.window.map(|window| format::count(window as u64) + " tokens");
            facts.push(("sliding window", kinds(config, window)));
        }
        facts.push(("parameters", format::count(parameters)));
        facts.push(("weights", format!("{} in {} tensors", format::bytes(bytes), tensors.len())));
        let within =
            if windows == 0 { String::new() } else { format!(", {} for windows", format::bytes(windows)) };
        facts.push(("f16 KV", format!("{} a token{within}", format::bytes(per_token))));
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
                format::bytes(size.footprint.kv_bytes as u64),
                format::bytes(size.per_token().round() as u64),
                format!("{:.1}%", size.footprint.kv_percent),
                format::asked(&size.footprint),
            ]
        });
        let title = format!("KV after {} tokens", format::count(tokens as u64));
        output::line(format!(
            "\n{}",
            output::table(&["cache", &title, "a token", "of full", "asked"], &[1, 2, 3, 4], rows)
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
            let footprint = footprint_after(&shape, &spec, tokens, &pool)?;
            Ok(CacheSize { spec: spec.to_string(), footprint })
        };
        Ok((tokens, self.kv.iter().map(size).collect::<Result<_>>()?))
    }
}

/// A number of every layer, where all are alike that one, otherwise `[layer]`.
fn of_layers(config: &Config, number: fn(&LayerShape) -> Option<usize>) -> Value {
    let all: Vec<_> = config.layers.iter().map(number).collect();
    if all.iter().all(|number| *number == all[0]) { json!(all[0]) } else { json!(all) }
}

fn heads(layer: &LayerShape) -> String {
    let LayerShape { heads, kv_heads, key_dim, value_dim, .. } = layer;
    let width = if key_dim == value_dim { key_dim.to_string() } else { format!("{key_dim} and {value_dim}") };
    format!("{heads} query, {kv_heads} KV, of {width}")
}

/// What layers are described as, with how many there are of each kind where there are several.
fn kinds(config: &Config, describe: impl Fn(&LayerShape) -> Option<String>) -> String {
    let mut kinds: Vec<(String, usize)> = vec![];
    for text in config.layers.iter().map(|layer| describe(layer).unwrap_or_else(|| "none".into())) {
        match kinds.iter_mut().find(|(known, _)| *known == text) {
            Some((_, count)) => *count += 1,
            None => kinds.push((text, 1)),
        }
    }
    match &kinds[..] {
        [(text, _)] => text.clone(),
        _ => {
            let each: Vec<_> =
                kinds.iter().map(|(text, count)| format!("{text} in {count} layers")).collect();
            each.join("; ")
        }
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
