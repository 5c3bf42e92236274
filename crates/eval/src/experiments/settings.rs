use crate::{Schedule, tasks::TaskKind};
use sketchkv_model::Config;

/// How much is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Tokens of a scored document.
    pub context: usize,
    /// Documents of each scored cell.
    pub samples: usize,
    /// How they are run; `speed` times as many steps at each depth.
    pub schedule: Schedule,
    /// Context lengths of `baseline`, ascending.
    pub lengths: Vec<usize>,
    /// Depths of `speed`, ascending.
    pub depths: Vec<usize>,
    /// Budgets of `compare` and `pareto`, as they stand after the `@` of a spec.
    pub budgets: Vec<String>,
    /// Specs to measure instead of an experiment's own.
    pub specs: Vec<String>,
    /// What `tasks` measures.
    pub tasks: TaskSettings,
    /// Compositions that `pareto` tries in its first round.
    pub candidates: usize,
    /// Seeds of caches and tasks; each makes its own cells.
    pub seeds: Vec<u64>,
}

/// How much `tasks` measures.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSettings {
    /// Which tasks.
    pub kinds: Vec<TaskKind>,
    /// Prompt lengths of the single needle.
    pub needle_lengths: Vec<usize>,
    /// Places of the single needle, 0 to 1.
    pub needle_depths: Vec<f64>,
    /// Prompt lengths of the other tasks.
    pub lengths: Vec<usize>,
    /// Samples of each task.
    pub samples: usize,
    /// Budgets, as they stand after the `@` of a spec.
    pub budgets: Vec<String>,
}

impl Settings {
    /// What `experiment all` takes: two hours for a model of 135 million parameters on two cores.
    pub fn standard(config: &Config) -> Self {
        let context = config.context.min(1024);
        Settings {
            context,
            samples: 3,
            schedule: Schedule { prefill: context / 2, stream: 1, timed: 32 },
            lengths: doubling(128, config.context.min(4096)),
            depths: doubling(256, config.context.min(8192).saturating_sub(64)),
            budgets: texts(&["50%", "25%", "12.5%"]),
            specs: Vec::new(),
            tasks: TaskSettings {
                kinds: TaskKind::ALL.to_vec(),
                needle_lengths: vec![context / 2, context],
                needle_depths: vec![0.0, 0.25, 0.5, 0.75, 1.0],
                lengths: vec![context],
                samples: 3,
                budgets: texts(&["25%", "12.5%"]),
            },
            candidates: 24,
            seeds: vec![0],
        }
    }

    /// What `--quick` takes: a look at everything in minutes.
    pub fn quick(config: &Config) -> Self {
        let context = config.context.min(512);
        Settings {
            context,
            samples: 2,
            schedule: Schedule { prefill: context / 2, stream: 1, timed: 16 },
            lengths: doubling(128, config.context.min(1024)),
            depths: doubling(256, config.context.min(2048).saturating_sub(64)),
            budgets: texts(&["25%"]),
            specs: Vec::new(),
            tasks: TaskSettings {
                kinds: vec![TaskKind::NiahSingle, TaskKind::KeyValue, TaskKind::Copy],
                needle_lengths: vec![context],
                needle_depths: vec![0.0, 0.5, 1.0],
                lengths: vec![context],
                samples: 2,
                budgets: texts(&["25%"]),
            },
            candidates: 12,
            seeds: vec![0],
        }
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
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
