//! All methods: what the grammar, the help, the docs, the tests and the benchmarks are derived from.

use crate::method::Method;
use crate::{budget, keep, read, store, tail};

/// A ready-made spec with a name of its own.
#[derive(Debug)]
pub struct Preset {
    /// Its name, to be used in place of a spec, alone or with a cap.
    pub name: &'static str,
    /// The spec that the name alone stands for.
    pub spec: &'static str,
    /// The spec that the name with a cap stands for, without the cap.
    pub capped: &'static str,
    /// What it is for, in one line.
    pub summary: &'static str,
}

/// All presets: the first three as measured in `docs/results.md`, the others the strategies and baselines of the
/// original project.
pub static PRESETS: &[Preset] = &[
    Preset {
        name: "best-quality",
        spec: "full+q8",
        capped: "expected+q4h+pyramid(beta=0.75)",
        summary: "the least loss at the given bytes; without a cap, none that can be seen",
    },
    Preset {
        name: "balanced",
        spec: "full+q4h",
        capped: "expected+q8+pyramid(beta=0.75)",
        summary: "some loss for speed at the given bytes; without a cap, a third of the bytes",
    },
    Preset {
        name: "fastest",
        spec: "full+q8+topk(k=1024)",
        capped: "expected+pyramid(beta=0.75)",
        summary: "the most tokens a second; without a cap, every token is kept but not every one is read",
    },
    Preset {
        name: "topk",
        spec: "full+topk",
        capped: "cms+topk",
        summary: "the original's top-k strategy: a sketch finds what is worth exact attention",
    },
    Preset {
        name: "aggregate",
        spec: "cms+buckets@25%",
        capped: "cms+buckets",
        summary: "the original's aggregate strategy: heavy hitters of a sketch stay exact, the rest is summed up",
    },
    Preset {
        name: "sliding-window",
        spec: "window@25%",
        capped: "window",
        summary: "the original's baseline of recent tokens",
    },
    Preset {
        name: "int8",
        spec: "full+q8",
        capped: "window+q8",
        summary: "the original's baseline of quantization",
    },
];

/// Every method of every choice, in the order of the choices.
pub fn methods() -> Vec<&'static Method> {
    let keeps = keep::KEEPS.iter().map(|(method, _)| *method);
    let stores = store::STORES.iter().map(|(method, _)| *method);
    let tails = tail::TAILS.iter().map(|(method, _)| *method);
    let reads = read::READS.iter().map(|(method, _)| *method);
    let budgets = budget::BUDGETS.iter().map(|(method, _)| *method);
    keeps.chain(stores).chain(tails).chain(reads).chain(budgets).collect()
}

/// The method of this name; of a keep and a tail of one name, the keep.
pub fn find(name: &str) -> Option<&'static Method> {
    methods().into_iter().find(|method| method.name == name)
}
