//! A config from a Hugging Face `config.json`, its absent keys as transformers takes them.

use super::json::Json;
use super::rotation::{Rotary, Scaling, longrope_magnitude, yarn_magnitude};
use super::{
    Architecture, Bias, Biases, Config, Experts, HEAD_DIM, MOST_HEAD_DIM, layers, plausible, unused_keys,
};
use crate::ModelError;
use crate::file::Folder;
use sketchkv_cache::LayerShape;
use std::path::Path;

/// Keys that do not change what a model computes here: how it was trained and saved, and what the tokenizer says.
const INERT: &[&str] = &[
    "_attn_implementation",
    "_name_or_path",
    "_sliding_window_pattern",
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "attn_pdrop",
    "auto_map",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "dtype",
    "embd_pdrop",
    "embedding_dropout",
    "eos_token_id",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "n_ctx",
    "name_or_path",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "reorder_and_upcast_attn",
    "resid_pdrop",
    "return_dict",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "sep_token_id",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "transformers_version",
    "unk_token_id",
    "use_cache",
];

pub(super) fn read(folder: &Folder) -> Result<Config, ModelError> {
    let path = folder.path().join("config.json");
    let json = Json::new(&path, folder.config())?;
    INERT.iter().for_each(|key| json.ignore(key));
    let family = json.text("model_type")?.ok_or_else(|| json.missing("model_type"))?;
    let architecture =
        Architecture::of_hub(family).ok_or_else(|| super::unsupported(&path, "`model_type`", family))?;
    if let Some(quantization) = json.object("quantization_config")? {
        let method = quantization.text("quant_method")?.unwrap_or("an unnamed method").to_owned();
        return Err(json.error(format!(
            "`quantization_config`: weights quantized by {method} are not read; take the model as GGUF, or unquantized"
        )));
    }
    let mut config =
        if architecture == Architecture::Gpt2 { gpt2(&json)? } else { rotated(&json, architecture)? };
    config.name = folder_name(folder.path());
    use Architecture::{Gemma2, Gemma3, Gpt2, SmolLm3};
    let usual = matches!(architecture, Gpt2 | Gemma2 | Gemma3 | SmolLm3);
    config.tied_embeddings = json.flag("tie_word_embeddings")?.unwrap_or(usual);
    ids_are_ids(&json)?;
    config.notes.extend(json.notes());
    config.notes.extend(unused_keys(&json.unread()));
    Ok(config)
}

/// Whether the ids of special tokens, which the tokenizer reads, are such.
fn ids_are_ids(json: &Json<'_>) -> Result<(), ModelError> {
    json.id("bos_token_id")?;
    json.id("pad_token_id")?;
    json.ids("eos_token_id").map(drop)
}

fn gpt2(json: &Json<'_>) -> Result<Config, ModelError> {
    let (hidden, heads) = (json.required("n_embd")?, json.required("n_head")?);
    match json.text("activation_function")?.unwrap_or("gelu_new") {
        "gelu_new" | "gelu_pytorch_tanh" => {}
        other => {
            return Err(json.error(format!(
                "`activation_function`: activation `{other}` is not supported in GPT-2; gelu_new is"
            )));
        }
    }
    for (key, usual) in [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false)] {
        if json.flag(key)?.is_some_and(|value| value != usual) {
            let reason = "attention scaled otherwise than by 1/sqrt(head size) is not supported";
            return Err(json.error(format!("`{key}` is {}: {reason}", !usual)));
        }
    }
    if json.flag("add_cross_attention")? == Some(true) {
        return Err(json.error("`add_cross_attention` is true: attention to an encoder is not supported"));
    }
    let layers = json.layers("n_layer")?;
    Ok(Config {
        architecture: Architecture::Gpt2,
        name: String::new(),
        layers: vec![
            LayerShape { biased_keys: true, ..LayerShape::new(heads, heads, hidden / heads.max(1)) };
            layers
        ],
        hidden,
        feed_forward: json.number("n_inner")?.unwrap_or(4 * hidden),
        experts: None,
        vocabulary: json.required("vocab_size")?,
        context: json.required("n_positions")?,
        norm_epsilon: json.float("layer_norm_epsilon")?.unwrap_or(1e-5),
        norm_offset: 0.0,
        embedding_scale: 1.0,
        residual_scale: 1.0,
        logit_scale: 1.0,
        logit_softcap: None,
        tied_embeddings: true,
        notes: vec![],
        read_tensors: vec![],
        rotary: vec![None; layers],
        biases: Biases::ALL,
    })
}

