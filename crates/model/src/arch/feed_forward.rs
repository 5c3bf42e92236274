//! The gated feed-forward: activation(gate) ∘ up, projected back.

use crate::forward::{Operations, Product, Tensor, Value, gelu_gate, silu_gate};
use crate::weights::{Linear, Name, Source, Weights};
use crate::{Architecture, Config, ModelError};

const GATE: Name = Name { hub: "model.layers.{}.mlp.gate_proj", gguf: "blk.{}.ffn_gate" };
const UP: Name = Name { hub: "model.layers.{}.mlp.up_proj", gguf: "blk.{}.ffn_up" };
const GATE_UP: Name = Name { hub: "model.layers.{}.mlp.gate_up_proj", gguf: "blk.{}.ffn_up" };
const DOWN: Name = Name { hub: "model.layers.{}.mlp.down_proj", gguf: "blk.{}.ffn_down" };

/// Projections up and down.
pub(super) struct FeedForward {
    /// `[gate, up]`
    gate_up: Linear,
    down: Linear,
    gelu: bool,
}

impl FeedForward {
    pub(super) fn load(
        config: &Config,
        weights: &Weights<'_>,
        layer: usize,
    ) -> Result<FeedForward, ModelError> {
        let &Config { hidden, feed_forward, architecture, biases, .. } = config;
        let fused = [Source::new(GATE_UP, 2 * feed_forward)];
        let apart = [Source::new(GATE, feed_forward), Source::new(UP, feed_forward)];
        let sources = if architecture == Architecture::Phi3 { &fused[..] } else { &apart };
        Ok(FeedForward {
            gate_up: weights.linear(sources, layer, hidden, biases.feed_forward)?,
            down: weights.linear(&[Source::new(DOWN, hidden)], layer, feed_forward, biases.feed_forward)?,
            gelu: architecture.is_gemma(),
        })
    }

    /// `[token][gate, up]` of each row of `m`.
    pub(super) fn gate_up<'a>(&self, m: Value<'_>, ops: &mut Operations<'a>) -> Tensor<'a> {
        ops.compute(self.gate_up.of(m))
    }

    /// The gated values, projected back.
    pub(super) fn down<'a>(&'a self, gate_up: &'a Tensor<'_>) -> Product<'a> {
        self.down.of(if self.gelu { gelu_gate(gate_up) } else { silu_gate(gate_up) })
    }

    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        [&self.gate_up, &self.down].into_iter()
    }
}
