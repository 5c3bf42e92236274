//! Runs every fuzz target on its seeds and on blind mutations of them, on any toolchain.

use sketchkv_fuzz::{Mutator, TARGETS};
use std::{fs, panic, path::Path};

/// Mutated inputs for each target; a second or two in all.
const MUTATIONS: usize = 20_000;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut paths: Vec<_> =
        fs::read_dir(&folder).expect("every target has seeds").map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn no_target_panics() {
    for target in TARGETS {
        let seeds = seeds(target.name);
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        let mut mutator = Mutator::new(1);
        let mutated = (0..MUTATIONS).map(|_| mutator.mutated(&seeds));
        for input in seeds.iter().cloned().chain(mutated) {
            if panic::catch_unwind(|| (target.body)(&input)).is_err() {
                panic!("{} panics on {:?}", target.name, String::from_utf8_lossy(&input));
            }
        }
    }
}
