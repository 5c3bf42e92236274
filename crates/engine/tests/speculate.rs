//! Speculation changes nothing but the time.

mod common;

use common::*;
use proptest::prelude::*;
use sketchkv_cache::{Cache, Spec};
use sketchkv_engine::speculate::{Confidence, DraftModel, Drafter, Lookup};
use sketchkv_engine::{Constraint, Finish, GenerateOptions, Generation, Grammars, Session, Timing};
use sketchkv_model::{LoadOptions, Model, Sampler, Sampling, Workspace};
use std::sync::LazyLock;

static MODEL: LazyLock<Model> = LazyLock::new(tiny);

fn tiny() -> Model {
    load_with(&tiny_gpt2(), &LoadOptions { threads: 1, ..LoadOptions::default() })
}

const SPECS: [&str; 6] =
    ["full", "full+q8", "h2o(recent=8)@25%", "h2o+adaptive+buckets@48tok", "full+topk(k=16)", "auto@40%"];

/// Knows what comes, but for every `wrong`th token.
struct Oracle {
    text: Vec<u32>,
    wrong: usize,
}

impl Drafter for Oracle {
    fn draft(&mut self, _: &Model, text: &[u32], most: usize, guesses: &mut Vec<u32>) -> Confidence {
        let rest = self.text.get(text.len()..).unwrap_or_default().iter().enumerate();
        let guess =
            |(i, &token): (usize, &u32)| token + u32::from((text.len() + i).is_multiple_of(self.wrong));
        guesses.extend(rest.take(most).map(guess));
        Confidence::High
    }
}

fn samplings() -> [Sampling; 3] {
    let drawn = Sampling { temperature: 0.9, seed: 11, ..Sampling::default() };
    let penalised =
        Sampling { repetition_penalty: 1.3, presence_penalty: 0.7, frequency_penalty: 0.4, ..drawn.clone() };
    [Sampling::greedy(), drawn, penalised]
}

fn begin(spec: &str, sampling: &Sampling) -> Generation {
    let cache = Cache::new(MODEL.cache_shape(), &spec.parse().unwrap(), 0).unwrap();
    Generation::new(cache, Sampler::new(sampling.clone()).unwrap())
}

/// What was shown in how many steps, the tokens, why it ended, how long it took, and all that is left behind.
struct Outcome {
    text: String,
    tokens: Vec<u32>,
    finish: Option<Finish>,
    timing: Timing,
    session: Vec<u8>,
}

fn outcome(mut generation: Generation, prompt: &[u32], options: &GenerateOptions) -> Outcome {
    let (mut text, mut tokens, mut workspace) = (String::new(), vec![], Workspace::new());
    generation.feed(&MODEL, prompt, options).unwrap();
    let mut finish = None;
    while let Some(step) = generation.step(&MODEL, &mut workspace).unwrap() {
        assert!(finish.is_none(), "only the last step says why it is over");
        text.push_str(step.text);
        tokens.extend(step.token);
        finish = step.finish;
    }
    assert_eq!((text.as_str(), finish), (generation.text(), generation.finish()));
    let timing = generation.timing();
    Outcome { text, tokens, finish, timing, session: Session::Text(generation).to_bytes(&MODEL).unwrap() }
}

fn compare(spec: &str, sampling: &Sampling, options: &GenerateOptions, wrong: usize) -> (Outcome, Outcome) {
    let prompt = prose(&MODEL, 64);
    let alone = outcome(begin(spec, sampling), &prompt, options);
    let mut generation = begin(spec, sampling);
    let text = [&prompt[..], &alone.tokens].concat();
    generation.speculate(&MODEL, Some(Box::new(Oracle { text, wrong })), &[]);
    let guessed = outcome(generation, &prompt, options);
    assert_eq!(guessed.tokens, alone.tokens, "{spec}");
    assert_eq!(guessed.text, alone.text, "{spec}");
    assert_eq!(guessed.finish, alone.finish, "{spec}");
    assert!(guessed.session == alone.session, "{spec}: what is left behind is something else");
    assert_eq!(guessed.timing.decode_tokens, alone.timing.decode_tokens, "{spec}");
    (alone, guessed)
}

fn options(tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(tokens), hold: true, ignore_end: true, ..GenerateOptions::default() }
}

