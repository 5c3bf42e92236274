//! Generation through the public door.

mod common;

use common::*;
use sketchkv_engine::{EngineError, Finish, GenerateOptions, Generation};
use sketchkv_model::{LoadOptions, Logits, Model, Sampler, Sampling, Sequence, WeightFormat, Workspace};

struct Outcome {
    text: String,
    tokens: Vec<u32>,
    generation: Generation,
}

fn generation(model: &Model, sampling: Sampling) -> Generation {
    Generation::new(exact_cache(model), Sampler::new(sampling).unwrap())
}

/// Steps to the end.
fn outcome(model: &Model, mut generation: Generation) -> Outcome {
    let (mut text, mut tokens, mut workspace) = (String::new(), vec![], Workspace::new());
    while let Some(step) = generation.step(model, &mut workspace).unwrap() {
        text.push_str(step.text);
        tokens.extend(step.token);
    }
    assert_eq!(text, generation.text());
    Outcome { text, tokens, generation }
}

fn generate(model: &Model, prompt: &str, sampling: Sampling, options: GenerateOptions) -> Outcome {
    let mut generation = generation(model, sampling);
    generation.feed(model, &model.tokenizer().encode_prompt(prompt).unwrap(), &options).unwrap();
    outcome(model, generation)
}

fn most(tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(tokens), ..GenerateOptions::default() }
}

#[test]
fn greedy_generation_is_the_argmax_of_the_whole_text() {
    let model = load(&tiny_gpt2(), WeightFormat::Native);
    let outcome = generate(&model, "It was a truth", Sampling::greedy(), most(24));
    assert_eq!(outcome.generation.finish(), Some(Finish::Length));
    assert_eq!(outcome.tokens.len(), 24);
    // The tokens, run at once behind the prompt, predict themselves.
    let prompt = model.tokenizer().encode("It was a truth").unwrap();
    let all = [prompt.clone(), outcome.tokens.clone()].concat();
    let logits = all_logits(&model, &all);
    let predicted: Vec<u32> =
        logits.chunks_exact(model.config().vocabulary).map(|row| argmax(row) as u32).collect();
    assert_eq!(&predicted[prompt.len() - 1..all.len() - 1], outcome.tokens);
    assert_eq!(outcome.text, model.tokenizer().decode(&outcome.tokens));
    assert_eq!(outcome.generation.timing().prefill_tokens, prompt.len());
    assert_eq!(outcome.generation.timing().decode_tokens, 23, "the first comes from the prompt's pass");
    assert_eq!(outcome.generation.cache().position(), all.len() - 1);
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
    assert_eq!(outcome.generation.finish(), Some(Finish::Stop));
    assert_eq!(outcome.text, &free[..free.find(word).unwrap()]);
    // A stop text that never comes whole takes nothing away.
    let options = GenerateOptions { stop: vec![format!("{word}\u{0}never")], ..most(24) };
    assert_eq!(generate(&model, "It was a truth", Sampling::greedy(), options).text, free);
}

#[test]
fn the_context_ends_a_generation() {
    let model = load(&repository("crates/model/tests/golden/gpt2"), WeightFormat::F32);
    let options = GenerateOptions { ignore_end: true, ..GenerateOptions::default() };
    let outcome = generate(&model, "a", Sampling::greedy(), options);
    assert_eq!(outcome.generation.finish(), Some(Finish::Context));
    assert_eq!(outcome.generation.cache().position(), 64, "every position is used");
    assert_eq!(outcome.tokens.len(), 64, "and the last logits too");

    let mut generation = generation(&model, Sampling::greedy());
    let mut fed = |prompt: &[u32]| {
        let error = generation.feed(&model, prompt, &GenerateOptions::default()).unwrap_err();
        assert_eq!(generation.tokens(), 0);
        error.to_string()
    };
    assert!(fed(&[1; 65]).contains("65 tokens are more than the model's context of 64"));
    assert!(fed(&[]).contains("prompt is empty"));
}

