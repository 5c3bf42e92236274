//! One decode step, for counting its instructions: `cargo xtask callgrind` runs this under callgrind.
//!
//! `cargo run --release -p sketchkv-model --example step -- MODEL DEPTH SPEC`

use sketchkv_cache::Cache;
use sketchkv_model::{LoadOptions, Logits, Model, ModelError, Sequence, WeightFormat, Workspace};
use std::error::Error;
use std::hint::black_box;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, depth, spec] = arguments.as_slice() else {
        return Err("give a model, a depth in tokens and a spec".into());
    };
    // One thread: what others do while they wait is no work. Eight bits: the products that quantized files use.
    let options = LoadOptions { threads: 1, weights: WeightFormat::Q8, ..LoadOptions::default() };
    let model = Model::load(Path::new(path), &options)?;
    let depth: usize = depth.parse()?;
    let vocabulary = model.config().vocabulary;
    // Any tokens will do, if they are always the same; 7919 is prime to the size of any usual vocabulary.
    let tokens: Vec<u32> = (0..depth + 2).map(|i| (i * 7919 % vocabulary) as u32).collect();
    let mut cache = Cache::new(model.cache_shape(), &spec.parse()?, 0)?;
    let mut workspace = Workspace::new();
    let mut run = |tokens: &[u32]| {
        let mut batch = [Sequence { tokens, cache: &mut cache }];
        model.forward(&mut batch, &mut workspace, Logits::Last).of(0).map(|logits| logits[0])
    };
    run(&tokens[..depth])?;
    // The first single token makes the buffers of the second.
    run(&tokens[depth..=depth])?;
    println!("{}", counted_step(&mut || run(&tokens[depth + 1..]))?);
    Ok(())
}

/// What callgrind counts, by this name.
#[inline(never)]
fn counted_step(step: &mut dyn FnMut() -> Result<f32, ModelError>) -> Result<f32, ModelError> {
    black_box(step())
}