/// Every architecture with rotated queries and keys.
fn rotated(json: &Json<'_>, architecture: Architecture) -> Result<Config, ModelError> {
    use Architecture::*;
    let (hidden, heads) = (json.required("hidden_size")?, json.required("num_attention_heads")?);
    check_activation(json, architecture)?;
    let usual_width = match architecture {
        Gemma2 | Gemma3 => 256,
        Qwen3 => 128,
        _ => hidden / heads.max(1),
    };
    let head_dim = json.number("head_dim")?.unwrap_or(usual_width);
    let head_dim = plausible(HEAD_DIM, head_dim, MOST_HEAD_DIM).map_err(|reason| json.error(reason))?;
    let kv_heads = json.number("num_key_value_heads")?.unwrap_or(heads);
    let context = json.required("max_position_embeddings")?;
    let count = json.layers("num_hidden_layers")?;
    let turns = turns(json, architecture, count)?;
    let windows = windows(json, architecture, &turns)?;
    let rotary = Rotaries::read(json, architecture, head_dim, context)?;
    let rotary: Vec<Option<Rotary>> =
        (0..count).map(|layer| turns[layer].then(|| rotary.of(windows[layer].is_some()).clone())).collect();
    let scale = match architecture {
        Granite => json.positive("attention_multiplier")?.unwrap_or(1.0),
        Gemma2 | Gemma3 => 1.0 / json.positive("query_pre_attn_scalar")?.unwrap_or(256.0).sqrt(),
        _ => 1.0 / (head_dim as f32).sqrt(),
    };
    let softcap = |key, usual| -> Result<Option<f32>, ModelError> {
        if !architecture.is_gemma() {
            return Ok(None);
        }
        let usual = (architecture == Gemma2 && !json.is_null(key)).then_some(usual);
        Ok(json.positive(key)?.or(usual))
    };
    let (score_softcap, logit_softcap) =
        (softcap("attn_logit_softcapping", 50.0)?, softcap("final_logit_softcapping", 30.0)?);
    if architecture == Gemma3 && json.flag("use_bidirectional_attention")? == Some(true) {
        return Err(json.error("`use_bidirectional_attention` is true, which is not supported"));
    }
    let biases = biases(json, architecture)?;
    let like = LayerShape {
        scale,
        softcap: score_softcap,
        biased_keys: biases.qkv == Bias::Present,
        ..LayerShape::new(heads, kv_heads, head_dim)
    };
    let multiplier = |key| -> Result<f32, ModelError> {
        if architecture == Granite { Ok(json.positive(key)?.unwrap_or(1.0)) } else { Ok(1.0) }
    };
    let feed_forward = json.number("intermediate_size")?;
    let experts = experts(json, architecture, feed_forward, count)?;
    Ok(Config {
        architecture,
        name: String::new(),
        layers: layers(&like, &windows, &rotary),
        hidden,
        feed_forward: feed_forward.ok_or_else(|| json.missing("intermediate_size"))?,
        experts,
        vocabulary: json.required("vocab_size")?,
        context,
        norm_epsilon: json.float("rms_norm_eps")?.unwrap_or(match architecture {
            Mixtral | Phi3 | Olmo2 => 1e-5,
            _ => 1e-6,
        }),
        norm_offset: if architecture.is_gemma() { 1.0 } else { 0.0 },
        embedding_scale: if architecture.is_gemma() {
            (hidden as f32).sqrt()
        } else {
            multiplier("embedding_multiplier")?
        },
        residual_scale: multiplier("residual_multiplier")?,
        logit_scale: 1.0 / multiplier("logits_scaling")?,
        logit_softcap,
        tied_embeddings: false,
        notes: vec![],
        read_tensors: vec![],
        rotary,
        biases,
    })
}

fn check_activation(json: &Json<'_>, architecture: Architecture) -> Result<(), ModelError> {
    let (usual, others): (&str, &[&str]) = match architecture.is_gemma() {
        true => ("gelu_pytorch_tanh", &["gelu_new"]),
        false => ("silu", &["swish"]),
    };
    // Gemma's first files name another activation in `hidden_act`, which transformers does not look at.
    let key = if architecture.is_gemma() { "hidden_activation" } else { "hidden_act" };
    if architecture.is_gemma() {
        json.ignore("hidden_act");
    }
    match json.text(key)? {
        Some(other) if other != usual && !others.contains(&other) => Err(json
            .error(format!("`{key}`: activation `{other}` is not supported in {architecture}; {usual} is"))),
        _ => Ok(()),
    }
}

