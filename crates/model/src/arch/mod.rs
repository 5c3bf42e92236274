//! The networks, one file each.

mod gpt2;
mod llama;

use crate::forward::Pass;
use crate::weights::Weights;
use crate::{Architecture, Config, ModelError};
use gpt2::Gpt2;
use llama::Llama;
use sketchkv_kernels::{Input, Matrix};

/// A network of one of the architectures, its weights loaded.
pub(crate) enum Network {
    Gpt2(Gpt2),
    Llama(Llama),
}

impl Network {
    pub(crate) fn load(config: &Config, weights: &Weights<'_>) -> Result<Network, ModelError> {
        match config.architecture {
            Architecture::Gpt2 => Gpt2::load(config, weights).map(Network::Gpt2),
            Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 => {
                Llama::load(config, weights).map(Network::Llama)
            }
        }
    }

    /// Runs the tokens of the pass through all layers; leaves the residual stream in the pass.
    pub(crate) fn run(&self, pass: &mut Pass<'_, '_>) {
        match self {
            Network::Gpt2(network) => network.run(pass),
            Network::Llama(network) => network.run(pass),
        }
    }

    /// The final norm of `x` `[token][hidden]` and the projection to logits `[token][vocabulary]`.
    pub(crate) fn head(&self) -> (&Matrix, FinalNorm<'_>) {
        match self {
            Network::Gpt2(network) => network.head(),
            Network::Llama(network) => network.head(),
        }
    }

    /// The output projections of attention, by layer.
    pub(crate) fn attention_outputs(&self) -> Vec<&Matrix> {
        match self {
            Network::Gpt2(network) => network.attention_outputs().collect(),
            Network::Llama(network) => network.attention_outputs().collect(),
        }
    }

    /// Bytes of the weights in memory.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Network::Gpt2(network) => network.bytes(),
            Network::Llama(network) => network.bytes(),
        }
    }

    /// Bytes of the weights that the products of one token read.
    pub(crate) fn step_bytes(&self) -> usize {
        let rows_only = match self {
            Network::Gpt2(network) => network.table_bytes(),
            Network::Llama(network) => network.table_bytes(),
        };
        self.bytes() - rows_only
    }
}

/// The norm before the projection to logits.
#[derive(Clone, Copy)]
pub(crate) struct FinalNorm<'a> {
    weight: &'a [f32],
    /// A layer norm has a bias, an RMS norm none.
    bias: Option<&'a [f32]>,
    eps: f32,
}

impl<'a> FinalNorm<'a> {
    /// `x` `[token][hidden]` on its way through the norm.
    pub(crate) fn of(self, x: &'a [f32]) -> Input<'a> {
        let FinalNorm { weight, bias, eps } = self;
        match bias {
            Some(bias) => Input::LayerNorm { x, weight, bias, eps },
            None => Input::RmsNorm { x, weight, eps },
        }
    }
}
