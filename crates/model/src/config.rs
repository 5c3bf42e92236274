use sketchkv_cache::{CacheShape, Rope};
use std::fmt;

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
    /// The longest sequence the model was made for, in tokens.
    pub context: usize,
    /// Added to the variance in every norm.
    pub norm_epsilon: f32,
    /// Rotary embedding, or `None` for learned positions.
    pub rope: Option<Rope>,
    /// Tokens a query may look back, itself included, if the model was trained with a sliding window.
    pub sliding_window: Option<usize>,
    /// Whether the output projection is the embedding.
    pub tied_embeddings: bool,
}

impl Config {
    /// What a [`sketchkv_cache::Cache`] must know of this model.
    pub fn cache_shape(&self) -> CacheShape {
        CacheShape {
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            context: self.context,
            rope: self.rope.clone(),
        }
    }
}
