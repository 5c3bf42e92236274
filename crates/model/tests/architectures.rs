//! Every architecture against transformers, over 200 tokens that cross its windows and the lengths at which its rotation
//! changes: at once and token by token, from a folder and from GGUF.

mod common;

use common::*;
use sketchkv_model::{Architecture, LoadOptions, Logits, Model, Sequence, WeightFormat, Workspace};

/// Golden folders of `scripts/golden/architectures.py`.
const FOLDERS: &[(&str, Architecture)] = &[
    ("qwen3", Architecture::Qwen3),
    ("qwen2-window", Architecture::Qwen2),
    ("gemma2", Architecture::Gemma2),
    ("gemma3", Architecture::Gemma3),
    ("phi3", Architecture::Phi3),
    ("smollm3", Architecture::SmolLm3),
    ("granite", Architecture::Granite),
    ("olmo2", Architecture::Olmo2),
    ("mixtral", Architecture::Mixtral),
    ("qwen3-moe", Architecture::Qwen3Moe),
    ("mistral-window", Architecture::Mistral),
    ("llama-long", Architecture::Llama),
    ("qwen2-long", Architecture::Qwen2),
    ("gpt2-long", Architecture::Gpt2),
];

/// Those of which there is no GGUF: its keys cannot say a dynamic rotation.
const FOLDERS_ONLY: [&str; 1] = ["qwen2-window"];

fn load_long(name: &str, weights: WeightFormat) -> Model {
    let mut options = LoadOptions { weights, threads: 2, ..LoadOptions::default() };
    // The tokens of this one pass its context on the way.
    options.beyond_context = name.starts_with("qwen2-window");
    load_with(&golden(name), &options)
}

/// Asserts that logits `[token][vocabulary]` are the expected ones at the kept positions.
fn check(name: &str, expected: &Expected, key: &str, logits: &[f32]) {
    let exact = expected.floats(key);
    let positions = expected.integers("positions");
    let vocabulary = exact.len() / positions.len();
    for (position, exact) in positions.iter().zip(exact.chunks_exact(vocabulary)) {
        let found = &logits[*position as usize * vocabulary..][..vocabulary];
        let kl = divergence(exact, found);
        assert!(kl.abs() <= 1e-6, "{name}: {key} at {position}: KL {kl}");
        let difference = largest_difference(exact, found);
        assert!(difference <= 2e-3, "{name}: {key} at {position} differ by {difference}");
    }
}

fn token_by_token(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let (mut cache, mut workspace) = (exact_cache(model), Workspace::new());
    let mut logits = vec![];
    for token in tokens.chunks_exact(1) {
        let batch = &mut [Sequence { tokens: token, cache: &mut cache }];
        logits.extend_from_slice(model.forward(batch, &mut workspace, Logits::Last).of(0).unwrap());
    }
    logits
}

#[test]
fn folders_give_the_logits_of_transformers() {
    for &(name, architecture) in FOLDERS {
        let expected = Expected::read(&golden(name).join("expected.safetensors"));
        let tokens = expected.integers("tokens");
        let model = load_long(name, WeightFormat::F32);
        assert_eq!(model.config().architecture, architecture);
        assert!(model.config().notes.is_empty(), "{name}: {:?}", model.config().notes);
        check(name, &expected, "logits", &all_logits(&model, &tokens));
        let stepped = if expected.has("stepped") { "stepped" } else { "logits" };
        check(name, &expected, stepped, &token_by_token(&model, &tokens));
    }
}

#[test]
fn gguf_files_give_the_logits_of_transformers() {
    for &(name, architecture) in FOLDERS {
        if FOLDERS_ONLY.contains(&name) {
            continue;
        }
        let expected = Expected::read(&golden(name).join("expected.safetensors"));
        let model = load_long(&format!("{name}.gguf"), WeightFormat::F32);
        // GGUF calls Mistral what it shares with Llama.
        let called = if architecture == Architecture::Mistral { Architecture::Llama } else { architecture };
        assert_eq!(model.config().architecture, called);
        assert!(model.config().notes.is_empty(), "{name}: {:?}", model.config().notes);
        let tokens = expected.integers("tokens");
        check(name, &expected, "logits", &all_logits(&model, &tokens));
        let stepped = if expected.has("stepped") { "stepped" } else { "logits" };
        check(name, &expected, stepped, &token_by_token(&model, &tokens));
    }
}

/// Any part of a split model stands for all of them.
#[test]
fn split_models_are_read_whole() {
    let whole = all_logits(&load_long("olmo2.gguf", WeightFormat::F32), &[3, 1, 4, 1, 5]);
    for part in 1..=3 {
        let model = load_long(&format!("olmo2-split-0000{part}-of-00003.gguf"), WeightFormat::F32);
        assert_eq!(all_logits(&model, &[3, 1, 4, 1, 5]), whole);
    }
    let folder = tempfile::TempDir::new().unwrap();
    let copied = |name: &str, to: &str| {
        let path = folder.path().join(to);
        std::fs::copy(golden(name), &path).unwrap();
        Model::load(&path, &LoadOptions::default()).err().unwrap().to_string()
    };
    let alone = copied("olmo2-split-00001-of-00003.gguf", "olmo2-split-00001-of-00003.gguf");
    assert!(alone.contains("olmo2-split-00002-of-00003.gguf"), "{alone}");
    let renamed = copied("olmo2-split-00001-of-00003.gguf", "model.gguf");
    assert!(renamed.contains("one of 3 parts of a split model, whose file names must end in"), "{renamed}");
    let wrong = copied("olmo2-split-00001-of-00003.gguf", "olmo2-split-00002-of-00003.gguf");
    assert!(wrong.contains("whose file names must end in"), "{wrong}");
}

/// Layers with a window hold no more than it, whatever the cache.
#[test]
fn sliding_layers_cost_their_window() {
    let model = load_long("gemma3", WeightFormat::F32);
    let tokens: Vec<u32> = (0..200).map(|i| i % 300).collect();
    let grown = |count: usize| {
        let mut cache = cache(&model, "full+f16");
        run(&model, &mut cache, &tokens[..count], Logits::None).unwrap();
        cache.ledger().total()
    };
    // One of six layers grows, by 2 · 16 values of 2 bytes a token, padded to 32, and what stands beside them.
    let (early, late) = (grown(128), grown(192));
    assert!((8192..9216).contains(&(late - early)), "{early} bytes, then {late}");
}
