//! A config from a Hugging Face `config.json`.

use super::rotation::{Scaling, frequencies};
use super::{Architecture, Config, MOST_HEAD_DIM, MOST_LAYERS, plausible};
use crate::ModelError;
use crate::file::Folder;
use serde_json::Value;
use sketchkv_cache::{LayerShape, Rotation};
use std::path::Path;

pub(super) fn read(folder: &Folder) -> Result<Config, ModelError> {
    let json = Json { path: folder.path(), value: folder.config() };
    let family = json.text("model_type").unwrap_or("without a `model_type`");
    let architecture = match family {
        "gpt2" => Architecture::Gpt2,
        "llama" => Architecture::Llama,
        "mistral" => Architecture::Mistral,
        "qwen2" => Architecture::Qwen2,
        other => return Err(super::unsupported(folder.path(), other)),
    };
    let mut config =
        if architecture == Architecture::Gpt2 { gpt2(&json)? } else { llama(&json, architecture)? };
    config.name = folder_name(folder.path());
    config.tied_embeddings =
        json.flag("tie_word_embeddings") == Some(true) || folder.tensor("lm_head.weight").is_none();
    Ok(config)
}

fn gpt2(json: &Json<'_>) -> Result<Config, ModelError> {
    let (hidden, heads) = (json.required("n_embd")?, json.required("n_head")?);
    match json.text("activation_function").unwrap_or("gelu_new") {
        "gelu_new" | "gelu_pytorch_tanh" => {}
        other => {
            return Err(json.error(format!("activation `{other}` is not supported in GPT-2; gelu_new is")));
        }
    }
    if json.flag("scale_attn_weights") == Some(false)
        || json.flag("scale_attn_by_inverse_layer_idx") == Some(true)
    {
        return Err(json.error("attention scaled otherwise than by 1/sqrt(head size) is not supported"));
    }
    Ok(Config {
        architecture: Architecture::Gpt2,
        name: String::new(),
        layers: vec![LayerShape::new(heads, heads, hidden / heads.max(1)); json.layers("n_layer")?],
        hidden,
        feed_forward: json.number("n_inner")?.unwrap_or(4 * hidden),
        vocabulary: json.required("vocab_size")?,
        context: json.required("n_positions")?,
        norm_epsilon: json.float("layer_norm_epsilon").unwrap_or(1e-5),
        norm_offset: 0.0,
        embedding_scale: 1.0,
        logit_softcap: None,
        tied_embeddings: false,
        notes: vec![],
    })
}

fn llama(json: &Json<'_>, architecture: Architecture) -> Result<Config, ModelError> {
    let (hidden, heads) = (json.required("hidden_size")?, json.required("num_attention_heads")?);
    match json.text("hidden_act").unwrap_or("silu") {
        "silu" | "swish" => {}
        other => {
            return Err(
                json.error(format!("activation `{other}` is not supported in {architecture}; silu is"))
            );
        }
    }
    let head_dim = json.number("head_dim")?.unwrap_or(hidden / heads.max(1));
    let head_dim = plausible("head size", head_dim, MOST_HEAD_DIM).map_err(|reason| json.error(reason))?;
    let context = json.required("max_position_embeddings")?;
    // Mistral slides whenever it names a window; Qwen2 names one and says separately whether it slides.
    let slides = match architecture {
        Architecture::Mistral => true,
        Architecture::Qwen2 => json.flag("use_sliding_window").unwrap_or(false),
        _ => false,
    };
    let layer = LayerShape {
        window: if slides { json.number("sliding_window")?.filter(|w| *w > 0) } else { None },
        rotation: Some(rotation(json, head_dim, context)?),
        ..LayerShape::new(heads, json.number("num_key_value_heads")?.unwrap_or(heads), head_dim)
    };
    Ok(Config {
        architecture,
        name: String::new(),
        layers: vec![layer; json.layers("num_hidden_layers")?],
        hidden,
        feed_forward: json.required("intermediate_size")?,
        vocabulary: json.required("vocab_size")?,
        context,
        norm_epsilon: json.float("rms_norm_eps").unwrap_or(1e-6),
        norm_offset: 0.0,
        embedding_scale: 1.0,
        logit_softcap: None,
        tied_embeddings: false,
        notes: vec![],
    })
}

fn rotation(json: &Json<'_>, head_dim: usize, context: usize) -> Result<Rotation, ModelError> {
    // Recent files gather base and scaling in `rope_parameters`; older ones have `rope_theta` beside `rope_scaling`.
    let nested = ["rope_parameters", "rope_scaling"]
        .iter()
        .find_map(|key| json.value.get(key).filter(|v| v.is_object()))
        .map(|value| Json { path: json.path, value });
    let inner = |key: &str| nested.as_ref().and_then(|n| n.float(key));
    let base = inner("rope_theta").or_else(|| json.float("rope_theta")).unwrap_or(10_000.0);
    let partial = inner("partial_rotary_factor").or_else(|| json.float("partial_rotary_factor"));
    if partial.is_some_and(|share| share != 1.0) {
        return Err(json.error("a rotary embedding over a part of the head is not supported"));
    }
    let kind =
        nested.as_ref().and_then(|n| n.text("rope_type").or_else(|| n.text("type"))).unwrap_or("default");
    let positive = |key: &str| {
        let found = inner(key).filter(|f| *f > 0.0);
        found.ok_or_else(|| json.error(format!("rope scaling `{kind}` needs a positive `{key}`")))
    };
    let scaling = match kind {
        "default" => Scaling::None,
        "linear" => Scaling::Linear { factor: positive("factor")? },
        "llama3" => Scaling::Llama3 {
            factor: positive("factor")?,
            low: positive("low_freq_factor")?,
            high: positive("high_freq_factor")?,
            original_context: inner("original_max_position_embeddings").unwrap_or(context as f32),
        },
        other => return Err(super::unsupported_scaling(json.path, other)),
    };
    Ok(frequencies(base, head_dim, &scaling))
}

fn folder_name(path: &Path) -> String {
    let full = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    full.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A JSON object with typed access; `null` counts as absent.
struct Json<'a> {
    path: &'a Path,
    value: &'a Value,
}

impl Json<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.value.get(key)?.as_str()
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.value.get(key)?.as_bool()
    }

    fn float(&self, key: &str) -> Option<f32> {
        self.value.get(key)?.as_f64().map(|f| f as f32)
    }

    fn number(&self, key: &str) -> Result<Option<usize>, ModelError> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
                number.map(Some).ok_or_else(|| self.error(format!("`{key}` is {value}, not a whole number")))
            }
        }
    }

    fn required(&self, key: &str) -> Result<usize, ModelError> {
        self.number(key)?.ok_or_else(|| self.error(format!("`{key}` is missing")))
    }

    /// A number of layers that can be.
    fn layers(&self, key: &str) -> Result<usize, ModelError> {
        plausible("layers", self.required(key)?, MOST_LAYERS).map_err(|reason| self.error(reason))
    }

    fn error(&self, reason: impl Into<String>) -> ModelError {
        ModelError::format(&self.path.join("config.json"), reason)
    }
}
