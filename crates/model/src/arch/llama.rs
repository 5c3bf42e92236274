//! The Llama family: Llama, SmolLM2, TinyLlama, Mistral, and Qwen2 with its biases.
//!
//! Each layer adds to the residual stream x:
//!
//! ```text
//! x += Wo · attention(rotate(Wq · n), rotate(Wk · n), Wv · n)      n = rms_norm(x)
//! x += Wdown · (silu(Wgate · m) ∘ Wup · m)                         m = rms_norm(x)
//! ```

use super::Family;
use crate::forward::{Operations, Tensor, silu_gate};
use crate::weights::{Linear, Name, Norm, NormKind, RowOrder, Source, Weights};
use crate::{Architecture, Config, ModelError};
use sketchkv_cache::LayerShape;
use sketchkv_kernels::Matrix;

pub(super) static FAMILY: Family = Family {
    tokens: Name { hub: "model.embed_tokens", gguf: "token_embd" },
    positions: None,
    final_norm: (NormKind::Rms, Name { hub: "model.norm", gguf: "output_norm" }),
    output: Name { hub: "lm_head", gguf: "output" },
    load_layer: |config, weights, layer| Ok(Box::new(Layer::load(config, weights, layer)?)),
};

const ATTENTION_NORM: Name = Name { hub: "model.layers.{}.input_layernorm", gguf: "blk.{}.attn_norm" };
const Q: Name = Name { hub: "model.layers.{}.self_attn.q_proj", gguf: "blk.{}.attn_q" };
const K: Name = Name { hub: "model.layers.{}.self_attn.k_proj", gguf: "blk.{}.attn_k" };
const V: Name = Name { hub: "model.layers.{}.self_attn.v_proj", gguf: "blk.{}.attn_v" };
const ATTENTION_OUTPUT: Name = Name { hub: "model.layers.{}.self_attn.o_proj", gguf: "blk.{}.attn_output" };
const FEED_FORWARD_NORM: Name =
    Name { hub: "model.layers.{}.post_attention_layernorm", gguf: "blk.{}.ffn_norm" };
const GATE: Name = Name { hub: "model.layers.{}.mlp.gate_proj", gguf: "blk.{}.ffn_gate" };
const UP: Name = Name { hub: "model.layers.{}.mlp.up_proj", gguf: "blk.{}.ffn_up" };
const DOWN: Name = Name { hub: "model.layers.{}.mlp.down_proj", gguf: "blk.{}.ffn_down" };

struct Layer {
    attention_norm: Norm,
    /// `[q, k, v]`
    qkv: Linear,
    attention_output: Linear,
    feed_forward_norm: Norm,
    /// `[gate, up]`
    gate_up: Linear,
    down: Linear,
}

impl Layer {
    fn load(config: &Config, weights: &Weights<'_>, layer: usize) -> Result<Layer, ModelError> {
        let &Config { hidden, feed_forward, architecture, .. } = config;
        let LayerShape { heads, kv_heads, key_dim, value_dim, .. } = config.layers[layer];
        // The converter to GGUF reorders Q and K of Llama and Mistral, not of Qwen2.
        let interleaved = weights.is_gguf() && architecture != Architecture::Qwen2;
        let rotated = |heads| if interleaved { RowOrder::Interleaved { heads } } else { RowOrder::Outputs };
        let qkv = [
            Source::new(Q, heads * key_dim).order(rotated(heads)),
            Source::new(K, kv_heads * key_dim).order(rotated(kv_heads)),
            Source::new(V, kv_heads * value_dim),
        ];
        let gate_up = [Source::new(GATE, feed_forward), Source::new(UP, feed_forward)];
        let linear = |sources: &[Source], cols| weights.linear(sources, layer, cols);
        let norm = |name| weights.norm(NormKind::Rms, name, layer, hidden);
        Ok(Layer {
            attention_norm: norm(ATTENTION_NORM)?,
            qkv: linear(&qkv, hidden)?,
            attention_output: linear(&[Source::new(ATTENTION_OUTPUT, hidden)], heads * value_dim)?
                .with_coarse_input(),
            feed_forward_norm: norm(FEED_FORWARD_NORM)?,
            gate_up: linear(&gate_up, hidden)?,
            down: linear(&[Source::new(DOWN, hidden)], feed_forward)?,
        })
    }
}

impl super::Layer for Layer {
    fn forward(&self, layer: usize, x: &mut Tensor<'_>, ops: &mut Operations<'_>) {
        let n = self.attention_norm.of(x);
        let qkv = ops.compute(self.qkv.of(n));
        let [mut q, mut k, v] = ops.split(layer, qkv);
        ops.rotate(layer, &mut q);
        ops.rotate(layer, &mut k);
        let attended = ops.attend(layer, q, k, v);
        ops.add(x, self.attention_output.of(&attended));

        let m = self.feed_forward_norm.of(x);
        let gate_up = ops.compute(self.gate_up.of(m));
        ops.add(x, self.down.of(silu_gate(&gate_up)));
    }

    fn linears(&self) -> Vec<&Linear> {
        vec![&self.qkv, &self.attention_output, &self.gate_up, &self.down]
    }

    fn norms(&self) -> Vec<&Norm> {
        vec![&self.attention_norm, &self.feed_forward_norm]
    }

    fn attention_output(&self) -> &Matrix {
        &self.attention_output.matrix
    }
}
