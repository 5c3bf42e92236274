//! The numbers that define a model, read from GGUF metadata or from `config.json`.

mod gguf;
mod hub;
mod json;
mod rotation;

pub(crate) use json::Json;
pub(crate) use rotation::Rotary;

use crate::ModelError;
use crate::file::Checkpoint;
use sketchkv_cache::{CacheShape, LayerShape};
use std::fmt;
use std::path::Path;

/// The architectures this engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// GPT-2: learned positions, layer norms with biases, a fused QKV projection, a GELU feed-forward.
    Gpt2,
    /// Llama, SmolLM2, TinyLlama: RoPE, RMS norms, grouped KV heads, a SwiGLU feed-forward.
    Llama,
    /// Llama with a sliding attention window.
    Mistral,
    /// Mistral with experts in place of the feed-forward.
    Mixtral,
    /// Llama with biases on Q, K and V.
    Qwen2,
    /// Llama with norms on the heads of Q and K.
    Qwen3,
    /// Qwen3 with experts in place of the feed-forward.
    Qwen3Moe,
    /// Norms before and behind attention and feed-forward, softcaps, every other layer a sliding one.
    Gemma2,
    /// Gemma 2 with norms on the heads of Q and K in place of softcaps, five of six layers sliding.
    Gemma3,
    /// Llama with fused projections, and a rotation that may cover a part of the head.
    Phi3,
    /// Llama, every fourth layer without rotation.
    SmolLm3,
    /// Llama with multipliers of the embedding, the scores, the residual stream and the logits.
    Granite,
    /// Norms behind attention and feed-forward, and over all of Q and all of K.
    Olmo2,
}

/// Architectures as `config.json` and GGUF call them.
const NAMES: &[(Architecture, &str, &str)] = &[
    (Architecture::Gpt2, "gpt2", "gpt2"),
    (Architecture::Llama, "llama", "llama"),
    (Architecture::Mistral, "mistral", "mistral"),
    (Architecture::Mixtral, "mixtral", "mixtral"),
    (Architecture::Qwen2, "qwen2", "qwen2"),
    (Architecture::Qwen3, "qwen3", "qwen3"),
    (Architecture::Qwen3Moe, "qwen3_moe", "qwen3moe"),
    (Architecture::Gemma2, "gemma2", "gemma2"),
    (Architecture::Gemma3, "gemma3_text", "gemma3"),
    (Architecture::Phi3, "phi3", "phi3"),
    (Architecture::SmolLm3, "smollm3", "smollm3"),
    (Architecture::Granite, "granite", "granite"),
    (Architecture::Olmo2, "olmo2", "olmo2"),
];

impl Architecture {
    /// Every architecture.
    pub fn all() -> impl Iterator<Item = Architecture> {
        NAMES.iter().map(|(architecture, ..)| *architecture)
    }

    fn of_hub(name: &str) -> Option<Architecture> {
        NAMES.iter().find(|(_, hub, _)| *hub == name).map(|(architecture, ..)| *architecture)
    }

    fn of_gguf(name: &str) -> Option<Architecture> {
        NAMES.iter().find(|(.., gguf)| *gguf == name).map(|(architecture, ..)| *architecture)
    }

    pub(crate) fn is_gemma(self) -> bool {
        matches!(self, Architecture::Gemma2 | Architecture::Gemma3)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name =
            NAMES.iter().find(|(architecture, ..)| architecture == self).map_or("?", |(_, hub, _)| hub);
        f.write_str(name)
    }
}

/// The numbers that define a model, whatever file they came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Which architecture's file runs it.
    pub architecture: Architecture,
    /// The model's own name for itself, or its file name.
    pub name: String,
    /// Attention, layer by layer.
    pub layers: Vec<LayerShape>,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Inner width of the feed-forward.
    pub feed_forward: usize,
    /// The experts that take the place of the feed-forward in some layers.
    pub experts: Option<Experts>,
    /// Rows of the embedding, which is the width of the logits.
    pub vocabulary: usize,
    /// The longest sequence the model was made for, in tokens.
    pub context: usize,
    /// Added to the variance in every norm.
    pub norm_epsilon: f32,
    /// Added to the weights of every norm: 1 where checkpoints hold them less one.
    pub norm_offset: f32,
    /// Multiplies the embeddings of tokens.
    pub embedding_scale: f32,
    /// Multiplies what attention and feed-forward add to the residual stream.
    pub residual_scale: f32,
    /// Multiplies the logits of the vocabulary.
    pub logit_scale: f32,
    /// c in logit = c·tanh(logit / c), for the logits of the vocabulary.
    pub logit_softcap: Option<f32>,
    /// Whether the output projection is the embedding.
    pub tied_embeddings: bool,
    /// Remarks a user should see.
    pub notes: Vec<String>,
    /// Tensors that were read as a part of the config.
    pub(crate) read_tensors: Vec<String>,
    /// Rotations, layer by layer.
    pub(crate) rotary: Vec<Option<Rotary>>,
    pub(crate) biases: Biases,
}

