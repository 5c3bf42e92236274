//! What must not change a result: how the input is cut, how many threads run. Neighbours: see `batches.rs`.

mod common;

use common::*;
use sketchkv_cache::Cache;
use sketchkv_model::{LoadOptions, Logits, Model, ModelError, WeightFormat};
use std::path::Path;

fn options(weights: WeightFormat, threads: usize, chunk: usize) -> LoadOptions {
    LoadOptions { weights, threads, chunk, ..LoadOptions::default() }
}

/// Logits of prose prefilled in chunks of different sizes, against those of one chunk.
fn check_chunks(path: &Path, weights: WeightFormat, length: usize, tolerance: f32) {
    let whole = load_with(path, &options(weights, 2, length));
    let tokens = prose(&whole, length);
    let expected = all_logits(&whole, &tokens);
    for chunk in [1, 7, 64, 512] {
        let found = all_logits(&load_with(path, &options(weights, 2, chunk)), &tokens);
        let difference = largest_difference(&expected, &found);
        assert!(difference <= tolerance, "chunks of {chunk}: logits differ by {difference}");
    }
}

#[test]
fn chunks_do_not_matter() {
    check_chunks(&tiny_gpt2(), WeightFormat::Native, 600, 1e-3);
    for name in ["llama3.gguf", "qwen2.gguf", "mistral.gguf"] {
        let model = load_with(&golden(name), &options(WeightFormat::F32, 1, 512));
        let tokens: Vec<u32> = (0..40).map(|i| (i * 29 + 3) % 500).collect();
        let expected = all_logits(&model, &tokens);
        for chunk in [1, 7] {
            let found = all_logits(&load_with(&golden(name), &options(WeightFormat::F32, 1, chunk)), &tokens);
            assert!(largest_difference(&expected, &found) <= 1e-3, "{name}, chunks of {chunk}");
        }
    }
}

#[test]
fn chunks_do_not_matter_to_smollm2() {
    let Some(path) = smollm2() else { return };
    check_chunks(&path, WeightFormat::F32, 130, 1e-3);
}

#[test]
fn threads_change_no_bit() {
    let mut models = vec![(tiny_gpt2(), 80), (golden("qwen2.gguf"), 40), (golden("llama3"), 40)];
    models.extend(smollm2().map(|path| (path, 40)));
    for (path, length) in models {
        for weights in [WeightFormat::Native, WeightFormat::F32] {
            let [one, two, three] = [1, 2, 3].map(|threads| {
                let model = load_with(&path, &options(weights, threads, 32));
                assert_eq!(model.pool().threads(), threads);
                let tokens: Vec<u32> = (0..length).map(|i| i * 13 % 500).collect();
                all_logits(&model, &tokens)
            });
            assert!(one == two && one == three, "{} {weights:?}", path.display());
        }
    }
}

#[test]
fn a_position_beyond_the_context_needs_leave() {
    let model = load(&golden("qwen2.gguf"), WeightFormat::F32);
    let tokens: Vec<u32> = (0..model.config().context as u32 + 1).map(|i| i % 500).collect();
    let mut cache = exact_cache(&model);
    let run = |model: &Model, cache: &mut Cache, tokens: &[u32]| run(model, cache, tokens, Logits::Last);
    let error = run(&model, &mut cache, &tokens).unwrap_err();
    assert!(matches!(error, ModelError::Context { length: 129, context: 128 }));
    assert_eq!(cache.position(), 0, "nothing ran");
    assert!(run(&model, &mut cache, &tokens[1..]).is_ok());
    assert!(run(&model, &mut cache, &tokens[..1]).is_err());

    let beyond = LoadOptions { beyond_context: true, ..LoadOptions::default() };
    let model = load_with(&golden("qwen2.gguf"), &beyond);
    assert!(run(&model, &mut exact_cache(&model), &tokens).is_ok());
    let error = Model::load(&golden("gpt2"), &beyond).err().unwrap().to_string();
    assert!(error.contains("learned positions"), "{error}");
}

/// One layer with a window of 48: position 47 sees token 0, position 48 does not.
#[test]
fn a_sliding_window_ends_where_the_checkpoint_says() {
    for name in ["mistral", "mistral.gguf"] {
        let model = load(&golden(name), WeightFormat::F32);
        let config = model.config();
        assert_eq!((config.context, config.layers.len(), config.layers[0].window), (128, 1, Some(48)));
        assert!(config.notes.is_empty());
        let mut tokens: Vec<u32> = (0..100).map(|i| (i * 29 + 3) % 500).collect();
        for chunk in [512, 7] {
            let model = load_with(&golden(name), &options(WeightFormat::F32, 2, chunk));
            let with = all_logits(&model, &tokens);
            tokens[0] += 1;
            let without = all_logits(&model, &tokens);
            tokens[0] -= 1;
            let rows = with
                .chunks_exact(model.config().vocabulary)
                .zip(without.chunks_exact(model.config().vocabulary));
            let differ: Vec<usize> =
                rows.enumerate().filter(|(_, (a, b))| a != b).map(|(position, _)| position).collect();
            assert_eq!(differ, (0..48).collect::<Vec<_>>(), "{name}, chunks of {chunk}");
        }
    }
    assert!(load(&golden("qwen2"), WeightFormat::F32).config().layers.iter().all(|l| l.window.is_none()));
}
