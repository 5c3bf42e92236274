//! Real models against transformers on the dequantized weights of the same file, over 256 tokens of a novel.

mod common;

use common::*;
use sketchkv_model::WeightFormat;
use std::path::Path;

/// Asserts that the perplexity is within 1 % and the top token the same at 97 % of the positions, as the model runs.
fn check(name: &str, path: &Path) {
    let expected = Expected::read(&golden(&format!("{name}.real.safetensors")));
    let tokens = expected.integers("tokens");
    let model = load(path, WeightFormat::Native);
    let logits = all_logits(&model, &tokens);
    let rows: Vec<&[f32]> = logits.chunks_exact(model.config().vocabulary).collect();
    let same = rows.iter().zip(expected.integers("top")).filter(|(row, top)| argmax(row) == *top as usize);
    let same = same.count() as f64 / rows.len() as f64;
    let loss = |(row, next): (&&[f32], &u32)| log_sum_exp(row) - f64::from(row[*next as usize]);
    let count = (tokens.len() - 1) as f64;
    let found = rows.iter().zip(&tokens[1..]).map(loss).sum::<f64>() / count;
    let exact = expected.floats("losses").iter().map(|loss| f64::from(*loss)).sum::<f64>() / count;
    let ratio = (found - exact).exp();
    println!(
        "{name}: perplexity {:.3}, {ratio:.5} of the reference; the top token the same at {same:.3}",
        found.exp()
    );
    assert!((ratio - 1.0).abs() <= 0.01, "{name}: perplexity is {ratio} times the reference");
    assert!(same >= 0.97, "{name}: the same top token at {same} of the positions");
}

#[test]
fn smollm2_is_what_transformers_makes_of_it() {
    if let Some(path) = smollm2() {
        check("smollm2-135m", &path);
    }
}

#[test]
fn gemma_3_is_what_transformers_makes_of_it() {
    let Some(path) = pulled("gemma3-270m", "gemma-3-270m-q4_k_m.gguf", true) else { return };
    check("gemma3-270m", &path);
    // As llama.cpp tells the tokens, and what the model says next.
    let model = load(&path, WeightFormat::Native);
    let prompt = model.tokenizer().encode_prompt("The capital of France is").unwrap();
    assert_eq!(prompt, [2, 818, 5279, 529, 7001, 563]);
    let (mut tokens, mut said) = (prompt, vec![]);
    for _ in 0..8 {
        let logits = all_logits(&model, &tokens);
        let next = argmax(&logits[(tokens.len() - 1) * model.config().vocabulary..]) as u32;
        tokens.push(next);
        said.push(next);
    }
    assert_eq!(model.tokenizer().decode(&said), " the capital of the country of France.");
}

#[test]
fn qwens_are_what_transformers_makes_of_them() {
    for (name, file) in [
        ("qwen2.5-coder-0.5b", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"),
        ("qwen2.5-coder-1.5b", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"),
    ] {
        if let Some(path) = pulled(name, file, false) {
            check(name, &path);
        }
    }
}