#[test]
fn the_model_can_end_by_itself() {
    let Some(path) = smollm2() else { return };
    let model = load(&path, WeightFormat::Native);
    let question =
        sketchkv_model::ChatMessage::new("user", "What is the capital of France? Answer in one word.");
    let prompt = model.tokenizer().chat(&[question], true).unwrap();
    let outcome = generate(&model, &prompt, Sampling::greedy(), most(60));
    assert_eq!(outcome.generation.finish(), Some(Finish::End));
    assert!(outcome.text.contains("Paris"), "{}", outcome.text);
    assert!(!outcome.text.contains("<|im_end|>"));
    assert!(model.tokenizer().is_end(*outcome.tokens.last().unwrap()));
}

#[test]
fn an_interrupt_stops_between_tokens_and_between_chunks() {
    let model = load_with(&tiny_gpt2(), &LoadOptions { chunk: 8, threads: 1, ..LoadOptions::default() });
    let (prompt, mut workspace) = (prose(&model, 64), Workspace::new());
    let whole = {
        let mut generation = generation(&model, Sampling::greedy());
        generation.feed(&model, &prompt, &most(12)).unwrap();
        generation.complete(&model, &mut workspace).unwrap().to_owned()
    };
    // After so many chunks of the prompt, and tokens after it.
    for steps in [0usize, 1, 7, 8, 9, 13] {
        let mut generation = generation(&model, Sampling::greedy());
        generation.feed(&model, &prompt, &most(1000)).unwrap();
        for _ in 0..steps {
            assert_eq!(generation.step(&model, &mut workspace).unwrap().unwrap().finish, None);
        }
        generation.interrupt(&model);
        let last = generation.step(&model, &mut workspace).unwrap().unwrap();
        assert_eq!((last.token, last.finish), (None, Some(Finish::Interrupted)));
        assert_eq!(generation.step(&model, &mut workspace).unwrap(), None);
        let generated = steps.saturating_sub(7);
        assert_eq!(generation.cache().position(), (8 * steps).min(64) + generated.saturating_sub(1));
        assert_eq!(generation.tokens(), 64 + generated);
        // It goes on where it was.
        let mut text = generation.text().to_owned();
        generation.feed(&model, &[], &most(12 - generated)).unwrap();
        text += generation.complete(&model, &mut workspace).unwrap();
        assert_eq!(text, whole, "{steps}");
    }
}

#[test]
fn special_tokens_are_hidden_unless_asked_for() {
    let Some(path) = smollm2() else { return };
    let model = load(&path, WeightFormat::Native);
    let question =
        sketchkv_model::ChatMessage::new("user", "What is the capital of France? Answer in one word.");
    let prompt = model.tokenizer().chat(&[question], true).unwrap();
    let shown =
        generate(&model, &prompt, Sampling::greedy(), GenerateOptions { show_special: true, ..most(60) });
    assert!(shown.text.ends_with("<|im_end|>"), "{}", shown.text);
}

