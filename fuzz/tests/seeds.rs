//! Runs every fuzz target on its seeds and on blind mutations of them, on any toolchain.

use sketchkv_cache::Cache;
use sketchkv_engine::Session;
use sketchkv_fuzz::{MODEL, Mutator, TARGETS, shape};
use sketchkv_model::Sampling;
use std::{fs, panic, path::Path};

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut paths: Vec<_> =
        fs::read_dir(&folder).expect("every target has seeds").map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Runs one target; nextest runs the tests below in processes of their own.
fn survives(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("the target is listed");
    let seeds = seeds(target.name);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    let mut mutator = Mutator::new(1);
    let mutated = (0..target.mutations).map(|_| mutator.mutated(&seeds));
    for input in seeds.iter().cloned().chain(mutated) {
        if panic::catch_unwind(|| (target.body)(&input)).is_err() {
            let shown: String = String::from_utf8_lossy(&input).chars().take(2000).collect();
            panic!("{name} panics on {} bytes: {shown:?}", input.len());
        }
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { survives(stringify!($name)); })*

        #[test]
        fn every_target_is_run() {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

targets! { cache config gguf safetensors session sketch spec }

/// Seeds of another version than the reader's would be stopped at the door.
#[test]
fn the_seeds_of_what_is_saved_can_be_loaded() {
    let sessions = seeds("session");
    let sessions = sessions
        .iter()
        .filter_map(|seed| Session::from_bytes(seed, &MODEL, Sampling::greedy()).err())
        .map(|e| e.to_string());
    let caches = seeds("cache");
    let caches =
        caches.iter().filter_map(|seed| Cache::from_bytes(seed, shape()).err()).map(|e| e.to_string());
    let failed: Vec<String> = sessions.chain(caches).collect();
    assert!(failed.is_empty(), "run `cargo run -p sketchkv-fuzz --example saved_seeds`: {failed:?}");
}
