//! The attention of architectures with rotated queries and keys.

use crate::forward::{Operations, Product, Tensor, Value};
use crate::weights::{Linear, Name, Norm, NormKind, RowOrder, Source, Weights};
use crate::{Architecture, Config, ModelError};
use sketchkv_cache::LayerShape;
use sketchkv_kernels::Matrix;

const Q: Name = Name { hub: "model.layers.{}.self_attn.q_proj", gguf: "blk.{}.attn_q" };
const K: Name = Name { hub: "model.layers.{}.self_attn.k_proj", gguf: "blk.{}.attn_k" };
const V: Name = Name { hub: "model.layers.{}.self_attn.v_proj", gguf: "blk.{}.attn_v" };
const QKV: Name = Name { hub: "model.layers.{}.self_attn.qkv_proj", gguf: "blk.{}.attn_qkv" };
const OUTPUT: Name = Name { hub: "model.layers.{}.self_attn.o_proj", gguf: "blk.{}.attn_output" };
const Q_NORM: Name = Name { hub: "model.layers.{}.self_attn.q_norm", gguf: "blk.{}.attn_q_norm" };
const K_NORM: Name = Name { hub: "model.layers.{}.self_attn.k_norm", gguf: "blk.{}.attn_k_norm" };

/// Projections to queries, keys and values, and from what they attended to.
pub(super) struct Attention {
    /// `[q, k, v]`
    qkv: Linear,
    /// Of queries and of keys, each head or all of them at once.
    norms: Option<[Norm; 2]>,
    output: Linear,
}

impl Attention {
    pub(super) fn load(
        config: &Config,
        weights: &Weights<'_>,
        layer: usize,
    ) -> Result<Attention, ModelError> {
        let &Config { hidden, architecture, biases, .. } = config;
        let LayerShape { heads, kv_heads, key_dim, value_dim, .. } = config.layers[layer];
        let (q, k, v) = (heads * key_dim, kv_heads * key_dim, kv_heads * value_dim);
        let rotated = |name, heads| {
            let interleaved = weights.is_gguf() && is_reordered(architecture);
            let order = if interleaved { RowOrder::Interleaved { heads } } else { RowOrder::Outputs };
            Source::new(name, heads * key_dim).order(order)
        };
        let fused = [Source::new(QKV, q + k + v)];
        let apart = [rotated(Q, heads), rotated(K, kv_heads), Source::new(V, v)];
        let sources = if architecture == Architecture::Phi3 { &fused[..] } else { &apart };
        let output = [Source::new(OUTPUT, hidden)];
        let norms = |of_q, of_k| -> Result<[Norm; 2], ModelError> {
            let norm = |name, width| weights.norm(NormKind::Rms, name, layer, width);
            Ok([norm(Q_NORM, of_q)?, norm(K_NORM, of_k)?])
        };
        Ok(Attention {
            qkv: weights.linear(sources, layer, hidden, biases.qkv)?,
            norms: match architecture {
                Architecture::Qwen3 | Architecture::Qwen3Moe | Architecture::Gemma3 => {
                    Some(norms(key_dim, key_dim)?)
                }
                Architecture::Olmo2 => Some(norms(q, k)?),
                _ => None,
            },
            output: weights
                .linear(&output, layer, heads * value_dim, biases.attention_output)?
                .with_coarse_input(),
        })
    }

    /// What layer `layer` attends to for each row of `n`, `[token][head][value_dim]`.
    pub(super) fn of<'a>(&self, layer: usize, n: Value<'_>, ops: &mut Operations<'a>) -> Tensor<'a> {
        let qkv = ops.compute(self.qkv.of(n));
        let [mut q, mut k, v] = ops.split(layer, qkv);
        if let Some([of_q, of_k]) = &self.norms {
            (q, k) = (ops.norm(&q, of_q), ops.norm(&k, of_k));
        }
        ops.rotate(layer, &mut q);
        ops.rotate(layer, &mut k);
        ops.attend(layer, q, k, v)
    }

    /// The projection of what was attended to.
    pub(super) fn output<'a>(&'a self, attended: &'a Tensor<'_>) -> Product<'a> {
        self.output.of(attended)
    }

    pub(super) fn output_matrix(&self) -> &Matrix {
        &self.output.matrix
    }

    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        [&self.qkv, &self.output].into_iter()
    }

    pub(super) fn norms(&self) -> impl Iterator<Item = &Norm> {
        self.norms.iter().flatten()
    }
}

/// Whether the converter to GGUF reorders the rows of Q and K for interleaved rotation.
fn is_reordered(architecture: Architecture) -> bool {
    use Architecture::*;
    matches!(architecture, Llama | Mistral | Mixtral | SmolLm3 | Granite)
}
