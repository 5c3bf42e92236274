//! What an operation is to compute. Nothing here computes: a norm or an activation is worked out while the product reads
//! it, a product while the sum takes it.

use super::Tensor;
use crate::weights::{Linear, Norm};
use sketchkv_kernels::{Input, Matrix};

/// What a product reads, `[token][value]`.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    /// Activations as they are.
    Plain(&'a Tensor<'a>),
    /// What a norm makes of them.
    Normed(&'a Tensor<'a>, &'a Norm),
    /// gelu of each.
    Gelu(&'a Tensor<'a>),
    /// silu(gate) · up, of `[token][gate, up]`.
    SiluGate(&'a Tensor<'a>),
    /// gelu(gate) · up, of `[token][gate, up]`.
    GeluGate(&'a Tensor<'a>),
}

/// gelu(x), its tanh form.
pub(crate) fn gelu<'a>(x: &'a Tensor<'_>) -> Value<'a> {
    Value::Gelu(x)
}

/// silu(gate) ∘ up, of a product that gave both, `[token][gate, up]`.
pub(crate) fn silu_gate<'a>(gate_up: &'a Tensor<'_>) -> Value<'a> {
    Value::SiluGate(gate_up)
}

/// gelu(gate) ∘ up, as [`silu_gate`].
pub(crate) fn gelu_gate<'a>(gate_up: &'a Tensor<'_>) -> Value<'a> {
    Value::GeluGate(gate_up)
}

impl Norm {
    /// The norm of each row of `x`.
    pub(crate) fn of<'a>(&'a self, x: &'a Tensor<'_>) -> Value<'a> {
        Value::Normed(x, self)
    }
}

impl<'a> From<&'a Tensor<'_>> for Value<'a> {
    fn from(x: &'a Tensor<'_>) -> Self {
        Value::Plain(x)
    }
}

impl<'a> Value<'a> {
    /// Number of rows.
    pub(super) fn rows(self) -> usize {
        match self {
            Value::Plain(x) | Value::Normed(x, _) => x.rows(),
            Value::Gelu(x) | Value::SiluGate(x) | Value::GeluGate(x) => x.rows(),
        }
    }

    /// As the kernels take it.
    pub(super) fn input(self) -> Input<'a> {
        match self {
            Value::Plain(x) => Input::Plain(x.values()),
            Value::Normed(x, Norm { weight, bias: None, epsilon }) => {
                Input::RmsNorm { x: x.values(), weight, eps: *epsilon }
            }
            Value::Normed(x, Norm { weight, bias: Some(bias), epsilon }) => {
                Input::LayerNorm { x: x.values(), weight, bias, eps: *epsilon }
            }
            Value::Gelu(x) => Input::Gelu(x.values()),
            Value::SiluGate(x) => Input::SiluMul(x.values()),
            Value::GeluGate(x) => Input::GeluMul(x.values()),
        }
    }
}

/// `[token][output]`: a matrix times each row of a value, plus a bias if there is one.
pub(crate) struct Product<'a> {
    pub(super) matrix: &'a Matrix,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) value: Value<'a>,
}

impl Linear {
    /// W · value + b, for each row.
    pub(crate) fn of<'a>(&'a self, value: impl Into<Value<'a>>) -> Product<'a> {
        Product { matrix: &self.matrix, bias: self.bias.as_deref(), value: value.into() }
    }
}

impl<'a> Product<'a> {
    /// matrix · value, for each row.
    pub(crate) fn without_bias(matrix: &'a Matrix, value: Value<'a>) -> Product<'a> {
        Product { matrix, bias: None, value }
    }
}

/// What can be added to the residual stream.
pub(crate) enum Term<'a> {
    Product(Product<'a>),
    Tensor(&'a Tensor<'a>),
}

impl<'a> From<Product<'a>> for Term<'a> {
    fn from(product: Product<'a>) -> Self {
        Term::Product(product)
    }
}

impl<'a> From<&'a Tensor<'_>> for Term<'a> {
    fn from(tensor: &'a Tensor<'_>) -> Self {
        Term::Tensor(tensor)
    }
}
