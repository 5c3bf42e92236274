//! All methods: what the grammar, the help, the docs, the tests and the benchmarks are derived from.

use crate::method::Method;
use crate::{budget, keep, read, store, tail};

/// A ready-made spec with a name of its own.
#[derive(Debug)]
pub struct Preset {
    /// Its name, to be used in place of a spec.
    pub name: &'static str,
    /// The spec it stands for; a cap given with the name replaces its own.
    pub spec: &'static str,
    /// What it is for, in one line.
    pub summary: &'static str,
}

/// All presets.
pub static PRESETS: &[Preset] = &[];

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