/// Feed-forwards of which each token goes through a few, chosen by a router (arXiv 2401.04088).
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// How many there are in a layer.
    pub count: usize,
    /// How many a token goes through.
    pub used: usize,
    /// Inner width of each.
    pub width: usize,
    /// Whether the weights of those used sum to 1; else they are what the softmax over all gave them.
    pub normalized: bool,
    /// Whether a layer has experts.
    pub layers: Vec<bool>,
}

/// Whether projections have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bias {
    Absent,
    Present,
    /// As the file has it; all parts of a projection or none.
    AsInFile,
}

/// Which projections have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Biases {
    pub(crate) qkv: Bias,
    pub(crate) attention_output: Bias,
    pub(crate) feed_forward: Bias,
}

impl Biases {
    pub(crate) const NONE: Biases =
        Biases { qkv: Bias::Absent, attention_output: Bias::Absent, feed_forward: Bias::Absent };
    pub(crate) const ALL: Biases =
        Biases { qkv: Bias::Present, attention_output: Bias::Present, feed_forward: Bias::Present };
    pub(crate) const AS_IN_FILE: Biases =
        Biases { qkv: Bias::AsInFile, attention_output: Bias::AsInFile, feed_forward: Bias::AsInFile };
}

/// More layers, and wider heads, than any model has: numbers above are not believed, and nothing is sized by them.
const MOST_LAYERS: usize = 1 << 12;
const MOST_HEAD_DIM: usize = 1 << 12;

/// What a number of a config is, and the keys that say it.
struct Quantity(&'static str, &'static str);

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0, self.1)
    }
}

const LAYERS: Quantity = Quantity("layers", "`num_hidden_layers`, `n_layer`, `block_count`");
const HIDDEN: Quantity = Quantity("hidden size", "`hidden_size`, `n_embd`, `embedding_length`");
const FEED_FORWARD: Quantity =
    Quantity("feed-forward size", "`intermediate_size`, `n_inner`, `feed_forward_length`");
const VOCABULARY: Quantity = Quantity("vocabulary", "`vocab_size`, rows of `token_embd.weight`");
const CONTEXT: Quantity = Quantity("context", "`max_position_embeddings`, `n_positions`, `context_length`");
const NORM_EPSILON: Quantity = Quantity(
    "norm epsilon",
    "`rms_norm_eps`, `layer_norm_epsilon`, `attention.layer_norm_rms_epsilon`, `attention.layer_norm_epsilon`",
);
const EXPERTS: Quantity = Quantity("number of experts", "`num_local_experts`, `num_experts`, `expert_count`");
const EXPERTS_USED: Quantity = Quantity("experts of a token", "`num_experts_per_tok`, `expert_used_count`");
const EXPERT_WIDTH: Quantity =
    Quantity("width of an expert", "`moe_intermediate_size`, `expert_feed_forward_length`");
const HEADS: Quantity = Quantity("heads", "`num_attention_heads`, `n_head`, `attention.head_count`");
const KV_HEADS: Quantity = Quantity("KV heads", "`num_key_value_heads`, `attention.head_count_kv`");
const HEAD_DIM: Quantity =
    Quantity("head size", "`head_dim`, `attention.key_length`, or hidden size / heads");
const SCALE: Quantity =
    Quantity("attention scale", "`attention_multiplier`, `query_pre_attn_scalar`, `attention.scale`");

/// The value, if it is from 1 to `most`.
fn plausible(what: Quantity, value: usize, most: usize) -> Result<usize, String> {
    if value == 0 || value > most {
        return Err(format!("{value} is impossible for the {what}: the file is corrupt"));
    }
    Ok(value)
}