#[test]
fn every_cache_and_sampling_gives_the_same_text() {
    let (mut all, mut right) = (0, 0);
    for spec in SPECS {
        for sampling in samplings() {
            let (_, guessed) = compare(spec, &sampling, &options(60), 5);
            let Timing { guesses, right_guesses, .. } = guessed.timing;
            (all, right) = (all + guesses, right + right_guesses);
        }
    }
    // How many are made is a matter of time.
    assert!(right > 40 && right < all, "{right} of {all} guesses");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn wherever_it_ends_it_is_the_same(
        spec in prop::sample::select(SPECS.to_vec()),
        sampling in prop::sample::select(samplings().to_vec()),
        tokens in 1_usize..40,
        wrong in 2_usize..9,
        stop in 0_usize..30,
        ignore_end in any::<bool>(),
        hold in any::<bool>(),
    ) {
        // A stop text from the midst of what comes, so that some of it is held back on the way.
        let first = outcome(begin(spec, &sampling), &prose(&MODEL, 64), &options(40));
        let begin = first.text.char_indices().map(|(at, _)| at).nth(stop * 4).unwrap_or(0);
        let stop: String = first.text[begin..].chars().take(7).collect();
        let stop = if stop.is_empty() { vec![] } else { vec![stop, format!("{} never", &first.text[..3])] };
        let options = GenerateOptions { stop, ignore_end, hold, ..options(tokens) };
        compare(spec, &sampling, &options, wrong);
    }
}

#[test]
fn a_grammar_is_kept_to() {
    let grammars = Grammars::new(&MODEL).unwrap();
    let constraint: Constraint = grammars.regex("( [a-z]{1,6}){30}").unwrap();
    let options = GenerateOptions { constraint: Some(constraint), ..options(80) };
    let (alone, guessed) = compare("full", &Sampling::greedy(), &options, 4);
    assert!(alone.finish == Some(Finish::End) || alone.tokens.len() == 80);
    assert!(guessed.timing.right_guesses > 0);
}

#[test]
fn what_is_interrupted_goes_on() {
    let prompt = prose(&MODEL, 64);
    let mut workspace = Workspace::new();
    let alone = outcome(begin("full+q8", &Sampling::greedy()), &prompt, &options(50));
    let mut generation = begin("full+q8", &Sampling::greedy());
    let text = [&prompt[..], &alone.tokens].concat();
    generation.speculate(&MODEL, Some(Box::new(Oracle { text, wrong: 1000 })), &[]);
    generation.feed(&MODEL, &prompt, &options(50)).unwrap();
    let mut shown = String::new();
    let mut tokens = 0;
    for _ in 0..9 {
        let step = generation.step(&MODEL, &mut workspace).unwrap().unwrap();
        tokens += usize::from(step.token.is_some());
        shown.push_str(step.text);
    }
    generation.interrupt(&MODEL);
    while let Some(step) = generation.ready() {
        tokens += usize::from(step.token.is_some());
        shown.push_str(step.text);
    }
    assert_eq!(shown, generation.text());
    assert!(generation.timing().right_guesses > 0);
    generation.feed(&MODEL, &[], &options(50 - tokens)).unwrap();
    shown.push_str(generation.complete(&MODEL, &mut workspace).unwrap());
    assert_eq!(shown, alone.text);
}

#[test]
fn look_up_finds_what_the_text_repeats() {
    let tokenizer = MODEL.tokenizer();
    let line = "One two three four five six seven eight nine ten eleven twelve. ";
    let prompt = tokenizer.encode_prompt(&line.repeat(6)).unwrap();
    let sampling = Sampling::greedy();
    let alone = outcome(begin("full", &sampling), &prompt, &options(60));
    let mut generation = begin("full", &sampling);
    generation.speculate(&MODEL, Some(Box::new(Lookup::new())), &[]);
    let guessed = outcome(generation, &prompt, &options(60));
    assert_eq!(guessed.tokens, alone.tokens);
    assert!(guessed.session == alone.session);
    assert!(guessed.timing.guesses > 0);
}

#[test]
fn a_model_guesses_for_itself_and_refuses_to_for_strangers() {
    let prompt = prose(&MODEL, 64);
    let spec: Spec = "full+q8".parse().unwrap();
    let sampling = Sampling::greedy();
    let alone = outcome(begin("full", &sampling), &prompt, &options(40));
    let drafters: [Box<dyn Drafter>; 2] = [
        Box::new(DraftModel::new(tiny(), &MODEL, &spec).unwrap()),
        Box::new(DraftModel::same_weights(&MODEL, &"window@40tok".parse().unwrap()).unwrap()),
    ];
    for drafter in drafters {
        let mut generation = begin("full", &sampling);
        generation.speculate(&MODEL, Some(drafter), &[]);
        let guessed = outcome(generation, &prompt, &options(40));
        assert_eq!(guessed.tokens, alone.tokens);
        assert!(guessed.session == alone.session);
    }
    let other = load_with(&repository("crates/model/tests/golden/granite.gguf"), &LoadOptions::default());
    let refused = DraftModel::new(other, &MODEL, &spec).err().unwrap().to_string();
    assert!(refused.contains("tokens are different"), "{refused}");
}
