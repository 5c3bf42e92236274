//! GPT-2: learned positions, layer norms, biases everywhere.
//!
//! The residual stream begins as x = token embedding + position embedding; each layer adds to it:
//!
//! ```text
//! x += Wo · attention(Wq · n + bq, Wk · n + bk, Wv · n + bv) + bo      n = layer_norm(x)
//! x += Wproj · gelu(Wfc · m + bfc) + bproj                             m = layer_norm(x)
//! ```

use super::Family;
use crate::config::Bias;
use crate::forward::{Operations, Tensor, gelu};
use crate::weights::{Linear, Name, Norm, NormKind, RowOrder, Source, Weights};
use crate::{Config, ModelError};
use sketchkv_kernels::Matrix;

pub(super) static FAMILY: Family = Family {
    tokens: Name { hub: "transformer.wte", gguf: "token_embd" },
    positions: Some(Name { hub: "transformer.wpe", gguf: "position_embd" }),
    final_norm: (NormKind::Layer, Name { hub: "transformer.ln_f", gguf: "output_norm" }),
    output: Name { hub: "lm_head", gguf: "output" },
    load_layer: |config, weights, layer| Ok(Box::new(Layer::load(config, weights, layer)?)),
};

const ATTENTION_NORM: Name = Name { hub: "transformer.h.{}.ln_1", gguf: "blk.{}.attn_norm" };
const QKV: Name = Name { hub: "transformer.h.{}.attn.c_attn", gguf: "blk.{}.attn_qkv" };
const ATTENTION_OUTPUT: Name = Name { hub: "transformer.h.{}.attn.c_proj", gguf: "blk.{}.attn_output" };
const FEED_FORWARD_NORM: Name = Name { hub: "transformer.h.{}.ln_2", gguf: "blk.{}.ffn_norm" };
const UP: Name = Name { hub: "transformer.h.{}.mlp.c_fc", gguf: "blk.{}.ffn_up" };
const DOWN: Name = Name { hub: "transformer.h.{}.mlp.c_proj", gguf: "blk.{}.ffn_down" };

struct Layer {
    attention_norm: Norm,
    /// `[q, k, v]`
    qkv: Linear,
    attention_output: Linear,
    feed_forward_norm: Norm,
    up: Linear,
    down: Linear,
}

impl Layer {
    fn load(config: &Config, weights: &Weights<'_>, layer: usize) -> Result<Layer, ModelError> {
        let &Config { hidden, feed_forward, .. } = config;
        let order = if weights.is_gguf() { RowOrder::Outputs } else { RowOrder::Inputs };
        let linear = |name, rows, cols| {
            weights.linear(&[Source::new(name, rows).order(order)], layer, cols, Bias::Present)
        };
        let norm = |name| weights.norm(NormKind::Layer, name, layer, hidden);
        Ok(Layer {
            attention_norm: norm(ATTENTION_NORM)?,
            qkv: linear(QKV, 3 * hidden, hidden)?,
            attention_output: linear(ATTENTION_OUTPUT, hidden, hidden)?.with_coarse_input(),
            feed_forward_norm: norm(FEED_FORWARD_NORM)?,
            up: linear(UP, feed_forward, hidden)?,
            down: linear(DOWN, hidden, feed_forward)?,
        })
    }
}

impl super::Layer for Layer {
    fn forward(&self, layer: usize, x: &mut Tensor<'_>, ops: &mut Operations<'_>) {
        let n = self.attention_norm.of(x);
        let qkv = ops.compute(self.qkv.of(n));
        let [q, k, v] = ops.split(layer, qkv);
        let attended = ops.attend(layer, q, k, v);
        ops.add(x, self.attention_output.of(&attended));

        ops.by_rows(x, |x, ops| {
            let up = ops.compute(self.up.of(self.feed_forward_norm.of(x)));
            ops.add(x, self.down.of(gelu(&up)));
        });
    }

    fn linears(&self) -> Vec<&Linear> {
        vec![&self.qkv, &self.attention_output, &self.up, &self.down]
    }

    fn norms(&self) -> Vec<&Norm> {
        vec![&self.attention_norm, &self.feed_forward_norm]
    }

    fn attention_output(&self) -> &Matrix {
        &self.attention_output.matrix
    }
}
