//! Logits against those of transformers in f32: every architecture, both file kinds, every block format.

mod common;

use common::*;
use sketchkv_model::{Architecture, Model, WeightFormat};

/// Asserts that the model's logits at the kept positions are the expected ones; returns all logits.
fn check(name: &str, model: &Model, expected: &Expected) -> Vec<f32> {
    let logits = all_logits(model, &expected.integers("tokens"));
    let vocabulary = model.config().vocabulary;
    let positions = expected.integers("positions");
    let exact = expected.floats("logits");
    let mut mean = 0.0;
    for (position, exact) in positions.iter().zip(exact.chunks_exact(vocabulary)) {
        let found = &logits[*position as usize * vocabulary..][..vocabulary];
        let difference = largest_difference(exact, found);
        assert!(difference <= 1e-3, "{name}: logits at {position} differ by {difference}");
        mean += divergence(exact, found) / positions.len() as f64;
    }
    assert!(mean <= 1e-6, "{name}: mean KL {mean}");
    logits
}

#[test]
fn folders_give_the_logits_of_transformers() {
    let folders = [
        ("llama", Architecture::Llama),
        ("llama3", Architecture::Llama),
        ("mistral", Architecture::Mistral),
        ("qwen2", Architecture::Qwen2),
        ("gpt2", Architecture::Gpt2),
    ];
    for (name, architecture) in folders {
        let model = load(&golden(name), WeightFormat::F32);
        assert_eq!(model.config().architecture, architecture);
        check(name, &model, &Expected::read(&golden(name).join("expected.safetensors")));
        // These folders hold no quantized weights: their native path computes in f32 too.
        let native = load(&golden(name), WeightFormat::Native);
        check(name, &native, &Expected::read(&golden(name).join("expected.safetensors")));
    }
}

#[test]
fn gguf_files_give_the_logits_of_transformers_for_the_dequantized_weights() {
    for name in ["llama", "llama3", "mistral", "qwen2", "gpt2", "k-quants"] {
        let model = load(&golden(&format!("{name}.gguf")), WeightFormat::F32);
        assert_eq!(model.config().name, name);
        check(name, &model, &Expected::read(&golden(&format!("{name}.expected.safetensors"))));
    }
}

/// Weights and activations in 8 bits or fewer: the same model, to the noise of rounding.
#[test]
fn quantized_products_stay_near_the_exact_ones() {
    for (name, weights) in [
        ("llama.gguf", WeightFormat::Native),
        ("llama3.gguf", WeightFormat::Native),
        ("mistral.gguf", WeightFormat::Native),
        ("qwen2.gguf", WeightFormat::Native),
        ("gpt2.gguf", WeightFormat::Native),
        ("k-quants.gguf", WeightFormat::Native),
        ("llama", WeightFormat::Q8),
        ("gpt2", WeightFormat::Q8),
    ] {
        let exact_model = load(&golden(name), WeightFormat::F32);
        let tokens: Vec<u32> =
            (0..40).map(|i| (i * 37 + 11) % exact_model.config().vocabulary as u32).collect();
        let vocabulary = exact_model.config().vocabulary;
        let exact = all_logits(&exact_model, &tokens);
        let found = all_logits(&load(&golden(name), weights), &tokens);
        let rows = exact.chunks_exact(vocabulary).zip(found.chunks_exact(vocabulary));
        let mean = rows.map(|(e, f)| divergence(e, f)).sum::<f64>() / tokens.len() as f64;
        assert!(mean > 0.0 && mean < 0.01, "{name}: mean KL {mean}");
    }
}

/// Checks the kept positions, and every position by some of its logits and its normaliser.
fn check_text(name: &str, model: &Model) {
    let expected = Expected::read(&golden(&format!("{name}.expected.safetensors")));
    let logits = check(name, model, &expected);
    let vocabulary = model.config().vocabulary;
    let columns = expected.integers("columns");
    let sampled = expected.floats("sampled");
    let sums = expected.floats("log_sum_exp");
    let rows = logits.chunks_exact(vocabulary).zip(sampled.chunks_exact(columns.len())).zip(sums).enumerate();
    for (position, ((row, sampled), sum)) in rows {
        let found: Vec<f32> = columns.iter().map(|c| row[*c as usize]).collect();
        let difference = largest_difference(sampled, &found);
        assert!(difference <= 1e-3, "{name}: logits at {position} differ by {difference}");
        let found = log_sum_exp(row);
        assert!((found - f64::from(sum)).abs() <= 1e-3, "{name}: normaliser at {position} {found} {sum}");
    }
}

#[test]
fn tiny_gpt2_gives_the_logits_of_transformers_on_text() {
    check_text("tiny-gpt2", &load(&tiny_gpt2(), WeightFormat::F32));
    check_text("tiny-gpt2", &load(&tiny_gpt2(), WeightFormat::Native));
}

#[test]
fn smollm2_gives_the_logits_of_transformers_on_text() {
    let Some(path) = smollm2() else { return };
    check_text("smollm2", &load(&path, WeightFormat::F32));
}
