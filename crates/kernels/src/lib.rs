//! SIMD kernels and the thread pool of sketchkv. Knows slices, not models.
//!
//! - [`cpu`]: which instruction set is used.
//! - [`ThreadPool`]: the parallel regions of a forward pass.
//! - [`half`]: `f16` and `bf16` slices.
//! - [`Scale`]: what one unit of a code is worth.
//! - [`BlockFormat`]: the weights of GGUF files.
//! - [`Matrix`]: weights repacked for products, with [`Input`] and [`Output`] fused.
//! - [`attention`]: scores and weighted sums over the pages of a cache.
//! - [`least_squares`]: linear ones, by their normal equations.
//! - [`ops`]: norms, activations, rotations, softmax.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod activations;
mod arena;
pub mod attention;
mod bandwidth;
mod blocks;
mod buffer;
pub mod cpu;
mod error;
pub mod half;
pub mod least_squares;
mod matrix;
pub mod ops;
mod parallel;
mod peak;
mod pool;
mod product;
mod scale;

pub use activations::{Activations, Input, ProductWorkspace};
pub use bandwidth::{MemoryProbe, bandwidth};
pub use blocks::{BlockFormat, quantize_q8_0};
pub use error::KernelError;
pub use matrix::{Matrix, Rows, WeightFormat};
pub use parallel::{for_each_mut, for_each_pair_mut};
pub use peak::int8_peak;
pub use pool::ThreadPool;
pub use product::Output;
pub use scale::Scale;
