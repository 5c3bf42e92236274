//! Going on is as if it had never stopped.

mod common;

use common::*;
use sketchkv_cache::Cache;
use sketchkv_engine::{Finish, GenerateOptions, Generation, Session};
use sketchkv_model::{LoadOptions, Model, Sampler, Sampling, TextStream, Workspace};
use std::sync::LazyLock;

const SPECS: [&str; 4] = ["full", "full+q8", "h2o(recent=8)@25%", "full+topk(k=16)"];
/// Tokens of the prompt, and of what follows.
const PROMPT: usize = 64;
const TOKENS: usize = 24;

static MODEL: LazyLock<Model> =
    LazyLock::new(|| load_with(&tiny_gpt2(), &LoadOptions { threads: 1, ..LoadOptions::default() }));

fn samplings() -> [(&'static str, Sampling); 3] {
    let drawn = Sampling { temperature: 0.9, seed: 11, ..Sampling::default() };
    let penalised =
        Sampling { repetition_penalty: 1.3, presence_penalty: 0.7, frequency_penalty: 0.4, ..drawn.clone() };
    [("greedy", Sampling::greedy()), ("drawn", drawn), ("penalised", penalised)]
}

fn options(tokens: usize, stop: &[&str]) -> GenerateOptions {
    GenerateOptions {
        max_tokens: Some(tokens),
        stop: stop.iter().map(|s| s.to_string()).collect(),
        ignore_end: true,
        hold: true,
        ..GenerateOptions::default()
    }
}

fn begin(spec: &str, sampling: &Sampling) -> Generation {
    let cache = Cache::new(MODEL.cache_shape(), &spec.parse().unwrap(), 0).unwrap();
    Generation::new(cache, Sampler::new(sampling.clone()).unwrap())
}

/// What was shown, the tokens chosen, and why it ended.
type Shown = (String, Vec<u32>, Option<Finish>);

fn go_on(generation: &mut Generation, tokens: &[u32], options: &GenerateOptions) -> Shown {
    let (mut text, mut chosen, mut workspace) = (String::new(), vec![], Workspace::new());
    generation.feed(&MODEL, tokens, options).unwrap();
    while let Some(step) = generation.step(&MODEL, &mut workspace).unwrap() {
        text.push_str(step.text);
        chosen.extend(step.token);
    }
    (text, chosen, generation.finish())
}

fn saved(generation: Generation) -> Vec<u8> {
    Session::Text(generation).to_bytes(&MODEL).unwrap()
}

fn loaded(bytes: &[u8], sampling: &Sampling) -> Generation {
    match Session::from_bytes(bytes, &MODEL, Sampling { seed: 99, ..sampling.clone() }).unwrap() {
        Session::Text(generation) => generation,
        Session::Conversation(_) => panic!("a text was saved"),
    }
}

/// The text at once. It must be the same in parts, saved and loaded after so many tokens, to the last byte of what is saved.
fn check(spec: &str, sampling: &Sampling, stop: &[&str], borders: &[&[usize]]) -> Shown {
    let prompt = prose(&MODEL, PROMPT);
    let mut generation = begin(spec, sampling);
    let whole = go_on(&mut generation, &prompt, &options(TOKENS, stop));
    let whole_bytes = saved(generation);
    for borders in borders {
        let mut generation = begin(spec, sampling);
        let mut parts: Shown = (String::new(), vec![], None);
        let (mut done, mut fed) = (0, prompt.as_slice());
        for &border in borders.iter().chain(&[TOKENS]) {
            if done > 0 || fed.is_empty() {
                generation = loaded(&saved(generation), sampling);
            }
            let part = go_on(&mut generation, fed, &options(border - done, stop));
            parts = (parts.0 + &part.0, [parts.1, part.1].concat(), part.2);
            if part.2 == Some(Finish::Stop) {
                break;
            }
            (done, fed) = (border, &[]);
        }
        assert_eq!(parts, whole, "{spec} {sampling:?} {stop:?} {borders:?}");
        let same = saved(generation) == whole_bytes;
        assert!(same, "{spec} {sampling:?} {stop:?} {borders:?}: what is saved differs");
    }
    whole
}

#[test]
fn parts_are_the_whole() {
    let mut borders: Vec<&[usize]> = vec![&[0], &[12], &[7, 7, 8, 23], &[1]];
    for spec in SPECS {
        for (_, sampling) in samplings() {
            check(spec, &sampling, &[], &borders[..2]);
            borders.rotate_left(1);
        }
    }
}

/// A stop text over the end of one token and the beginning of the next is found wherever the border lies.
#[test]
fn a_stop_text_is_found_across_a_border() {
    for spec in SPECS {
        for (name, sampling) in samplings() {
            let (text, tokens, _) = check(spec, &sampling, &[], &[]);
            let spelled = |tokens: &[u32]| MODEL.tokenizer().decode(tokens);
            for (at, left, right) in [(7, 1, 1), (14, 4, 3)] {
                let (before, after) = (spelled(&tokens[..at]), spelled(&tokens[at..]));
                let stop = format!("{}{}", &before[before.len() - left..], &after[..right]);
                let shown = &text[..text.find(&stop).unwrap()];
                let (found, _, finish) = check(spec, &sampling, &[&stop], &[&[at - 1], &[at], &[at + 1]]);
                assert_eq!((found.as_str(), finish), (shown, Some(Finish::Stop)), "{name} {spec} {stop:?}");
            }
            // One that never comes whole: what is held back at the border is shown after it.
            let before = spelled(&tokens[..12]);
            let never = format!("{}\u{0}", &before[before.len() - 9..]);
            let mut held = begin(spec, &sampling);
            let part = go_on(&mut held, &prose(&MODEL, PROMPT), &options(12, &[&never]));
            assert_eq!(part.0, before[..before.len() - 9], "{name} {spec}");
            let (found, ..) = check(spec, &sampling, &[&never], &[&[10, 12, 13]]);
            assert!(text.starts_with(&found) && found.len() >= before.len(), "{name} {spec}");
        }
    }
}

/// After a stop text, what goes on is what was shown: not the stop text, nor what follows it.
#[test]
fn what_a_stop_text_cut_off_is_not_part_of_the_text() {
    for spec in SPECS {
        for (name, sampling) in samplings() {
            let (text, tokens, _) = check(spec, &sampling, &[], &[]);
            let length = |count: usize| MODEL.tokenizer().decode(&tokens[..count]).len();
            // From one token to the middle of the third after it, where that is new to the text.
            let stop = |at: usize| &text[length(at)..length(at + 3) - 1];
            let at = (1..TOKENS - 3).rev().find(|&at| text.find(stop(at)) == Some(length(at))).unwrap();
            let (before, stop) = (text[..length(at)].to_owned(), stop(at));
            let mut generation = begin(spec, &sampling);
            let shown = go_on(&mut generation, &prose(&MODEL, PROMPT), &options(TOKENS, &[stop]));
            assert_eq!((shown.0.as_str(), shown.2), (before.as_str(), Some(Finish::Stop)), "{name} {spec}");
            assert_eq!(generation.tokens(), PROMPT + at);
            if sampling == Sampling::greedy() {
                // Without the stop text it goes on as it would have.
                let rest = go_on(&mut generation, &[], &options(TOKENS - at, &[]));
                assert_eq!(before + &rest.0, text, "{name} {spec}");
            }
        }
    }
}

#[test]
fn of_a_token_cut_in_two_the_first_part_stays() {
    let (text, tokens, _) = check("full+f32", &Sampling::greedy(), &[], &[]);
    let length = |tokens: &[u32]| MODEL.tokenizer().decode(tokens).len();
    // A word and what follows it, without the space before it, which is of the same token.
    let cut =
        |at: usize| (length(&tokens[..at]), &text[length(&tokens[..at]) + 1..length(&tokens[..at + 2])]);
    let begins = |at: &usize| {
        let (before, stop) = cut(*at);
        text[before..].starts_with(' ') && text.find(stop) == Some(before + 1)
    };
    let at = (1..TOKENS - 2).find(begins).expect("some word is new to the text");
    let (before, stop) = cut(at);
    let prompt = prose(&MODEL, PROMPT);
    let mut stopped = begin("full+f32", &Sampling::greedy());
    let shown = go_on(&mut stopped, &prompt, &options(TOKENS, &[stop]));
    assert_eq!(shown.0, text[..=before]);
    assert_eq!(stopped.tokens(), PROMPT + at + 1);
    // It goes on like a text that was never any other.
    let more = MODEL.tokenizer().encode("and then").unwrap();
    let said = go_on(&mut stopped, &more, &options(12, &[]));
    let space = MODEL.tokenizer().encode(" ").unwrap();
    let known = [&prompt, &tokens[..at], &space, &more].concat();
    let fresh = go_on(&mut begin("full+f32", &Sampling::greedy()), &known, &options(12, &[]));
    assert_eq!(said, fresh);
}

#[test]
fn what_was_held_back_goes_when_another_text_follows() {
    let sampling = &samplings()[2].1;
    let (_, tokens, _) = check("h2o@25%", sampling, &[], &[]);
    let last = MODEL.tokenizer().decode(&tokens[TOKENS - 2..]);
    let never = format!("{last}\u{0}");
    let mut held = begin("h2o@25%", sampling);
    go_on(&mut held, &prose(&MODEL, PROMPT), &options(TOKENS, &[&never]));
    let shown = PROMPT + TOKENS - 2;
    assert_eq!((held.tokens(), held.cache().position()), (shown + 2, shown));
    let more = MODEL.tokenizer().encode(" and then").unwrap();
    go_on(&mut held, &more, &options(0, &[]));
    assert_eq!((held.tokens(), held.cache().position()), (shown + more.len(), shown + more.len()));
}

/// The penalty looks at the session's text even where the first part was made without one.
#[test]
fn a_penalty_knows_the_text_from_before_it_was_asked_for() {
    let mut first = begin("full", &Sampling::greedy());
    let part = go_on(&mut first, &prose(&MODEL, PROMPT), &options(12, &[]));
    let penalised = Sampling { repetition_penalty: 5.0, repetition_window: 400, ..Sampling::greedy() };
    let mut second = loaded(&saved(first), &penalised);
    let (_, tokens, _) = go_on(&mut second, &[], &options(12, &[]));
    let known: Vec<u32> = [prose(&MODEL, PROMPT), part.1].concat();
    assert!(tokens.iter().all(|token| !known.contains(token)), "{known:?} {tokens:?}");
}

/// Characters of several tokens: what a border cuts is whole on the other side.
#[test]
fn a_character_is_finished_after_a_border() {
    let text = "🙂 naïve 你好";
    let prompt = MODEL.tokenizer().encode(text).unwrap();
    let sampling =
        Sampling { temperature: 3.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 5, ..Sampling::greedy() };
    let mut whole = begin("full", &sampling);
    let (shown, tokens, _) = go_on(&mut whole, &prompt, &options(60, &[]));
    let split = |n: &usize| {
        let mut stream = TextStream::default();
        tokens[..*n].iter().for_each(|t| stream.push(MODEL.tokenizer().token_bytes(*t), &mut String::new()));
        !stream.waiting().is_empty()
    };
    let borders: Vec<usize> = (1..60).filter(split).take(3).collect();
    assert!(!borders.is_empty(), "some token ends within a character");
    for border in borders {
        let mut parts = begin("full", &sampling);
        let first = go_on(&mut parts, &prompt, &options(border, &[]));
        let mut parts = loaded(&saved(parts), &sampling);
        let second = go_on(&mut parts, &[], &options(60 - border, &[]));
        assert_eq!(first.0 + &second.0, shown);
    }
}
