//! OLMo 2: norms behind attention and feed-forward alone, and over all queries and all keys.
//!
//! Each layer adds to the residual stream x:
//!
//! ```text
//! x += rms_norm(Wo · attention(rotate(rms_norm(Wq · x)), rotate(rms_norm(Wk · x)), Wv · x))
//! x += rms_norm(Wdown · (silu(Wgate · x) ∘ Wup · x))
//! ```

use super::Family;
use super::attention::Attention;
use super::feed_forward::FeedForward;
use crate::forward::{Operations, Tensor, Value};
use crate::weights::{Linear, Name, Norm, NormKind, Weights};
use crate::{Config, ModelError};
use sketchkv_kernels::Matrix;

pub(super) static FAMILY: Family = Family {
    load_layer: |config, weights, layer| Ok(Box::new(Layer::load(config, weights, layer)?)),
    ..super::llama::FAMILY
};

const BEHIND_ATTENTION: Name =
    Name { hub: "model.layers.{}.post_attention_layernorm", gguf: "blk.{}.post_attention_norm" };
const BEHIND_FEED_FORWARD: Name =
    Name { hub: "model.layers.{}.post_feedforward_layernorm", gguf: "blk.{}.post_ffw_norm" };

struct Layer {
    attention: Attention,
    behind_attention: Norm,
    feed_forward: FeedForward,
    behind_feed_forward: Norm,
}

impl Layer {
    fn load(config: &Config, weights: &Weights<'_>, layer: usize) -> Result<Layer, ModelError> {
        let norm = |name| weights.norm(NormKind::Rms, name, layer, config.hidden);
        Ok(Layer {
            attention: Attention::load(config, weights, layer)?,
            behind_attention: norm(BEHIND_ATTENTION)?,
            feed_forward: FeedForward::load(config, weights, layer)?,
            behind_feed_forward: norm(BEHIND_FEED_FORWARD)?,
        })
    }
}

impl super::Layer for Layer {
    fn forward(&self, layer: usize, x: &mut Tensor<'_>, ops: &mut Operations<'_>) {
        let attended = self.attention.of(layer, Value::from(&*x), ops);
        ops.add_normed(x, &self.behind_attention, self.attention.output(&attended));

        ops.by_rows(x, |x, ops| {
            let gate_up = self.feed_forward.gate_up(Value::from(&*x), ops);
            ops.add_normed(x, &self.behind_feed_forward, self.feed_forward.down(&gate_up));
        });
    }

    fn linears(&self) -> Vec<&Linear> {
        self.attention.linears().chain(self.feed_forward.linears()).collect()
    }

    fn norms(&self) -> Vec<&Norm> {
        [&self.behind_attention, &self.behind_feed_forward]
            .into_iter()
            .chain(self.attention.norms())
            .collect()
    }

    fn attention_output(&self) -> &Matrix {
        self.attention.output_matrix()
    }
}
