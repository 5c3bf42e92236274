//! What the tests of this crate and of the engine share: where models and golden files are, and how logits are compared.
#![allow(dead_code, reason = "each test file uses some of it")]

pub(crate) mod spoiled;

use safetensors::SafeTensors;
use sketchkv_cache::Cache;
use sketchkv_model::{
    LoadOptions, Logits, Model, ModelError, ModelFile, Sequence, Tokenizer, WeightFormat, Workspace,
};
use std::path::{Path, PathBuf};

/// The golden files, made by `scripts/golden/model.py`.
pub(crate) fn golden(name: &str) -> PathBuf {
    repository("crates/model/tests/golden").join(name)
}

/// Golden tokenizers that are there as a folder and as GGUF.
pub(crate) const TOKENIZERS: [&str; 16] = [
    "llama",
    "llama3",
    "mistral",
    "qwen2",
    "gpt2",
    "tokenizers/gpt-2",
    "tokenizers/llama-bpe",
    "tokenizers/qwen2",
    "tokenizers/smollm",
    "tokenizers/qwen35",
    "tokenizers/tekken",
    "tokenizers/gpt-4o",
    "tokenizers/deepseek-llm",
    "tokenizers/deepseek-coder",
    "tokenizers/t5",
    "tokenizers/unigram",
];

/// The tokenizer of a folder or file.
pub(crate) fn tokenizer(path: &Path) -> Tokenizer {
    ModelFile::open(path).and_then(|file| file.tokenizer()).unwrap_or_else(|error| panic!("{error}"))
}

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
    pulled("smollm2-135m", "SmolLM2-135M-Instruct.Q4_1.gguf", true)
}

/// A pulled model's file, or `None` when it has not been pulled, which fails in CI if the tests need it.
pub(crate) fn pulled(name: &str, file: &str, needed: bool) -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let data =
        || std::env::var_os("XDG_DATA_HOME").map_or_else(|| home().join(".local/share"), PathBuf::from);
    let models =
        std::env::var_os("SKETCHKV_MODELS").map_or_else(|| data().join("sketchkv/models"), PathBuf::from);
    let path = models.join(name).join(file);
    if path.is_file() {
        return Some(path);
    }
    let in_ci = std::env::var("CI").as_deref() == Ok("true");
    assert!(!(needed && in_ci), "{name} is missing at {}", path.display());
    eprintln!("skipped: {name} is not at {}; `sketchkv pull {name}` fetches it", path.display());
    None
}

/// Loads with two threads, in this weight format.
pub(crate) fn load(path: &Path, weights: WeightFormat) -> Model {
    load_with(path, &LoadOptions { weights, threads: 2, ..LoadOptions::default() })
}

pub(crate) fn load_with(path: &Path, options: &LoadOptions) -> Model {
    Model::load(path, options).unwrap_or_else(|error| panic!("{error}"))
}

/// An empty cache of this spec.
pub(crate) fn cache(model: &Model, spec: &str) -> Cache {
    Cache::new(model.cache_shape(), &spec.parse().unwrap(), 0).unwrap_or_else(|error| panic!("{error}"))
}

/// An empty, exact cache.
pub(crate) fn exact_cache(model: &Model) -> Cache {
    cache(model, "full+f32")
}

/// Logits of every token, `[token][vocabulary]`, over an exact cache.
pub(crate) fn all_logits(model: &Model, tokens: &[u32]) -> Vec<f32> {
    run(model, &mut exact_cache(model), tokens, Logits::All).unwrap()
}

/// Runs one sequence over `cache`.
pub(crate) fn run(
    model: &Model,
    cache: &mut Cache,
    tokens: &[u32],
    want: Logits,
) -> Result<Vec<f32>, ModelError> {
    let batch = &mut [Sequence { tokens, cache }];
    model.forward(batch, &mut Workspace::new(), want).of(0).map(<[f32]>::to_vec)
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

/// Natural logarithm of Σ e^logit.
pub(crate) fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    max + logits.iter().map(|l| (*l as f64 - max).exp()).sum::<f64>().ln()
}

/// Kullback-Leibler divergence of softmax(`found`) from softmax(`exact`), in nats.
pub(crate) fn divergence(exact: &[f32], found: &[f32]) -> f64 {
    let (exact_sum, found_sum) = (log_sum_exp(exact), log_sum_exp(found));
    let terms = exact.iter().zip(found).map(|(e, f)| {
        let (e, f) = (*e as f64 - exact_sum, *f as f64 - found_sum);
        e.exp() * (e - f)
    });
    terms.sum()
}

pub(crate) fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

pub(crate) fn argmax(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
}

/// What transformers computed.
pub(crate) struct Expected {
    bytes: Vec<u8>,
}

impl Expected {
    pub(crate) fn read(path: &Path) -> Expected {
        Expected { bytes: std::fs::read(path).unwrap() }
    }

    fn values<T>(&self, name: &str, decode: impl Fn([u8; 4]) -> T) -> Vec<T> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let data = file.tensor(name).unwrap().data().to_vec();
        data.chunks_exact(4).map(|b| decode([b[0], b[1], b[2], b[3]])).collect()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(name).is_ok()
    }

    pub(crate) fn integers(&self, name: &str) -> Vec<u32> {
        self.values(name, u32::from_le_bytes)
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        self.values(name, f32::from_le_bytes)
    }
}
