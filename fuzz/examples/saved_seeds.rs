//! Writes the seeds of the targets `cache` and `session`: to be run when the format of caches or of sessions changes.

use sketchkv_cache::Cache;
use sketchkv_engine::{GenerateOptions, Generation, Session};
use sketchkv_fuzz::{CACHES, MODEL, saved};
use sketchkv_model::{Sampler, Sampling, Workspace};
use std::{error::Error, fs, path::Path};

/// What each session is good for, its spec, and how many tokens it goes on for.
const SESSIONS: [(&str, &str, usize); 4] = [
    ("full", "full", 2),
    ("evicted", "h2o(sinks=1,recent=1)+q4@4tok", 2),
    ("only-logits", "full+kivi4", 0),
    (HELD_BACK, "window(sinks=1)+q8@3tok", 3),
];

/// Of this one the end may be the beginning of a stop text.
const HELD_BACK: &str = "held-back";

fn main() -> Result<(), Box<dyn Error>> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for target in ["cache", "session"] {
        fs::create_dir_all(seeds.join(target))?;
    }
    for (i, spec) in CACHES.iter().enumerate() {
        fs::write(seeds.join("cache").join(i.to_string()), saved(spec))?;
    }
    for (name, spec, tokens) in SESSIONS {
        let mut stop = vec![];
        if name == HELD_BACK {
            let text = generation(spec, tokens, &[])?.text().to_owned();
            let end: String = text.chars().skip(text.chars().count() / 2).collect();
            stop.push(end + "and more");
        }
        let mut session = Session::Text(generation(spec, tokens, &stop)?);
        fs::write(seeds.join("session").join(name), session.to_bytes(&MODEL)?)?;
    }
    Ok(())
}

fn generation(spec: &str, tokens: usize, stop: &[String]) -> Result<Generation, Box<dyn Error>> {
    let cache = Cache::new(MODEL.cache_shape(), &spec.parse()?, 0)?;
    let mut generation = Generation::new(cache, Sampler::new(Sampling::default())?);
    let options = GenerateOptions {
        max_tokens: Some(tokens),
        stop: stop.to_vec(),
        ignore_end: true,
        hold: true,
        ..GenerateOptions::default()
    };
    generation.feed(&MODEL, &[1, 2, 3, 4], &options)?;
    generation.complete(&MODEL, &mut Workspace::new())?;
    Ok(generation)
}
