//! Feed-forwards of which each token goes through a few: the products of an expert are those of its tokens alone.

use crate::config::{Bias, Experts as Shape};
use crate::forward::{Operations, Tensor, Value, silu_gate};
use crate::weights::{Linear, Name, Source, Weights};
use crate::{Architecture, Config, ModelError};

/// Names of an architecture's tensors.
struct Names {
    router: Name,
    gate: Name,
    up: Name,
    down: Name,
}

const MIXTRAL: Names = Names {
    router: Name { hub: "model.layers.{}.block_sparse_moe.gate", gguf: "blk.{}.ffn_gate_inp" },
    gate: Name { hub: "model.layers.{}.block_sparse_moe.experts.{e}.w1", gguf: "blk.{}.ffn_gate_exps" },
    up: Name { hub: "model.layers.{}.block_sparse_moe.experts.{e}.w3", gguf: "blk.{}.ffn_up_exps" },
    down: Name { hub: "model.layers.{}.block_sparse_moe.experts.{e}.w2", gguf: "blk.{}.ffn_down_exps" },
};
const QWEN3: Names = Names {
    router: Name { hub: "model.layers.{}.mlp.gate", gguf: "blk.{}.ffn_gate_inp" },
    gate: Name { hub: "model.layers.{}.mlp.experts.{e}.gate_proj", gguf: "blk.{}.ffn_gate_exps" },
    up: Name { hub: "model.layers.{}.mlp.experts.{e}.up_proj", gguf: "blk.{}.ffn_up_exps" },
    down: Name { hub: "model.layers.{}.mlp.experts.{e}.down_proj", gguf: "blk.{}.ffn_down_exps" },
};

/// The experts of a layer, and what chooses among them.
pub(super) struct Experts {
    router: Linear,
    experts: Vec<Expert>,
    used: usize,
    normalized: bool,
}

struct Expert {
    /// `[gate, up]`
    gate_up: Linear,
    down: Linear,
}

impl Experts {
    pub(super) fn load(
        config: &Config,
        shape: &Shape,
        weights: &Weights<'_>,
        layer: usize,
    ) -> Result<Experts, ModelError> {
        let &Shape { count, used, width, normalized, .. } = shape;
        let names = if config.architecture == Architecture::Mixtral { &MIXTRAL } else { &QWEN3 };
        let linear = |sources: &[Source], cols| weights.linear(sources, layer, cols, Bias::Absent);
        let expert = |index| {
            let source = |name, rows| Source::new(name, rows).expert(index, count);
            Ok(Expert {
                gate_up: linear(&[source(names.gate, width), source(names.up, width)], config.hidden)?,
                down: linear(&[source(names.down, config.hidden)], width)?,
            })
        };
        Ok(Experts {
            router: linear(&[Source::new(names.router, count)], config.hidden)?,
            experts: (0..count).map(expert).collect::<Result<_, ModelError>>()?,
            used,
            normalized,
        })
    }

    /// x += Σ weight · expert(m) over the experts that the router chooses for each token.
    pub(super) fn add(&self, x: &mut Tensor<'_>, m: &Tensor<'_>, ops: &mut Operations<'_>) {
        let scores = ops.compute(self.router.of(m));
        let routes = ops.route(scores, self.used, self.normalized);
        for (index, expert) in self.experts.iter().enumerate() {
            let own = routes.of(index);
            if own.is_empty() {
                continue;
            }
            let rows = ops.gather(m, own);
            let gate_up = ops.compute(expert.gate_up.of(Value::from(&rows)));
            let out = ops.compute(expert.down.of(silu_gate(&gate_up)));
            ops.scatter(x, &out, own);
        }
        ops.end_route(routes);
    }

    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        let own = self.experts.iter().flat_map(|expert| [&expert.gate_up, &expert.down]);
        std::iter::once(&self.router).chain(own)
    }

    /// The experts that a token does not go through, as a share of the bytes of all.
    pub(super) fn idle_bytes(&self) -> usize {
        let all: usize = self.experts.iter().map(|e| e.gate_up.bytes() + e.down.bytes()).sum();
        all - all / self.experts.len() * self.used
    }
}
