//! The numbers that define a model, read from GGUF metadata or from `config.json`.

mod gguf;
mod hub;
mod rotation;

use crate::ModelError;
use crate::file::Checkpoint;
use sketchkv_cache::{CacheShape, LayerShape};
use std::fmt;
use std::path::Path;

/// The architectures this engine runs, one file each in `arch/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// GPT-2: learned positions, layer norms with biases, a fused QKV projection, a GELU feed-forward.
    Gpt2,
    /// Llama, SmolLM2, TinyLlama: RoPE, RMS norms, grouped KV heads, a SwiGLU feed-forward.
    Llama,
    /// Llama with a sliding attention window.
    Mistral,
    /// Llama with biases on Q, K and V.
    Qwen2,
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Architecture::Gpt2 => "gpt2",
            Architecture::Llama => "llama",
            Architecture::Mistral => "mistral",
            Architecture::Qwen2 => "qwen2",
        })
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
    /// c in logit = c·tanh(logit / c), for the logits of the vocabulary.
    pub logit_softcap: Option<f32>,
    /// Whether the output projection is the embedding.
    pub tied_embeddings: bool,
    /// Remarks a user should see.
    pub notes: Vec<String>,
}

/// More layers, and wider heads, than any model has: numbers above are not believed, and nothing is sized by them.
const MOST_LAYERS: usize = 1 << 12;
const MOST_HEAD_DIM: usize = 1 << 12;

/// The value, if it is from 1 to `most`.
fn plausible(what: &str, value: usize, most: usize) -> Result<usize, String> {
    if value == 0 || value > most {
        return Err(format!("the {what} of {value} is impossible: the file is corrupt"));
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
        plausible("layers", self.layers.len(), MOST_LAYERS)?;
        plausible("hidden size", self.hidden, 1 << 20)?;
        plausible("feed-forward size", self.feed_forward, 1 << 22)?;
        plausible("vocabulary", self.vocabulary, 1 << 24)?;
        plausible("context", self.context, 1 << 32)?;
        if !(self.norm_epsilon > 0.0 && self.norm_epsilon < 1.0) {
            return Err(format!("a norm epsilon of {} is impossible", self.norm_epsilon));
        }
        self.layers.iter().try_for_each(check_layer)
    }

    /// Whether queries and keys are rotated, so that positions go on beyond the context.
    pub fn is_rotated(&self) -> bool {
        self.layers.iter().any(|layer| layer.rotation.is_some())
    }

    /// What a [`sketchkv_cache::Cache`] must know of this model, without its weights.
    pub fn cache_shape(&self) -> CacheShape {
        CacheShape { layers: self.layers.clone(), context: self.context, output: None }
    }
}

fn check_layer(layer: &LayerShape) -> Result<(), String> {
    let LayerShape { heads, kv_heads, key_dim, value_dim, .. } = *layer;
    plausible("heads", heads, 1 << 12)?;
    plausible("KV heads", kv_heads, 1 << 12)?;
    plausible("head size", key_dim, MOST_HEAD_DIM)?;
    plausible("head size", value_dim, MOST_HEAD_DIM)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(format!("{heads} heads do not divide into {kv_heads} KV heads"));
    }
    let Some(rotation) = &layer.rotation else { return Ok(()) };
    if !key_dim.is_multiple_of(2) {
        return Err(format!("a head size of {key_dim} cannot be rotated: it is odd"));
    }
    if rotation.inverse_frequencies.iter().any(|f| !f.is_finite()) {
        return Err("the rotary frequencies are not finite: the file is corrupt".into());
    }
    Ok(())
}

fn unsupported(path: &Path, architecture: &str) -> ModelError {
    let reason = format!(
        "architecture `{architecture}` is not supported; gpt2, llama (SmolLM2, TinyLlama), mistral and qwen2 are"
    );
    ModelError::format(path, reason)
}

fn unsupported_scaling(path: &Path, kind: &str) -> ModelError {
    ModelError::format(path, format!("rope scaling `{kind}` is not supported; linear and llama3 are"))
}