impl Config {
    /// Reads the config of an opened checkpoint and checks that its numbers fit together.
    pub(crate) fn read(checkpoint: &Checkpoint) -> Result<Config, ModelError> {
        let config = match checkpoint {
            Checkpoint::Gguf(gguf) => gguf::read(gguf)?,
            Checkpoint::Folder(folder) => hub::read(folder)?,
        };
        config.check().map_err(|reason| ModelError::format(checkpoint.path(), reason))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        // The limits are far above any model; they keep products of them from overflowing.
        plausible(LAYERS, self.layers.len(), MOST_LAYERS)?;
        plausible(HIDDEN, self.hidden, 1 << 20)?;
        plausible(FEED_FORWARD, self.feed_forward, 1 << 22)?;
        plausible(VOCABULARY, self.vocabulary, 1 << 24)?;
        plausible(CONTEXT, self.context, 1 << 32)?;
        if !(self.norm_epsilon > 0.0 && self.norm_epsilon < 1.0) {
            return Err(format!("{} is impossible for the {NORM_EPSILON}", self.norm_epsilon));
        }
        if let Some(Experts { count, used, width, .. }) = &self.experts {
            plausible(EXPERTS, *count, 1 << 12)?;
            plausible(EXPERTS_USED, *used, *count)?;
            plausible(EXPERT_WIDTH, *width, 1 << 22)?;
        }
        self.layers.iter().try_for_each(check_layer)
    }

    /// Whether queries and keys are rotated, so that positions go on beyond the context.
    pub fn is_rotated(&self) -> bool {
        self.layers.iter().any(|layer| layer.rotation.is_some())
    }

    /// What a [`sketchkv_cache::Cache`] must know of this model, without its weights.
    pub fn cache_shape(&self) -> CacheShape {
        CacheShape { layers: self.layers.clone(), context: self.context, output: None, scorer: None }
    }
}

/// Layers that differ from `like` in their window and their rotation alone.
fn layers(like: &LayerShape, windows: &[Option<usize>], rotary: &[Option<Rotary>]) -> Vec<LayerShape> {
    let layer = |(&window, rotary): (&Option<usize>, &Option<Rotary>)| LayerShape {
        window,
        rotation: rotary.as_ref().map(Rotary::rotation),
        ..like.clone()
    };
    windows.iter().zip(rotary).map(layer).collect()
}

fn check_layer(layer: &LayerShape) -> Result<(), String> {
    let LayerShape { heads, kv_heads, key_dim, value_dim, .. } = *layer;
    plausible(HEADS, heads, 1 << 12)?;
    plausible(KV_HEADS, kv_heads, 1 << 12)?;
    plausible(HEAD_DIM, key_dim, MOST_HEAD_DIM)?;
    plausible(HEAD_DIM, value_dim, MOST_HEAD_DIM)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(format!("{heads} {HEADS} do not divide into {kv_heads} {KV_HEADS}"));
    }
    if !(layer.scale.is_finite() && layer.scale > 0.0) {
        return Err(format!("{} is impossible for the {SCALE}", layer.scale));
    }
    let Some(rotation) = &layer.rotation else { return Ok(()) };
    if !key_dim.is_multiple_of(2) {
        return Err(format!("a {HEAD_DIM} of {key_dim} cannot be rotated: it is odd"));
    }
    if 2 * rotation.inverse_frequencies.len() > key_dim {
        return Err(format!("a rotation of more than the {key_dim} values of a head is impossible"));
    }
    if rotation.inverse_frequencies.iter().any(|f| !f.is_finite()) {
        return Err("the rotary frequencies are not finite: the file is corrupt".into());
    }
    Ok(())
}

fn unsupported(path: &Path, key: &str, architecture: &str) -> ModelError {
    let known: Vec<&str> = NAMES.iter().map(|(_, hub, _)| *hub).collect();
    let known = known.join(", ");
    ModelError::format(
        path,
        format!("{key}: architecture `{architecture}` is not supported; these are: {known}"),
    )
}

fn unsupported_scaling(path: &Path, key: &str, kind: &str, known: &[&str]) -> ModelError {
    let known = known.join(", ");
    ModelError::format(path, format!("{key}: rope scaling `{kind}` is not supported; these are: {known}"))
}

/// The remark about keys that were not used.
pub(crate) fn unused_keys(keys: &[String]) -> Option<String> {
    let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    (!keys.is_empty()).then(|| format!("the file has keys that were not used: {}", keys.join(", ")))
}
