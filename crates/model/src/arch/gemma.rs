//! Gemma 2 and 3: a norm before and one behind attention, and the same around the feed-forward.
//!
//! Each layer adds to the residual stream x:
//!
//! ```text
//! x += rms_norm(Wo · attention(rotate(Wq · n), rotate(Wk · n), Wv · n))      n = rms_norm(x)
//! x += rms_norm(Wdown · (gelu(Wgate · m) ∘ Wup · m))                         m = rms_norm(x)
//! ```
//!
//! Gemma 3 norms the heads of q and k before they are rotated. Which layers slide, and their softcap, is in the shapes
//! of the layers.

use super::Family;
use super::attention::Attention;
use super::feed_forward::FeedForward;
use crate::forward::{Operations, Tensor};
use crate::weights::{Linear, Name, Norm, NormKind, Weights};
use crate::{Config, ModelError};
use sketchkv_kernels::Matrix;

pub(super) static FAMILY: Family = Family {
    load_layer: |config, weights, layer| Ok(Box::new(Layer::load(config, weights, layer)?)),
    ..super::llama::FAMILY
};

const BEFORE_ATTENTION: Name = Name { hub: "model.layers.{}.input_layernorm", gguf: "blk.{}.attn_norm" };
const BEHIND_ATTENTION: Name =
    Name { hub: "model.layers.{}.post_attention_layernorm", gguf: "blk.{}.post_attention_norm" };
const BEFORE_FEED_FORWARD: Name =
    Name { hub: "model.layers.{}.pre_feedforward_layernorm", gguf: "blk.{}.ffn_norm" };
const BEHIND_FEED_FORWARD: Name =
    Name { hub: "model.layers.{}.post_feedforward_layernorm", gguf: "blk.{}.post_ffw_norm" };

struct Layer {
    before_attention: Norm,
    attention: Attention,
    behind_attention: Norm,
    before_feed_forward: Norm,
    feed_forward: FeedForward,
    behind_feed_forward: Norm,
}

impl Layer {
    fn load(config: &Config, weights: &Weights<'_>, layer: usize) -> Result<Layer, ModelError> {
        let norm = |name| weights.norm(NormKind::Rms, name, layer, config.hidden);
        Ok(Layer {
            before_attention: norm(BEFORE_ATTENTION)?,
            attention: Attention::load(config, weights, layer)?,
            behind_attention: norm(BEHIND_ATTENTION)?,
            before_feed_forward: norm(BEFORE_FEED_FORWARD)?,
            feed_forward: FeedForward::load(config, weights, layer)?,
            behind_feed_forward: norm(BEHIND_FEED_FORWARD)?,
        })
    }
}

impl super::Layer for Layer {
    fn forward(&self, layer: usize, x: &mut Tensor<'_>, ops: &mut Operations<'_>) {
        let attended = self.attention.of(layer, self.before_attention.of(x), ops);
        ops.add_normed(x, &self.behind_attention, self.attention.output(&attended));

        ops.by_rows(x, |x, ops| {
            let gate_up = self.feed_forward.gate_up(self.before_feed_forward.of(x), ops);
            ops.add_normed(x, &self.behind_feed_forward, self.feed_forward.down(&gate_up));
        });
    }

    fn linears(&self) -> Vec<&Linear> {
        self.attention.linears().chain(self.feed_forward.linears()).collect()
    }

    fn norms(&self) -> Vec<&Norm> {
        let attention = [&self.before_attention, &self.behind_attention];
        let feed_forward = [&self.before_feed_forward, &self.behind_feed_forward];
        attention.into_iter().chain(feed_forward).chain(self.attention.norms()).collect()
    }

    fn attention_output(&self) -> &Matrix {
        self.attention.output_matrix()
    }
}