/// What a batch is for: several texts in one pass, each as if it were alone.
#[test]
fn generations_are_stepped_together() {
    let model = load(&tiny_gpt2(), WeightFormat::Native);
    let tasks = [
        ("It was a truth", Sampling::greedy(), 24),
        ("She was", Sampling { seed: 3, ..Sampling::default() }, 9),
    ];
    let alone: Vec<Outcome> = tasks
        .iter()
        .map(|(prompt, sampling, n)| generate(&model, prompt, sampling.clone(), most(*n)))
        .collect();
    let mut together: Vec<Generation> = tasks
        .iter()
        .map(|(prompt, sampling, n)| {
            let mut generation = generation(&model, sampling.clone());
            generation.feed(&model, &model.tokenizer().encode_prompt(prompt).unwrap(), &most(*n)).unwrap();
            assert_eq!(generation.ready(), None);
            generation
        })
        .collect();
    let mut workspace = Workspace::new();
    loop {
        let (mut batch, mut running): (Vec<Sequence<'_>>, Vec<usize>) = (vec![], vec![]);
        for (i, generation) in together.iter_mut().enumerate() {
            if let Some(sequence) = generation.sequence() {
                batch.push(sequence);
                running.push(i);
            }
        }
        if batch.is_empty() {
            break;
        }
        let outputs = model.forward(&mut batch, &mut workspace, Logits::Last);
        for (place, i) in running.into_iter().enumerate() {
            together[i].accept(&model, outputs.of(place).unwrap()).unwrap();
        }
    }
    for (together, alone) in together.iter().zip(alone) {
        assert_eq!(together.text(), alone.text);
        assert_eq!(together.timing().decode_tokens, alone.generation.timing().decode_tokens);
    }
}

#[test]
fn logits_that_are_not_finite_end_it_with_an_error() {
    let model = load(&tiny_gpt2(), WeightFormat::Native);
    let mut generation = generation(&model, Sampling::greedy());
    generation.feed(&model, &[5, 6], &most(4)).unwrap();
    let sequence = generation.sequence().unwrap();
    let mut workspace = Workspace::new();
    let mut logits = model.forward(&mut [sequence], &mut workspace, Logits::Last).of(0).unwrap().to_vec();
    logits[7] = f32::NAN;
    let error = generation.accept(&model, &logits).unwrap_err();
    assert!(
        matches!(error, EngineError::Sample(_)) && error.to_string().contains("token 7 is NaN"),
        "{error}"
    );
    assert!(generation.sequence().is_none());
}

#[test]
fn a_fork_goes_on_as_its_origin() {
    let model = load(&tiny_gpt2(), WeightFormat::Native);
    let Outcome { mut generation, .. } = generate(&model, "It was a truth", Sampling::default(), most(9));
    let mut fork = generation.fork(&model).unwrap();
    let more = most(12);
    generation.feed(&model, &[], &more).unwrap();
    fork.feed(&model, &[], &more).unwrap();
    assert_eq!(outcome(&model, generation).tokens, outcome(&model, fork).tokens);
}

#[test]
fn a_text_is_cut_back_to_any_of_its_tokens() {
    let model = load(&tiny_gpt2(), WeightFormat::Native);
    let prompt = model.tokenizer().encode_prompt("It was a truth").unwrap();
    let whole = generate(&model, "It was a truth", Sampling::greedy(), most(12));
    let all = [&prompt[..], &whole.tokens].concat();
    for kept in [1, prompt.len(), all.len() - 2, all.len() - 1, all.len(), all.len() + 5] {
        let Outcome { mut generation, .. } = generate(&model, "It was a truth", Sampling::greedy(), most(12));
        generation.truncate(&model, kept).unwrap();
        assert_eq!(generation.tokens(), kept.min(all.len()), "{kept}");
        let rest = &all[kept.min(all.len() - 1)..];
        generation.truncate(&model, all.len() - rest.len()).unwrap();
        generation.feed(&model, rest, &most(4)).unwrap();
        let mut straight = generation_of(&model, &all);
        straight.feed(&model, &[], &most(4)).unwrap();
        assert_eq!(outcome(&model, generation).tokens, outcome(&model, straight).tokens, "{kept}");
    }
}

/// A text of these tokens.
fn generation_of(model: &Model, tokens: &[u32]) -> Generation {
    let mut generation = generation(model, Sampling::greedy());
    generation.feed(model, tokens, &most(0)).unwrap();
    outcome(model, generation).generation
}

#[test]
fn a_text_takes_another_cap_and_another_sampling() {
    let model = load(&tiny_gpt2(), WeightFormat::Native);
    let mut generation = generation_of(&model, &[7; 300]);
    let refused = generation.set_cap(&model, "64KiB".parse().unwrap());
    assert!(refused.is_err_and(|error| error.to_string().contains("evicts nothing")));
    generation.set_sampling(Sampling { seed: 9, ..Sampling::default() }).unwrap();
    assert_eq!(generation.sampling(), &Sampling { seed: 0, ..Sampling::default() });
    assert!(generation.set_sampling(Sampling { top_p: 2.0, ..Sampling::default() }).is_err());
}
