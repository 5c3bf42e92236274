//! The numbers that define a model, read from GGUF metadata or from `config.json`.

mod gguf;
mod hub;
mod rope;

use crate::ModelError;
use crate::file::Checkpoint;
use sketchkv_cache::{CacheShape, Rope};
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
    /// Number of layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// KV heads per layer; divides `heads`.
    pub kv_heads: usize,
    /// Width of one key or value.
    pub head_dim: usize,
    /// Inner width of the feed-forward.
    pub feed_forward: usize,
    /// Rows of the embedding, which is the width of the logits.
    pub vocabulary: usize,
    /// The longest sequence the model is right for, in tokens: what it was made for, or its sliding window if
    /// that is shorter, because attention here looks back at everything the cache holds.
    pub context: usize,
    /// Added to the variance in every norm.
    pub norm_epsilon: f32,
    /// Rotary embedding, or `None` for learned positions.
    pub rope: Option<Rope>,
    /// Tokens a query may look back, itself included, if the model was trained with a sliding window.
    pub sliding_window: Option<usize>,
    /// Whether the output projection is the embedding.
    pub tied_embeddings: bool,
    /// Remarks a user should see, such as a context cut to the sliding window.
    pub notes: Vec<String>,
}

impl Config {
    /// Reads the config of an opened checkpoint and checks that its numbers fit together.
    pub(crate) fn read(checkpoint: &Checkpoint) -> Result<Config, ModelError> {
        let mut config = match checkpoint {
            Checkpoint::Gguf(gguf) => gguf::read(gguf)?,
            Checkpoint::Folder(folder) => hub::read(folder)?,
        };
        config.check().map_err(|reason| ModelError::format(checkpoint.path(), reason))?;
        config.heed_sliding_window();
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let Config { layers, hidden, heads, kv_heads, head_dim, feed_forward, vocabulary, context, .. } =
            *self;
        // The limits are far above any model; they keep products of them from overflowing.
        let limits = [
            ("layers", layers, 1 << 12),
            ("hidden size", hidden, 1 << 20),
            ("heads", heads, 1 << 12),
            ("KV heads", kv_heads, 1 << 12),
            ("head size", head_dim, 1 << 12),
            ("feed-forward size", feed_forward, 1 << 22),
            ("vocabulary", vocabulary, 1 << 24),
            ("context", context, 1 << 32),
        ];
        for (what, value, limit) in limits {
            if value == 0 || value > limit {
                return Err(format!("the {what} of {value} is impossible: the file is corrupt"));
            }
        }
        if heads % kv_heads != 0 {
            return Err(format!("{heads} heads do not divide into {kv_heads} KV heads"));
        }
        if !(self.norm_epsilon > 0.0 && self.norm_epsilon < 1.0) {
            return Err(format!("a norm epsilon of {} is impossible", self.norm_epsilon));
        }
        if self.rope.is_some() && head_dim % 2 != 0 {
            return Err(format!("a head size of {head_dim} cannot be rotated: it is odd"));
        }
        let frequencies = self.rope.iter().flat_map(|rope| &rope.inverse_frequencies);
        if frequencies.into_iter().any(|f| !f.is_finite()) {
            return Err("the rotary frequencies are not finite: the file is corrupt".into());
        }
        Ok(())
    }

    fn heed_sliding_window(&mut self) {
        let Some(window) = self.sliding_window.filter(|w| *w < self.context) else { return };
        self.notes.push(format!(
            "trained with a sliding window of {window} tokens: the context of {} is cut to it; to go on, allow \
             positions beyond the context and use a cache of kind `window`",
            self.context
        ));
        self.context = window;
    }

    /// What a [`sketchkv_cache::Cache`] must know of this model, without its weights.
    pub fn cache_shape(&self) -> CacheShape {
        CacheShape {
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            context: self.context,
            rope: self.rope.clone(),
            output: None,
        }
    }
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
