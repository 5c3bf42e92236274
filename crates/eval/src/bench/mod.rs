//! Speed in the manner of llama-bench: prompts and generation at depths, caches side by side.

mod parts;
mod run;
mod sample;
mod test;

pub use parts::{PartTime, Parts};
pub use run::{Bench, BenchOptions, BenchRow, Listener, bench};
pub use sample::Sample;
pub use test::{Test, Work};