fn biases(json: &Json<'_>, architecture: Architecture) -> Result<Biases, ModelError> {
    use Architecture::*;
    let of = |key| -> Result<Bias, ModelError> {
        Ok(if json.flag(key)? == Some(true) { Bias::Present } else { Bias::Absent })
    };
    match architecture {
        Qwen2 => Ok(Biases { qkv: Bias::Present, ..Biases::NONE }),
        Mistral | Mixtral => Ok(Biases::NONE),
        _ => {
            let attention = of("attention_bias")?;
            let feed_forward = if matches!(architecture, Llama | SmolLm3 | Granite) {
                of("mlp_bias")?
            } else {
                Bias::Absent
            };
            Ok(Biases { qkv: attention, attention_output: attention, feed_forward })
        }
    }
}

/// The sliding window of each layer; `turns` says which rotate.
fn windows(
    json: &Json<'_>,
    architecture: Architecture,
    turns: &[bool],
) -> Result<Vec<Option<usize>>, ModelError> {
    use Architecture::*;
    let count = turns.len();
    let kinds = layer_types(json, count)?;
    // Where transformers does not look at the kinds of layers, they are remarked on if they say something else.
    let in_spite_of_kinds = |windows: Vec<Option<usize>>| {
        if kinds.iter().flatten().zip(&windows).any(|(slides, window)| *slides != window.is_some()) {
            json.forget("layer_types");
        }
        windows
    };
    // It knows no windows in these; unread, the keys are remarked on.
    if matches!(architecture, Llama | Granite | Olmo2 | Gpt2) {
        return Ok(in_spite_of_kinds(vec![None; count]));
    }
    let usual = match architecture {
        // transformers' own value where the key is absent, not where it is null.
        Mistral | Qwen2 | Qwen3 | Qwen3Moe | Gemma2 | Gemma3 if !json.is_null("sliding_window") => Some(4096),
        _ => None,
    };
    let window = json.number("sliding_window")?.or(usual).filter(|window| *window > 0);
    // These name a window and say separately whether they slide.
    let said = matches!(architecture, Qwen2 | Qwen3 | Qwen3Moe | SmolLm3);
    let slides = !said || json.flag("use_sliding_window")?.unwrap_or(false);
    let first = if said { json.number("max_window_layers")?.unwrap_or(28) } else { 0 };
    let pattern = if architecture == Gemma3 { json.number("sliding_window_pattern")? } else { None };
    let window_of = |layer: usize| {
        let sliding = match architecture {
            Gemma2 => layer.is_multiple_of(2),
            Gemma3 => !(layer + 1).is_multiple_of(pattern.unwrap_or(6).max(1)),
            Qwen2 | Qwen3 => layer >= first,
            SmolLm3 => !turns[layer],
            _ => true,
        };
        window.filter(|_| slides && sliding)
    };
    Ok(match &kinds {
        Some(kinds) if matches!(architecture, Gemma2 | Gemma3 | Qwen2 | Qwen3 | SmolLm3) => {
            kinds.iter().map(|&kind| window.filter(|_| slides && kind)).collect()
        }
        _ => in_spite_of_kinds((0..count).map(window_of).collect()),
    })
}

/// Whether each layer slides, where the file says so one by one.
fn layer_types(json: &Json<'_>, count: usize) -> Result<Option<Vec<bool>>, ModelError> {
    let Some(list) = json.list("layer_types")? else { return Ok(None) };
    let of = |value: &serde_json::Value| match value.as_str() {
        Some("full_attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => Err(json.error(format!(
            "`layer_types`: {value} is not supported; full_attention and sliding_attention are"
        ))),
    };
    let kinds = list.iter().map(of).collect::<Result<Vec<_>, _>>()?;
    if kinds.len() != count {
        return Err(json.error(format!("`layer_types` has {} entries for {count} layers", kinds.len())));
    }
    Ok(Some(kinds))
}

/// Whether each layer rotates its queries and keys.
fn turns(json: &Json<'_>, architecture: Architecture, count: usize) -> Result<Vec<bool>, ModelError> {
    if architecture != Architecture::SmolLm3 {
        return Ok(vec![true; count]);
    }
    let interval = json.number("no_rope_layer_interval")?.unwrap_or(4).max(1);
    let Some(list) = json.list("no_rope_layers")? else {
        return Ok((1..=count).map(|layer| !layer.is_multiple_of(interval)).collect());
    };
    // 1 where a layer rotates, whatever the name says.
    let turns: Option<Vec<bool>> = list.iter().map(|value| Some(value.as_u64()? != 0)).collect();
    turns
        .filter(|turns| turns.len() == count)
        .ok_or_else(|| json.error(format!("`no_rope_layers` is no list of 0 or 1 for {count} layers")))
}

