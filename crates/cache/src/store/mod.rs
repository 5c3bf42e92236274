//! How a kept key or value is encoded.

mod block;
mod float;
mod graded;
mod kivi;
mod progressive;
mod turbo;

use crate::method::{Call, Method};
use sketchkv_kernels::attention::layout::{Encoding, Side};

/// A way of encoding keys and values.
///
/// A store says what its codes mean to the kernels; what is common (packing, pages, growing) is done for it.
pub trait Store: Send + Sync {
    /// The encoding of one side.
    fn encoding(&self, side: Side) -> Encoding;

    /// How vectors are turned before they are encoded, if at all; queries and outputs are turned likewise.
    fn turn(&self, _side: Side) -> Turn {
        Turn::None
    }

    /// What sealed pages go down to where a cap in bytes leaves no room for all of them as they are: a store that turns
    /// vectors alike, and has a grid where this one has one.
    fn coarser(&self) -> Option<Box<dyn Store>> {
        None
    }

    /// What strips are in until they are sealed, where keys have no biases; else, and if there is none, f16 or, where this one's
    /// codes have 8 bits a number, as these.
    fn open(&self, _side: Side) -> Option<Box<dyn Store>> {
        None
    }

    /// Quantizes one vector `x[dim]`: codes `[dim]`, scales `[groups]`, minima `[groups]` or empty.
    /// Not called for plain floats, per-channel and graded codes.
    fn quantize(&self, _x: &[f32], _codes: &mut [u8], _scales: &mut [f32], _minima: &mut [f32]) {
        unreachable!("plain floats and per-channel codes are not quantized vector by vector")
    }
}

/// An orthonormal turn of a head's vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// As they are.
    None,
    /// The Hadamard transform.
    Hadamard,
    /// Random signs, then the Hadamard transform.
    SignedHadamard,
}

/// Builds a store from its call and the width of a head.
pub type Build = fn(&Call, usize) -> Box<dyn Store>;

/// All stores.
pub(crate) static STORES: &[(&Method, Build)] = &[
    (&float::F32, float::f32),
    (&float::F16, float::f16),
    (&float::BF16, float::bf16),
    (&block::Q8, block::q8),
    (&block::Q4, block::q4),
    (&block::Q4H, block::q4h),
    (&turbo::TQ4, turbo::tq4),
    (&turbo::TQ3, turbo::tq3),
    (&turbo::TQ2, turbo::tq2),
    (&kivi::KIVI4, kivi::kivi4),
    (&kivi::KIVI3, kivi::kivi3),
    (&kivi::KIVI2, kivi::kivi2),
    (&graded::GRADED, graded::graded),
    (&progressive::PROGRESSIVE, progressive::progressive),
];

/// Rounds to the nearest f16, which is what scales and minima are stored as; finite where `x` is.
pub(crate) fn to_f16(x: f32) -> f32 {
    sketchkv_kernels::half::to_f16(x).to_f32()
}
