//! Llama, and its kin: a norm before attention and before the feed-forward.
//!
//! Each layer adds to the residual stream x:
//!
//! ```text
//! x += Wo · attention(rotate(Wq · n), rotate(Wk · n), Wv · n)      n = rms_norm(x)
//! x += Wdown · (silu(Wgate · m) ∘ Wup · m)                         m = rms_norm(x)
//! ```
//!
//! SmolLM2 and TinyLlama are Llama. Mistral slides, Qwen2 has biases, Qwen3 norms on the heads of q and k, Phi-3 fused
//! projections; SmolLM3 leaves some layers unrotated, Granite multiplies what is added, Mixtral and Qwen3-MoE have
//! experts in place of the feed-forward. The config says which.

use super::Family;
use super::attention::Attention;
use super::experts::Experts;
use super::feed_forward::FeedForward;
use crate::forward::{Operations, Tensor};
use crate::weights::{Linear, Name, Norm, NormKind, Weights};
use crate::{Config, ModelError};
use sketchkv_kernels::Matrix;

pub(super) static FAMILY: Family = Family {
    tokens: Name { hub: "model.embed_tokens", gguf: "token_embd" },
    positions: None,
    final_norm: (NormKind::Rms, Name { hub: "model.norm", gguf: "output_norm" }),
    output: Name { hub: "lm_head", gguf: "output" },
    load_layer: |config, weights, layer| Ok(Box::new(Layer::load(config, weights, layer)?)),
};

const ATTENTION_NORM: Name = Name { hub: "model.layers.{}.input_layernorm", gguf: "blk.{}.attn_norm" };
const FEED_FORWARD_NORM: Name =
    Name { hub: "model.layers.{}.post_attention_layernorm", gguf: "blk.{}.ffn_norm" };

struct Layer {
    attention_norm: Norm,
    attention: Attention,
    feed_forward_norm: Norm,
    feed_forward: Mixer,
    residual_scale: f32,
}

enum Mixer {
    Dense(FeedForward),
    Experts(Experts),
}

impl Layer {
    fn load(config: &Config, weights: &Weights<'_>, layer: usize) -> Result<Layer, ModelError> {
        let norm = |name| weights.norm(NormKind::Rms, name, layer, config.hidden);
        let experts = config.experts.as_ref().filter(|experts| experts.layers[layer]);
        Ok(Layer {
            attention_norm: norm(ATTENTION_NORM)?,
            attention: Attention::load(config, weights, layer)?,
            feed_forward_norm: norm(FEED_FORWARD_NORM)?,
            feed_forward: match experts {
                Some(shape) => Mixer::Experts(Experts::load(config, shape, weights, layer)?),
                None => Mixer::Dense(FeedForward::load(config, weights, layer)?),
            },
            residual_scale: config.residual_scale,
        })
    }
}

impl super::Layer for Layer {
    fn forward(&self, layer: usize, x: &mut Tensor<'_>, ops: &mut Operations<'_>) {
        let attended = self.attention.of(layer, self.attention_norm.of(x), ops);
        ops.add_scaled(x, self.residual_scale, self.attention.output(&attended));

        match &self.feed_forward {
            Mixer::Dense(feed_forward) => ops.by_rows(x, |x, ops| {
                let gate_up = feed_forward.gate_up(self.feed_forward_norm.of(x), ops);
                ops.add_scaled(x, self.residual_scale, feed_forward.down(&gate_up));
            }),
            Mixer::Experts(experts) => {
                let m = ops.norm(x, &self.feed_forward_norm);
                experts.add(x, &m, ops);
            }
        }
    }

    fn linears(&self) -> Vec<&Linear> {
        match &self.feed_forward {
            Mixer::Dense(feed_forward) => self.attention.linears().chain(feed_forward.linears()).collect(),
            Mixer::Experts(experts) => self.attention.linears().chain(experts.linears()).collect(),
        }
    }

    fn norms(&self) -> Vec<&Norm> {
        [&self.attention_norm, &self.feed_forward_norm].into_iter().chain(self.attention.norms()).collect()
    }

    fn attention_output(&self) -> &Matrix {
        self.attention.output_matrix()
    }

    fn idle_bytes(&self) -> usize {
        match &self.feed_forward {
            Mixer::Dense(_) => 0,
            Mixer::Experts(experts) => experts.idle_bytes(),
        }
    }
}