fn experts(
    json: &Json<'_>,
    architecture: Architecture,
    feed_forward: Option<usize>,
    count: usize,
) -> Result<Option<Experts>, ModelError> {
    match architecture {
        Architecture::Mixtral => Ok(Some(Experts {
            count: json.number("num_local_experts")?.unwrap_or(8),
            used: json.number("num_experts_per_tok")?.unwrap_or(2),
            width: feed_forward.unwrap_or(0),
            normalized: true,
            layers: vec![true; count],
        })),
        Architecture::Qwen3Moe => {
            let step = json.number("decoder_sparse_step")?.unwrap_or(1).max(1);
            let dense = json.list("mlp_only_layers")?.map_or(&[][..], Vec::as_slice);
            let is_dense = |layer: usize| dense.iter().any(|value| value.as_u64() == Some(layer as u64));
            Ok(Some(Experts {
                count: json.number("num_experts")?.or(json.number("num_local_experts")?).unwrap_or(128),
                used: json.number("num_experts_per_tok")?.unwrap_or(8),
                width: json.number("moe_intermediate_size")?.unwrap_or(768),
                normalized: json.flag("norm_topk_prob")?.unwrap_or(false),
                layers: (0..count).map(|l| !is_dense(l) && (l + 1).is_multiple_of(step)).collect(),
            }))
        }
        _ => Ok(None),
    }
}

/// The rotation of layers that see everything, and of those that slide.
struct Rotaries {
    global: Rotary,
    sliding: Rotary,
}

impl Rotaries {
    fn of(&self, slides: bool) -> &Rotary {
        if slides { &self.sliding } else { &self.global }
    }

    fn read(
        json: &Json<'_>,
        architecture: Architecture,
        head_dim: usize,
        context: usize,
    ) -> Result<Rotaries, ModelError> {
        let base = json.positive("rope_theta")?.unwrap_or(match architecture {
            Architecture::Gemma3 | Architecture::Mixtral => 1e6,
            Architecture::SmolLm3 => 2e6,
            _ => 1e4,
        });
        let local_base = match architecture {
            Architecture::Gemma3 => json.positive("rope_local_base_freq")?.unwrap_or(1e4),
            _ => base,
        };
        let reader = Reader {
            json,
            head_dim,
            context,
            original_context: json
                .number("original_max_position_embeddings")?
                .or((architecture == Architecture::Phi3).then_some(4096)),
            partial: json.positive("partial_rotary_factor")?,
        };
        // Recent files gather base and scaling in `rope_parameters`, for each kind of layer or for all; older ones have
        // `rope_theta` beside `rope_scaling`, which goes first where both are.
        let recent = json.object("rope_parameters")?;
        let older = json.object("rope_scaling")?;
        if let (Some(recent), Some(older)) = (&recent, &older) {
            let unused: Vec<String> = recent.beyond(older).map(|key| format!("`{key}`")).collect();
            if !unused.is_empty() {
                let unused = unused.join(", ");
                json.note(format!(
                    "`rope_scaling` goes before `rope_parameters`, whose {unused} are not used"
                ));
            }
        }
        let scaling = older.or(recent);
        let Some(scaling) = scaling else {
            let plain = |base| reader.rotary(base, None);
            return Ok(Rotaries { global: plain(base)?, sliding: plain(local_base)? });
        };
        match (scaling.object("full_attention")?, scaling.object("sliding_attention")?) {
            (Some(global), Some(sliding)) => Ok(Rotaries {
                global: reader.rotary(base, Some(&global))?,
                sliding: reader.rotary(local_base, Some(&sliding))?,
            }),
            (Some(global), None) => {
                let global = reader.rotary(base, Some(&global))?;
                Ok(Rotaries { sliding: global.clone(), global })
            }
            _ => {
                let global = reader.rotary(base, Some(&scaling))?;
                // Gemma 3's scaling is one of its global layers.
                let sliding = match architecture {
                    Architecture::Gemma3 => reader.rotary(local_base, None)?,
                    _ => global.clone(),
                };
                Ok(Rotaries { global, sliding })
            }
        }
    }
}

