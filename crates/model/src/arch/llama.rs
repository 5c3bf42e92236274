//! The Llama family: Llama, SmolLM2, TinyLlama, Mistral, and Qwen2 with its biases.
//!
//! Each layer adds to the residual stream x:
//!
//! ```text
//! x += Wo · attention(rope(Wq · n), rope(Wk · n), Wv · n)      n = rms_norm(x)
//! x += Wdown · (silu(Wgate · m) ∘ Wup · m)                     m = rms_norm(x)
//! ```

use super::FinalNorm;
use crate::forward::Pass;
use crate::weights::{Layout, Linear, Name, Part, Weights};
use crate::{Architecture, Config, ModelError};
use sketchkv_kernels::ops::Rope;
use sketchkv_kernels::{Input, Matrix};

const EMBEDDING: Name = Name { hub: "model.embed_tokens", gguf: "token_embd" };
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
const FINAL_NORM: Name = Name { hub: "model.norm", gguf: "output_norm" };
/// The projection to logits; tied to the embedding when absent.
const OUTPUT: Name = Name { hub: "lm_head", gguf: "output" };

pub(crate) struct Llama {
    embedding: Matrix,
    layers: Vec<Layer>,
    final_norm: Vec<f32>,
    /// `None` when tied to the embedding.
    output: Option<Matrix>,
    rope: Rope,
    eps: f32,
}

struct Layer {
    attention_norm: Vec<f32>,
    /// `[q, k, v]`
    qkv: Linear,
    attention_output: Linear,
    feed_forward_norm: Vec<f32>,
    /// `[gate, up]`
    gate_up: Linear,
    down: Linear,
}

impl Llama {
    pub(crate) fn load(config: &Config, weights: &Weights<'_>) -> Result<Llama, ModelError> {
        let &Config { hidden, vocabulary, .. } = config;
        let output = !config.tied_embeddings && weights.has(OUTPUT);
        let vocabulary_rows = |name| weights.matrix(&[Part::new(name, vocabulary)], 0, hidden);
        let frequencies = config.rope.as_ref().map(|rope| rope.inverse_frequencies.clone());
        Ok(Llama {
            embedding: vocabulary_rows(EMBEDDING)?,
            layers: (0..config.layers).map(|l| Layer::load(config, weights, l)).collect::<Result<_, _>>()?,
            final_norm: weights.vector(FINAL_NORM, 0, "weight", hidden)?,
            output: if output { Some(vocabulary_rows(OUTPUT)?) } else { None },
            rope: Rope::from_frequencies(frequencies.unwrap_or_default()),
            eps: config.norm_epsilon,
        })
    }

    pub(crate) fn run(&self, pass: &mut Pass<'_, '_>) {
        pass.embed(&self.embedding);
        pass.set_angles(&self.rope);
        for (l, layer) in self.layers.iter().enumerate() {
            layer.run(l, self.eps, pass);
        }
    }

    pub(crate) fn head(&self) -> (&Matrix, FinalNorm<'_>) {
        let norm = FinalNorm { weight: &self.final_norm, bias: None, eps: self.eps };
        (self.output.as_ref().unwrap_or(&self.embedding), norm)
    }

    pub(crate) fn attention_outputs(&self) -> impl Iterator<Item = &Matrix> {
        self.layers.iter().map(|layer| &layer.attention_output.matrix)
    }

    pub(crate) fn bytes(&self) -> usize {
        let vocabulary = self.embedding.bytes() + self.output.as_ref().map_or(0, Matrix::bytes);
        vocabulary + self.layers.iter().map(Layer::bytes).sum::<usize>() + self.final_norm.len() * 4
    }

    /// Bytes of the tables of which a token takes one row.
    pub(crate) fn table_bytes(&self) -> usize {
        if self.output.is_some() { self.embedding.bytes() } else { 0 }
    }
}

impl Layer {
    fn load(config: &Config, weights: &Weights<'_>, l: usize) -> Result<Layer, ModelError> {
        let &Config { hidden, heads, kv_heads, head_dim, feed_forward, architecture, .. } = config;
        // The converter to GGUF reorders Q and K of Llama and Mistral, not of Qwen2.
        let interleaved = weights.is_gguf() && architecture != Architecture::Qwen2;
        let rotated = |heads| if interleaved { Layout::Interleaved { heads } } else { Layout::Rows };
        let qkv = [
            Part::new(Q, heads * head_dim).layout(rotated(heads)),
            Part::new(K, kv_heads * head_dim).layout(rotated(kv_heads)),
            Part::new(V, kv_heads * head_dim),
        ];
        let gate_up = [Part::new(GATE, feed_forward), Part::new(UP, feed_forward)];
        let attention_output = weights.linear(&[Part::new(ATTENTION_OUTPUT, hidden)], l, heads * head_dim)?;
        let norm = |name| weights.vector(name, l, "weight", hidden);
        Ok(Layer {
            attention_norm: norm(ATTENTION_NORM)?,
            qkv: weights.linear(&qkv, l, hidden)?,
            attention_output: attention_output.with_coarse_input(),
            feed_forward_norm: norm(FEED_FORWARD_NORM)?,
            gate_up: weights.linear(&gate_up, l, hidden)?,
            down: weights.linear(&[Part::new(DOWN, hidden)], l, feed_forward)?,
        })
    }

    fn run(&self, l: usize, eps: f32, pass: &mut Pass<'_, '_>) {
        pass.project_qkv(&self.qkv, |x| Input::RmsNorm { x, weight: &self.attention_norm, eps });
        pass.attend(l);
        pass.add_attention(&self.attention_output);
        pass.widen(&self.gate_up, |x| Input::RmsNorm { x, weight: &self.feed_forward_norm, eps });
        pass.narrow(&self.down, Input::SiluMul);
    }

    fn bytes(&self) -> usize {
        let matrices = [&self.qkv, &self.attention_output, &self.gate_up, &self.down];
        let norms = (self.attention_norm.len() + self.feed_forward_norm.len()) * 4;
        matrices.iter().map(|linear| linear.bytes()).sum::<usize>() + norms
    }
}
