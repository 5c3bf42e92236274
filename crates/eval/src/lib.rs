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
mod failure;
mod footprint;
pub mod format;
mod input;
mod losses;
mod machine;
pub mod metrics;
mod progress;
pub mod report;
pub mod results;
mod rng;
mod row;
mod scorer;
mod scoring;
mod sensitivity;
mod size;
pub mod tasks;

pub use advise::{Advice, AdviseOptions, Candidate, NeedleCheck, advise, budget_bytes};
pub use compare::{CompareOptions, Comparison, DEFAULT_SPECS, TIMED_STEPS, compare};
pub use distortion::{Distortion, Recall, StoreDistortion, distortion};
pub use error::EvalError;
pub use failure::Failure;
pub use footprint::{Footprint, LedgerBytes, floor_bytes, ledger_bytes};
pub use input::{open_input, read_input, read_input_text};
pub use losses::measure_losses;
pub use machine::{Machine, peak_resident};
pub use progress::{Progress, Silent, Step};
pub use rng::Rng;
pub use row::{Entry, Row};
pub use scorer::train_scorer;
pub use scoring::{REFERENCE_SPEC, Schedule};
pub use sensitivity::{Additivity, HeadLosses, measure_head_losses};
pub use size::footprint_after;
