//! GPT-2: learned positions, layer norms, biases everywhere.
//!
//! The residual stream begins as x = token embedding + position embedding; each layer adds to it:
//!
//! ```text
//! x += Wo · attention(Wq · n + bq, Wk · n + bk, Wv · n + bv) + bo      n = layer_norm(x)
//! x += Wproj · gelu(Wfc · m + bfc) + bproj                             m = layer_norm(x)
//! ```

use super::FinalNorm;
use crate::forward::Pass;
use crate::weights::{Layout, Linear, Name, Part, Weights};
use crate::{Config, ModelError};
use sketchkv_kernels::{Input, Matrix};

const TOKENS: Name = Name { hub: "transformer.wte", gguf: "token_embd" };
const POSITIONS: Name = Name { hub: "transformer.wpe", gguf: "position_embd" };
const ATTENTION_NORM: Name = Name { hub: "transformer.h.{}.ln_1", gguf: "blk.{}.attn_norm" };
const QKV: Name = Name { hub: "transformer.h.{}.attn.c_attn", gguf: "blk.{}.attn_qkv" };
const ATTENTION_OUTPUT: Name = Name { hub: "transformer.h.{}.attn.c_proj", gguf: "blk.{}.attn_output" };
const FEED_FORWARD_NORM: Name = Name { hub: "transformer.h.{}.ln_2", gguf: "blk.{}.ffn_norm" };
const UP: Name = Name { hub: "transformer.h.{}.mlp.c_fc", gguf: "blk.{}.ffn_up" };
const DOWN: Name = Name { hub: "transformer.h.{}.mlp.c_proj", gguf: "blk.{}.ffn_down" };
const FINAL_NORM: Name = Name { hub: "transformer.ln_f", gguf: "output_norm" };
/// The projection to logits; tied to the embedding when absent.
const OUTPUT: Name = Name { hub: "lm_head", gguf: "output" };

pub(crate) struct Gpt2 {
    tokens: Matrix,
    positions: Matrix,
    layers: Vec<Layer>,
    final_norm: Norm,
    /// `None` when tied to the embedding.
    output: Option<Matrix>,
    eps: f32,
}

struct Layer {
    attention_norm: Norm,
    qkv: Linear,
    attention_output: Linear,
    feed_forward_norm: Norm,
    up: Linear,
    down: Linear,
}

struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Gpt2 {
    pub(crate) fn load(config: &Config, weights: &Weights<'_>) -> Result<Gpt2, ModelError> {
        let &Config { hidden, vocabulary, context, .. } = config;
        let embedding = |name, rows| weights.matrix(&[Part::new(name, rows)], 0, hidden);
        let output = !config.tied_embeddings && weights.has(OUTPUT);
        Ok(Gpt2 {
            tokens: embedding(TOKENS, vocabulary)?,
            positions: embedding(POSITIONS, context)?,
            layers: (0..config.layers).map(|l| Layer::load(config, weights, l)).collect::<Result<_, _>>()?,
            final_norm: Norm::load(weights, FINAL_NORM, 0, hidden)?,
            output: if output { Some(embedding(OUTPUT, vocabulary)?) } else { None },
            eps: config.norm_epsilon,
        })
    }

    pub(crate) fn run(&self, pass: &mut Pass<'_, '_>) {
        pass.embed(&self.tokens);
        pass.add_positions(&self.positions);
        for (l, layer) in self.layers.iter().enumerate() {
            layer.run(l, self.eps, pass);
        }
    }

    pub(crate) fn head(&self) -> (&Matrix, FinalNorm<'_>) {
        let Norm { weight, bias } = &self.final_norm;
        (self.output.as_ref().unwrap_or(&self.tokens), FinalNorm { weight, bias: Some(bias), eps: self.eps })
    }

    pub(crate) fn attention_outputs(&self) -> impl Iterator<Item = &Matrix> {
        self.layers.iter().map(|layer| &layer.attention_output.matrix)
    }

    pub(crate) fn bytes(&self) -> usize {
        let embeddings =
            self.tokens.bytes() + self.positions.bytes() + self.output.as_ref().map_or(0, Matrix::bytes);
        embeddings + self.layers.iter().map(Layer::bytes).sum::<usize>() + self.final_norm.bytes()
    }

    /// Bytes of the tables of which a token takes one row.
    pub(crate) fn table_bytes(&self) -> usize {
        self.positions.bytes() + if self.output.is_some() { self.tokens.bytes() } else { 0 }
    }
}

impl Layer {
    fn load(config: &Config, weights: &Weights<'_>, l: usize) -> Result<Layer, ModelError> {
        let &Config { hidden, feed_forward, .. } = config;
        let layout = if weights.is_gguf() { Layout::Rows } else { Layout::Transposed };
        let linear = |name, rows, cols| weights.linear(&[Part::new(name, rows).layout(layout)], l, cols);
        Ok(Layer {
            attention_norm: Norm::load(weights, ATTENTION_NORM, l, hidden)?,
            qkv: linear(QKV, 3 * hidden, hidden)?,
            attention_output: linear(ATTENTION_OUTPUT, hidden, hidden)?.with_coarse_input(),
            feed_forward_norm: Norm::load(weights, FEED_FORWARD_NORM, l, hidden)?,
            up: linear(UP, feed_forward, hidden)?,
            down: linear(DOWN, hidden, feed_forward)?,
        })
    }

    fn run(&self, l: usize, eps: f32, pass: &mut Pass<'_, '_>) {
        pass.project_qkv(&self.qkv, |x| self.attention_norm.of(x, eps));
        pass.attend(l);
        pass.add_attention(&self.attention_output);
        pass.widen(&self.up, |x| self.feed_forward_norm.of(x, eps));
        pass.narrow(&self.down, Input::Gelu);
    }

    fn bytes(&self) -> usize {
        let matrices = [&self.qkv, &self.attention_output, &self.up, &self.down];
        let norms = self.attention_norm.bytes() + self.feed_forward_norm.bytes();
        matrices.iter().map(|linear| linear.bytes()).sum::<usize>() + norms
    }
}

impl Norm {
    fn load(weights: &Weights<'_>, name: Name, layer: usize, hidden: usize) -> Result<Norm, ModelError> {
        Ok(Norm {
            weight: weights.vector(name, layer, "weight", hidden)?,
            bias: weights.vector(name, layer, "bias", hidden)?,
        })
    }

    fn of<'a>(&'a self, x: &'a [f32], eps: f32) -> Input<'a> {
        Input::LayerNorm { x, weight: &self.weight, bias: &self.bias, eps }
    }

    fn bytes(&self) -> usize {
        (self.weight.len() + self.bias.len()) * 4
    }
}
