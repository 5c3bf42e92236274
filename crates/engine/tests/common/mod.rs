//! What the tests of this crate share: where models are, and how to load them.
#![allow(dead_code, reason = "each test file uses some of it")]

use sketchkv_cache::Cache;
use sketchkv_model::{LoadOptions, Logits, Model, Sequence, WeightFormat, Workspace};
use std::path::{Path, PathBuf};

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The embedded model.
pub(crate) fn tiny_gpt2() -> PathBuf {
    repository("models/tiny-gpt2")
}

/// SmolLM2, or `None` (which fails in CI) when it has not been pulled.
pub(crate) fn smollm2() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let data =
        || std::env::var_os("XDG_DATA_HOME").map_or_else(|| home().join(".local/share"), PathBuf::from);
    let models =
        std::env::var_os("SKETCHKV_MODELS").map_or_else(|| data().join("sketchkv/models"), PathBuf::from);
    let path = models.join("smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf");
    if path.is_file() {
        return Some(path);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "SmolLM2 is missing at {}", path.display());
    eprintln!("skipped: SmolLM2 is not at {}; `sketchkv pull smollm2-135m` fetches it", path.display());
    None
}

/// Loads with two threads, in this weight format.
pub(crate) fn load(path: &Path, weights: WeightFormat) -> Model {
    load_with(path, &LoadOptions { weights, threads: 2, ..LoadOptions::default() })
}

pub(crate) fn load_with(path: &Path, options: &LoadOptions) -> Model {
    Model::load(path, options).unwrap_or_else(|error| panic!("{error}"))
}

/// An empty, exact cache.
pub(crate) fn exact_cache(model: &Model) -> Cache {
    Cache::new(model.cache_shape(), &"full+f32".parse().unwrap(), 0).unwrap()
}

/// Logits of every token, `[token][vocabulary]`, over an exact cache.
pub(crate) fn all_logits(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let mut cache = exact_cache(model);
    let mut workspace = Workspace::new();
    let mut batch = [Sequence { tokens, cache: &mut cache }];
    model.forward(&mut batch, &mut workspace, Logits::All).all().unwrap().to_vec()
}

/// Tokens of Persuasion from its second chapter on.
pub(crate) fn prose(model: &Model, count: usize) -> Vec<u32> {
    let text = std::fs::read_to_string(repository("data/persuasion.txt")).unwrap();
    let start = text.char_indices().nth(20_000).unwrap().0;
    let mut tokens = model.tokenizer().encode(&text[start..start + 8 * count]).unwrap();
    assert!(tokens.len() >= count);
    tokens.truncate(count);
    tokens
}

pub(crate) fn argmax(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
}
