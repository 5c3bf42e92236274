//! The small operations between products: norms, activations, rotations, softmax.
//!
//! Each has a plain reference that reads like the formula (used at [`Level::Scalar`](crate::cpu::Level)) and a version
//! over fixed-width chunks that compiles to the vectors of every other level.

mod activation;
mod lanes;
mod norm;
mod rope;
mod softmax;

pub use activation::{add, gelu, gelu_mul, silu_mul};
pub(crate) use activation::{gelu_at, gelu_mul_at, silu_mul_at};

pub(crate) use norm::{centre, inverse_root_mean_square, mean_and_inverse_deviation, scale};
pub use norm::{layer_norm, rms_norm};
pub use rope::{RopeLayout, fill_angles, rotate};
pub use softmax::softmax;
