//! What a step of a generation adds to the model's work: nothing that asks for memory.

mod common;

use common::*;
use sketchkv_engine::{Conversation, GenerateOptions, Generation, SessionFile};
use sketchkv_model::{LoadOptions, Sampler, Sampling, Workspace};
#[test]
fn a_step_allocates_nothing() {
    let model = load_with(&tiny_gpt2(), &LoadOptions { threads: 1, ..LoadOptions::default() });
    let sampling = Sampling { repetition_penalty: 1.2, ..Sampling::default() };
    let mut generation = Generation::new(exact_cache(&model), Sampler::new(sampling).unwrap());
    let options = GenerateOptions { max_tokens: Some(600), ignore_end: true, ..GenerateOptions::default() };
    generation.feed(&model, &prose(&model, 32), &options).unwrap();
    let mut workspace = Workspace::new();
    let mut counts = vec![];
    loop {
        let mut done = false;
        let asked = allocation_counter::measure(|| {
            done = generation.step(&model, &mut workspace).unwrap().is_none();
        });
        if done {
            break;
        }
        counts.push(asked.count_total);
    }
    let steps = &counts[64..];
    // The cache grows by strips of 16 tokens, and the buffers with it at the next step; the text and the sampler's memory
    // grow by doubling.
    let asking = steps.iter().filter(|&&count| count > 0).count();
    assert!(asking <= steps.len() / 8 + 4, "{asking} of {}: {steps:?}", steps.len());
}

/// Whoever holds one may hand it to another thread.
#[test]
fn what_doors_hold_can_be_sent() {
    fn sent<T: Send>() {}
    sent::<Generation>();
    sent::<Conversation>();
    sent::<SessionFile>();
}
