//! Writes the seeds of the target `session`: to be run when the format of sessions or of caches changes.

use sketchkv_cache::Cache;
use sketchkv_engine::{GenerateOptions, Generation, Session};
use sketchkv_fuzz::MODEL;
use sketchkv_model::{Sampler, Sampling, Workspace};
use std::{error::Error, fs, path::Path};

/// What each seed is good for, its spec, how many tokens it goes on for, and a stop text that never comes.
const SEEDS: [(&str, &str, usize, &str); 4] = [
    ("full", "full", 2, ""),
    ("evicted", "h2o(sinks=1,recent=1)+q4+buckets(n=2)@4tok", 2, ""),
    ("only-logits", "full+kivi4", 0, ""),
    ("held-back", "window(sinks=1)+q8@3tok", 3, "\0"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/session");
    for (name, spec, tokens, never) in SEEDS {
        let begin = || -> Result<Generation, Box<dyn Error>> {
            let cache = Cache::new(MODEL.cache_shape(), &spec.parse()?, 0)?;
            Ok(Generation::new(cache, Sampler::new(Sampling::default())?))
        };
        let mut options = GenerateOptions {
            max_tokens: Some(tokens),
            ignore_end: true,
            hold: true,
            ..GenerateOptions::default()
        };
        let mut run = |options: &GenerateOptions| -> Result<Generation, Box<dyn Error>> {
            let mut generation = begin()?;
            generation.feed(&MODEL, &[1, 2, 3, 4], options)?;
            generation.complete(&MODEL, &mut Workspace::new())?;
            Ok(generation)
        };
        if !never.is_empty() {
            // The end of the text, and more that does not come.
            let text = run(&options)?.text().to_owned();
            options.stop = vec![text.chars().skip(text.chars().count() / 2).collect::<String>() + never];
        }
        fs::write(folder.join(name), Session::Text(run(&options)?).to_bytes(&MODEL)?)?;
    }
    Ok(())
}
