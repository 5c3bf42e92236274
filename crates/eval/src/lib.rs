//! Honest evaluation of KV caches: metrics, tasks, experiments, results and the report.
//!
//! The question answered here is a user's: which cache for my model and budget, and what do I lose? Every number
//! is taken on real models in real caches, against the uncompressed cache on the same tokens, and carries its error.
#![warn(missing_docs)]

mod advise;
pub mod bench;
mod compare;
mod distortion;
mod error;
pub mod experiments;
mod machine;
pub mod metrics;
mod progress;
pub mod report;
pub mod results;
mod rng;
mod scoring;
pub mod tasks;

pub use advise::{Advice, Candidate, advise};
pub use compare::{CompareOptions, Comparison, LedgerBytes, Row, compare};
pub use distortion::{Distortion, Recall, StoreDistortion, distortion};
pub use error::EvalError;
pub use machine::Machine;
pub use progress::{Progress, Silent, Step};
pub use rng::Rng;
pub use scoring::REFERENCE_SPEC;
