//! What a product reads, and how it is computed on the way.

use crate::cpu::Level;
use crate::ops;
use std::ops::Range;

/// What a product multiplies the weights with, computed while it is read. All are `[token][cols]` unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The values themselves.
    Plain(&'a [f32]),
    /// [`ops::rms_norm`] of each token.
    RmsNorm {
        /// Values to norm.
        x: &'a [f32],
        /// `[cols]`
        weight: &'a [f32],
        /// Added to the mean square.
        eps: f32,
    },
    /// [`ops::layer_norm`] of each token.
    LayerNorm {
        /// Values to norm.
        x: &'a [f32],
        /// `[cols]`
        weight: &'a [f32],
        /// `[cols]`
        bias: &'a [f32],
        /// Added to the variance.
        eps: f32,
    },
    /// silu(gate) · up of `[token][gate, up][cols]`, the output of stacked gate and up matrices.
    SiluMul(&'a [f32]),
    /// gelu(gate) · up, as `SiluMul`.
    GeluMul(&'a [f32]),
    /// [`ops::gelu`] of each value.
    Gelu(&'a [f32]),
}

impl Input<'_> {
    /// Panics unless the slices fit `tokens` × `cols`.
    pub(crate) fn check(&self, tokens: usize, cols: usize) {
        let (x, width) = match *self {
            Input::Plain(x) | Input::Gelu(x) => (x, cols),
            Input::SiluMul(x) | Input::GeluMul(x) => (x, 2 * cols),
            Input::RmsNorm { x, weight, .. } => {
                assert_eq!(weight.len(), cols, "a norm has a weight for each column");
                (x, cols)
            }
            Input::LayerNorm { x, weight, bias, .. } => {
                assert!(
                    weight.len() == cols && bias.len() == cols,
                    "a norm has a weight and a bias for each column"
                );
                (x, cols)
            }
        };
        assert_eq!(x.len(), tokens * width, "the input of a product is [{tokens} tokens][{width} values]");
    }

    /// What is needed to compute the values of one token.
    pub(super) fn token(&self, level: Level, token: usize, cols: usize) -> TokenInput<'_> {
        let columns = token * cols..(token + 1) * cols;
        match *self {
            Input::Plain(x) => TokenInput::Plain(&x[columns]),
            Input::RmsNorm { x, weight, eps } => {
                let x = &x[columns];
                TokenInput::Scaled { x, weight, scale: ops::inverse_root_mean_square(level, x, eps) }
            }
            Input::LayerNorm { x, weight, bias, eps } => {
                let x = &x[columns];
                let (mean, scale) = ops::mean_and_inverse_deviation(level, x, eps);
                TokenInput::Centred { x, weight, bias, mean, scale }
            }
            Input::SiluMul(x) => {
                let (gate, up) = x[token * 2 * cols..][..2 * cols].split_at(cols);
                TokenInput::SiluMul { gate, up }
            }
            Input::GeluMul(x) => {
                let (gate, up) = x[token * 2 * cols..][..2 * cols].split_at(cols);
                TokenInput::GeluMul { gate, up }
            }
            Input::Gelu(x) => TokenInput::Gelu(&x[columns]),
        }
    }
}

/// The input of one token, each slice `[cols]`.
pub(super) enum TokenInput<'a> {
    Plain(&'a [f32]),
    Scaled { x: &'a [f32], weight: &'a [f32], scale: f32 },
    Centred { x: &'a [f32], weight: &'a [f32], bias: &'a [f32], mean: f32, scale: f32 },
    SiluMul { gate: &'a [f32], up: &'a [f32] },
    GeluMul { gate: &'a [f32], up: &'a [f32] },
    Gelu(&'a [f32]),
}

impl TokenInput<'_> {
    /// Computes the values of some columns.
    pub(super) fn compute(&self, level: Level, columns: Range<usize>, out: &mut [f32]) {
        match *self {
            TokenInput::Plain(x) => out.copy_from_slice(&x[columns]),
            TokenInput::Scaled { x, weight, scale } => {
                ops::scale(level, &x[columns.clone()], &weight[columns], scale, out);
            }
            TokenInput::Centred { x, weight, bias, mean, scale } => {
                let (x, weight, bias) = (&x[columns.clone()], &weight[columns.clone()], &bias[columns]);
                ops::centre(level, x, weight, bias, mean, scale, out);
            }
            TokenInput::SiluMul { gate, up } => {
                ops::silu_mul_at(level, &gate[columns.clone()], &up[columns], out);
            }
            TokenInput::GeluMul { gate, up } => {
                ops::gelu_mul_at(level, &gate[columns.clone()], &up[columns], out);
            }
            TokenInput::Gelu(x) => {
                out.copy_from_slice(&x[columns]);
                ops::gelu_at(level, out);
            }
        }
    }
}
