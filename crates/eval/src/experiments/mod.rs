//! The experiments: each lays out cells, and the [`Lab`] measures those that the results file does not have yet.

mod attention;
mod baseline;
mod compare;
mod generate;
mod grid;
mod job;
mod lab;
mod pareto;
mod settings;
mod speed;
mod tasks;

pub use attention::AttentionMeasured;
pub(crate) use compare::distinct;
pub use generate::Generated;
pub use grid::Grid;
pub use job::{Job, Scored, Work};
pub use lab::{Lab, Outcome, Scope, Shard};
pub use settings::{Settings, TaskSettings};
pub use speed::{SpeedMeasured, SpeedPoint};
pub use tasks::TaskMeasured;

use serde::{Deserialize, Serialize};

/// An experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Experiment {
    /// The full cache over lengths.
    Baseline,
    /// Sketch width × depth × strategy × top-k, or any grid from a file.
    Grid,
    /// All families at equal bytes.
    Compare,
    /// Attention of every layer and head beside the exact one.
    Attention,
    /// Needles, RULER-style tasks, retrieval, copying and arithmetic.
    Tasks,
    /// Decode speed against depth, and time to the first token.
    Speed,
    /// A search over compositions for the frontier of bytes against KL.
    Pareto,
}

impl Experiment {
    /// All experiments, in the order in which `experiment all` runs them.
    pub const ALL: [Experiment; 7] = [
        Experiment::Baseline,
        Experiment::Compare,
        Experiment::Attention,
        Experiment::Speed,
        Experiment::Tasks,
        Experiment::Grid,
        Experiment::Pareto,
    ];

    /// The name in results and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Experiment::Baseline => "baseline",
            Experiment::Grid => "grid",
            Experiment::Compare => "compare",
            Experiment::Attention => "attention",
            Experiment::Tasks => "tasks",
            Experiment::Speed => "speed",
            Experiment::Pareto => "pareto",
        }
    }
}
