//! Generation through the public door.

mod common;

use common::*;
use sketchkv_cache::Cache;
use sketchkv_model::{
    Finish, GenerateOptions, Generator, LoadOptions, Logits, Model, Piece, Sampler, Sampling, Sequence,
    Timing, WeightFormat, Workspace,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

struct Outcome {
    text: String,
    tokens: Vec<u32>,
    finish: Option<Finish>,
    timing: Timing,
    cache: Cache,
}

fn generate(model: &Model, prompt: &str, sampling: Sampling, options: GenerateOptions) -> Outcome {
    let mut cache = exact_cache(model);
    let mut workspace = Workspace::new();
    let mut sampler = Sampler::new(sampling).unwrap();
    let prompt = model.tokenizer().encode_prompt(prompt).unwrap();
    let mut generator =
        Generator::new(model, &mut cache, &mut workspace, &mut sampler, &prompt, options).unwrap();
    let pieces: Vec<Piece> = generator.by_ref().map(Result::unwrap).collect();
    let (finish, timing) = (generator.finish(), generator.timing());
    Outcome {
        text: pieces.iter().map(|piece| piece.text.as_str()).collect(),
        tokens: pieces.iter().map(|piece| piece.token).collect(),
        finish,
        timing,
        cache,
    }
}

fn most(tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(tokens), ..GenerateOptions::default() }
}

#[test]
fn greedy_generation_is_the_argmax_of_the_whole_text() {
    let model = load(&tiny_gpt2(), WeightFormat::Native);
    let outcome = generate(&model, "It was a truth", Sampling::greedy(), most(24));
    assert_eq!(outcome.finish, Some(Finish::Length));
    assert_eq!(outcome.tokens.len(), 24);
    // The tokens, run at once behind the prompt, predict themselves.
    let prompt = model.tokenizer().encode("It was a truth").unwrap();
    let all = [prompt.clone(), outcome.tokens.clone()].concat();
    let logits = all_logits(&model, &all);
    let predicted: Vec<u32> =
        logits.chunks_exact(model.config().vocabulary).map(|row| argmax(row) as u32).collect();
    assert_eq!(&predicted[prompt.len() - 1..all.len() - 1], outcome.tokens);
    assert_eq!(outcome.text, model.tokenizer().decode(&outcome.tokens));
    assert_eq!(outcome.timing.prefill_tokens, prompt.len());
    assert_eq!(outcome.timing.decode_tokens, 23, "the first comes from the prompt's pass");
    assert_eq!(outcome.cache.position(), all.len() - 1);
}

#[test]
fn a_seed_reproduces_a_text() {
    let model = load(&tiny_gpt2(), WeightFormat::Native);
    let run = |seed| {
        let sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed, ..Sampling::default() };
        generate(&model, "She was", sampling, most(32)).tokens
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn stop_texts_end_the_text_before_them() {
    let model = load(&tiny_gpt2(), WeightFormat::Native);
    let free = generate(&model, "It was a truth", Sampling::greedy(), most(24)).text;
    let word = free.split_whitespace().nth(4).unwrap();
    let options = GenerateOptions { stop: vec![word.to_owned()], ..most(24) };
    let outcome = generate(&model, "It was a truth", Sampling::greedy(), options);
    assert_eq!(outcome.finish, Some(Finish::Stop));
    assert_eq!(outcome.text, &free[..free.find(word).unwrap()]);
    // A stop text that never comes whole takes nothing away.
    let options = GenerateOptions { stop: vec![format!("{word}\u{0}never")], ..most(24) };
    assert_eq!(generate(&model, "It was a truth", Sampling::greedy(), options).text, free);
}

#[test]
fn the_context_ends_a_generation() {
    let model = load(&golden("gpt2"), WeightFormat::F32);
    let options = GenerateOptions { ignore_end: true, ..GenerateOptions::default() };
    let outcome = generate(&model, "a", Sampling::greedy(), options);
    assert_eq!(outcome.finish, Some(Finish::Context));
    assert_eq!(outcome.cache.position(), 64, "every position is used");
    assert_eq!(outcome.tokens.len(), 64, "and the last logits too");

    let prompt = vec![1; 65];
    let (mut cache, mut workspace) = (exact_cache(&model), Workspace::new());
    let mut sampler = Sampler::new(Sampling::greedy()).unwrap();
    let mut start = |prompt: &[u32]| {
        let options = GenerateOptions::default();
        let generator = Generator::new(&model, &mut cache, &mut workspace, &mut sampler, prompt, options);
        generator.err().unwrap().to_string()
    };
    assert!(start(&prompt).contains("65 tokens are more than the model's context of 64"));
    assert!(start(&[]).contains("prompt is empty"));
}

#[test]
fn the_model_can_end_by_itself() {
    let Some(path) = smollm2() else { return };
    let model = load(&path, WeightFormat::Native);
    let question =
        sketchkv_model::ChatMessage::new("user", "What is the capital of France? Answer in one word.");
    let prompt = model.tokenizer().chat(&[question], true).unwrap();
    let outcome = generate(&model, &prompt, Sampling::greedy(), most(60));
    assert_eq!(outcome.finish, Some(Finish::End));
    assert!(outcome.text.contains("Paris"), "{}", outcome.text);
    assert!(!outcome.text.contains("<|im_end|>"));
    assert!(model.tokenizer().is_end(*outcome.tokens.last().unwrap()));
}

#[test]
fn an_interrupt_stops_between_tokens_and_between_chunks() {
    let model = load_with(&tiny_gpt2(), &LoadOptions { chunk: 8, threads: 1, ..LoadOptions::default() });
    let flag = Arc::new(AtomicBool::new(false));
    let options = GenerateOptions { interrupt: Some(flag.clone()), ..most(1000) };
    let (mut cache, mut workspace) = (exact_cache(&model), Workspace::new());
    let mut sampler = Sampler::new(Sampling::greedy()).unwrap();
    let prompt = prose(&model, 64);
    let mut generator =
        Generator::new(&model, &mut cache, &mut workspace, &mut sampler, &prompt, options.clone()).unwrap();
    assert!(generator.next().is_some());
    flag.store(true, Ordering::Relaxed);
    assert!(generator.next().is_none());
    assert_eq!(generator.finish(), Some(Finish::Interrupted));
    drop(generator);
    assert_eq!(cache.position(), 64);

    let mut cache = exact_cache(&model);
    let mut generator =
        Generator::new(&model, &mut cache, &mut workspace, &mut sampler, &prompt, options).unwrap();
    assert!(generator.next().is_none());
    assert_eq!(cache.position(), 0);
}

/// The hot path: once its buffers have grown, a workspace does not grow again.
#[test]
fn a_workspace_is_reused() {
    let model = load(&golden("llama3.gguf"), WeightFormat::Native);
    let (mut cache, mut workspace) = (exact_cache(&model), Workspace::new());
    let mut run = |tokens: &[u32], workspace: &mut Workspace| {
        model.forward(&mut [Sequence { tokens, cache: &mut cache }], workspace, Logits::Last).all().unwrap();
        workspace.bytes()
    };
    let after_prompt = run(&[1; 32], &mut workspace);
    for token in 0..16 {
        assert_eq!(run(&[token], &mut workspace), after_prompt);
    }
}
