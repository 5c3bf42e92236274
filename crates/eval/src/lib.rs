//! Honest evaluation of KV caches: metrics, tasks, experiments, results and the report.
//!
//! The question answered here is a user's: which cache for my model and budget, and what do I lose? Every number
//! is taken on real models in real caches, against the uncompressed cache on the same tokens, and carries its error.
#![warn(missing_docs)]

mod error;
pub mod metrics;
mod rng;

pub use error::EvalError;
pub use rng::Rng;
