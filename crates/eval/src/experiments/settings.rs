use crate::tasks::TaskKind;
use sketchkv_model::Config;

/// How much is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Tokens of a scored document.
    pub context: usize,
    /// Tokens taken in at once before scoring begins.
    pub prefill: usize,
    /// Documents of each scored cell.
    pub samples: usize,
    /// Tokens of a step while scoring.
    pub stream: usize,
    /// Context lengths of `baseline`, ascending.
    pub lengths: Vec<usize>,
    /// Depths of `speed`, ascending.
    pub depths: Vec<usize>,
    /// Single-token steps timed at each depth.
    pub timed: usize,
    /// Budgets of `compare` and `pareto`, as they stand after the `@` of a spec.
    pub budgets: Vec<String>,
    /// Budgets of `tasks`.
    pub task_budgets: Vec<String>,
    /// Specs to measure instead of an experiment's own.
    pub specs: Vec<String>,
    /// Tasks of `tasks`.
    pub tasks: Vec<TaskKind>,
    /// Prompt lengths of the single needle.
    pub needle_lengths: Vec<usize>,
    /// Prompt lengths of the other tasks.
    pub task_lengths: Vec<usize>,
    /// Samples of each task.
    pub task_samples: usize,
    /// Needle depths, 0 to 1.
    pub needle_depths: Vec<f64>,
    /// Compositions that `pareto` tries in its first round.
    pub candidates: usize,
    /// Seeds of caches and tasks; each makes its own cells.
    pub seeds: Vec<u64>,
}

impl Settings {
    /// What `experiment all` takes: two hours for a model of 135 million parameters on two cores.
    pub fn standard(config: &Config) -> Self {
        let context = config.context.min(1024);
        Settings {
            context,
            prefill: context / 2,
            samples: 3,
            stream: 1,
            lengths: doubling(128, config.context.min(4096)),
            depths: doubling(256, config.context.min(8192) - 64),
            timed: 32,
            budgets: ["50%", "25%", "12.5%"].map(str::to_owned).to_vec(),
            task_budgets: ["25%", "12.5%"].map(str::to_owned).to_vec(),
            specs: Vec::new(),
            tasks: TaskKind::ALL.to_vec(),
            needle_lengths: vec![context / 2, context],
            task_lengths: vec![context],
            task_samples: 3,
            needle_depths: vec![0.0, 0.25, 0.5, 0.75, 1.0],
            candidates: 24,
            seeds: vec![0],
        }
    }

    /// What `--quick` takes: a look at everything in minutes.
    pub fn quick(config: &Config) -> Self {
        let context = config.context.min(512);
        Settings {
            context,
            prefill: context / 2,
            samples: 2,
            lengths: doubling(128, config.context.min(1024)),
            depths: doubling(256, config.context.min(2048) - 64),
            timed: 16,
            budgets: ["25%"].map(str::to_owned).to_vec(),
            task_budgets: ["25%"].map(str::to_owned).to_vec(),
            tasks: vec![TaskKind::NiahSingle, TaskKind::KeyValue, TaskKind::Copy],
            needle_lengths: vec![context],
            task_lengths: vec![context],
            task_samples: 2,
            needle_depths: vec![0.0, 0.5, 1.0],
            candidates: 12,
            ..Settings::standard(config)
        }
    }
}

/// `from`, doubled as often as it stays below `to`, and `to`.
fn doubling(from: usize, to: usize) -> Vec<usize> {
    let mut lengths: Vec<usize> = std::iter::successors(Some(from), |length| Some(length * 2))
        .take_while(|&length| length < to)
        .collect();
    lengths.push(to);
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_double_up_to_the_last() {
        assert_eq!(doubling(128, 1024), [128, 256, 512, 1024]);
        assert_eq!(doubling(256, 960), [256, 512, 960]);
        assert_eq!(doubling(256, 100), [100]);
    }
}