/// Reads one rotation.
struct Reader<'a> {
    json: &'a Json<'a>,
    head_dim: usize,
    context: usize,
    original_context: Option<usize>,
    partial: Option<f32>,
}

impl Reader<'_> {
    fn rotary(&self, base: f32, own: Option<&Json<'_>>) -> Result<Rotary, ModelError> {
        let Some(own) = own else {
            return Ok(Rotary::new(base, self.dimensions(self.partial)?, &Scaling::None));
        };
        let base = own.positive("rope_theta")?.unwrap_or(base);
        let dimensions = self.dimensions(own.positive("partial_rotary_factor")?.or(self.partial))?;
        let kind = match (own.text("rope_type")?, own.text("type")?) {
            // Of which versions of transformers take one or the other.
            (Some(kind), Some(other)) if kind != other => {
                let (key, old) = (own.name("rope_type"), own.name("type"));
                return Err(self
                    .json
                    .error(format!("{key} is `{kind}` and {old} is `{other}`: take one away")));
            }
            (kind, old) => kind.or(old).unwrap_or("default"),
        };
        let scaling = self.scaling(kind, own, dimensions)?;
        if let [unknown, ..] = &own.unread()[..] {
            return Err(self.json.error(format!("`{unknown}` is not supported in rope scaling `{kind}`")));
        }
        Ok(Rotary::new(base, dimensions, &scaling))
    }

    /// Dimensions of a head that are rotated.
    fn dimensions(&self, partial: Option<f32>) -> Result<usize, ModelError> {
        let share = partial.unwrap_or(1.0);
        let dimensions = (self.head_dim as f32 * share) as usize;
        if share > 1.0 || dimensions == 0 || !dimensions.is_multiple_of(2) {
            let whole = self.head_dim;
            return Err(self.json.error(format!(
                "`partial_rotary_factor` is {share}: {dimensions} of a head's {whole} values cannot be rotated"
            )));
        }
        Ok(dimensions)
    }

    fn scaling(&self, kind: &str, own: &Json<'_>, dimensions: usize) -> Result<Scaling, ModelError> {
        let original_context = own.number("original_max_position_embeddings")?.or(self.original_context);
        Ok(match kind {
            "default" => Scaling::None,
            "linear" => Scaling::Linear { factor: own.factor("factor")? },
            "dynamic" => Scaling::Dynamic { factor: own.factor("factor")?, context: self.context },
            "llama3" => Scaling::Llama3 {
                factor: own.factor("factor")?,
                low: own.factor("low_freq_factor")?,
                high: own.factor("high_freq_factor")?,
                original_context: original_context.unwrap_or(self.context) as f32,
            },
            "yarn" => {
                let original_context = original_context.unwrap_or(self.context) as f32;
                let factor = own.positive("factor")?.unwrap_or(self.context as f32 / original_context);
                let (weight, all) = (own.float("mscale")?, own.float("mscale_all_dim")?);
                let usual = match (weight, all) {
                    (Some(weight), Some(all)) if weight != 0.0 && all != 0.0 => {
                        yarn_magnitude(factor, weight) / yarn_magnitude(factor, all)
                    }
                    _ => yarn_magnitude(factor, 1.0),
                };
                Scaling::Yarn {
                    factor,
                    fast: own.positive("beta_fast")?.unwrap_or(32.0),
                    slow: own.positive("beta_slow")?.unwrap_or(1.0),
                    original_context,
                    truncated: own.flag("truncate")?.unwrap_or(true),
                    magnitude: own.positive("attention_factor")?.unwrap_or(usual),
                }
            }
            "longrope" | "su" => {
                let original_context = original_context
                    .ok_or_else(|| self.json.missing("original_max_position_embeddings"))?
                    .max(2);
                let factor = own.positive("factor")?.unwrap_or(self.context as f32 / original_context as f32);
                let usual = longrope_magnitude(factor, original_context);
                Scaling::Longrope {
                    short: own.factors("short_factor", dimensions / 2)?,
                    long: own.factors("long_factor", dimensions / 2)?,
                    original_context,
                    magnitude: own.positive("attention_factor")?.unwrap_or(usual),
                }
            }
            other => {
                let known = ["default", "linear", "dynamic", "llama3", "yarn", "longrope"];
                return Err(super::unsupported_scaling(
                    self.json.path(),
                    &own.name("rope_type"),
                    other,
                    &known,
                ));
            }
        })
    }
}

fn folder_name(path: &Path) -> String {
    let full = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    full.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
