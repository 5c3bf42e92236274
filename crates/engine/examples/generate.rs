//! Loads a model, continues a prompt greedily, and says how fast.
//!
//! `cargo run --release -p sketchkv-engine --example generate -- MODEL "Once upon a time" 64`

use sketchkv_cache::Cache;
use sketchkv_engine::{GenerateOptions, Generation};
use sketchkv_model::{LoadOptions, Model, Sampler, Sampling, Workspace};
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, prompt, tokens] = arguments.as_slice() else {
        return Err("give a model, a prompt and a number of tokens".into());
    };
    let start = Instant::now();
    let model = Model::load(Path::new(path), &LoadOptions::default())?;
    eprintln!(
        "loaded in {:.3} s, {} MB of weights",
        start.elapsed().as_secs_f64(),
        model.weight_bytes() / 1_000_000
    );

    let cache = Cache::new(model.cache_shape(), &"full".parse()?, 0)?;
    let mut generation = Generation::new(cache, Sampler::new(Sampling::greedy())?);
    let options = GenerateOptions { max_tokens: Some(tokens.parse()?), ..GenerateOptions::default() };
    generation.feed(&model, &model.tokenizer().encode_prompt(prompt)?, &options)?;
    let mut workspace = Workspace::new();
    while let Some(step) = generation.step(&model, &mut workspace)? {
        print!("{}", step.text);
        std::io::stdout().flush()?;
    }
    println!();
    let timing = generation.timing();
    eprintln!("prefill {:.1} tokens/s, decode {:.1} tokens/s", timing.prefill_rate(), timing.decode_rate());
    Ok(())
}
