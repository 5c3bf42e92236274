//! What must not change a result: how the input is cut, how many threads run, which other sequences share the batch.

mod common;

use common::*;
use sketchkv_cache::Cache;
use sketchkv_model::{LoadOptions, Logits, Model, ModelError, Sequence, WeightFormat, Workspace};
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

/// Sequences of different lengths and histories in one batch give what each gives alone.
#[test]
fn a_batch_is_its_sequences() {
    for (name, chunk) in [("llama3.gguf", 512), ("qwen2", 5), ("gpt2", 8)] {
        let model = load_with(&golden(name), &options(WeightFormat::Native, 2, chunk));
        let texts: Vec<Vec<u32>> =
            [3, 9, 1, 12].iter().map(|n| (0..*n).map(|i| (i * 31 + n) % 500).collect()).collect();
        let vocabulary = model.config().vocabulary;
        let mut workspace = Workspace::new();
        let mut caches: Vec<Cache> = texts.iter().map(|_| exact_cache(&model)).collect();
        // A first token each, so that the sequences stand at a position above zero.
        for (cache, text) in caches.iter_mut().zip(&texts).skip(1).step_by(2) {
            model
                .forward(&mut [Sequence { tokens: &text[..1], cache }], &mut workspace, Logits::None)
                .unwrap();
        }
        let mut alone_caches: Vec<Cache> = texts.iter().map(|_| exact_cache(&model)).collect();
        let mut alone = vec![];
        for (i, (cache, text)) in alone_caches.iter_mut().zip(&texts).enumerate() {
            if i % 2 == 1 {
                model
                    .forward(&mut [Sequence { tokens: &text[..1], cache }], &mut workspace, Logits::None)
                    .unwrap();
            }
            let logits =
                model.forward(&mut [Sequence { tokens: text, cache }], &mut workspace, Logits::All).unwrap();
            alone.push(logits.to_vec());
        }
        let batch = |caches: &mut [Cache], want| {
            let mut batch: Vec<Sequence<'_>> =
                texts.iter().zip(caches).map(|(tokens, cache)| Sequence { tokens, cache }).collect();
            model.forward(&mut batch, &mut Workspace::new(), want).unwrap().to_vec()
        };
        let mut again: Vec<Cache> = texts.iter().map(|_| exact_cache(&model)).collect();
        for (cache, text) in again.iter_mut().zip(&texts).skip(1).step_by(2) {
            model
                .forward(&mut [Sequence { tokens: &text[..1], cache }], &mut workspace, Logits::None)
                .unwrap();
        }
        let all = batch(&mut caches, Logits::All);
        assert!(largest_difference(&alone.concat(), &all) <= 1e-4, "{name}");
        let last: Vec<f32> =
            alone.iter().flat_map(|logits| logits[logits.len() - vocabulary..].to_vec()).collect();
        assert!(largest_difference(&last, &batch(&mut again, Logits::Last)) <= 1e-4, "{name}");
        assert!(caches.iter().zip(&alone_caches).all(|(a, b)| a.position() == b.position()));
    }
}

#[test]
fn a_position_beyond_the_context_needs_leave() {
    let model = load(&golden("qwen2.gguf"), WeightFormat::F32);
    let tokens: Vec<u32> = (0..model.config().context as u32 + 1).map(|i| i % 500).collect();
    let mut cache = exact_cache(&model);
    let mut workspace = Workspace::new();
    let mut run = |model: &Model, cache: &mut Cache, tokens: &[u32]| {
        model
            .forward(&mut [Sequence { tokens, cache }], &mut workspace, Logits::Last)
            .map(|logits| logits.len())
    };
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

#[test]
fn a_sliding_window_cuts_the_context_and_says_so() {
    for name in ["mistral", "mistral.gguf"] {
        let model = load(&golden(name), WeightFormat::F32);
        assert_eq!((model.config().context, model.config().sliding_window), (48, Some(48)));
        assert!(model.config().notes[0].contains("sliding window of 48"), "{:?}", model.config().notes);
    }
    assert!(load(&golden("qwen2"), WeightFormat::F32).config().notes.is_empty());
}

#[test]
fn wrong_arguments_are_errors() {
    let model = load(&golden("llama3"), WeightFormat::F32);
    let other = load(&golden("llama"), WeightFormat::F32);
    let mut workspace = Workspace::new();
    let mut run = |tokens: &[u32], cache: &mut Cache| {
        let batch = &mut [Sequence { tokens, cache }];
        model.forward(batch, &mut workspace, Logits::Last).unwrap_err().to_string()
    };
    assert!(run(&[], &mut exact_cache(&model)).contains("no tokens"));
    assert!(run(&[1, 640], &mut exact_cache(&model)).contains("token 640 is none of the model's 640"));
    assert!(run(&[1], &mut exact_cache(&other)).contains("another shape"));
}
