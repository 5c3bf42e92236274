//! A document that is read once, whole, and kept under a cap.

mod common;

use common::*;
use sketchkv_cache::{Cache, Spec};
use sketchkv_engine::{EngineError, read_document};
use sketchkv_model::{LoadOptions, Logits, Model, Sequence, Workspace};
use std::sync::LazyLock;

static MODEL: LazyLock<Model> =
    LazyLock::new(|| load_with(&tiny_gpt2(), &LoadOptions { threads: 2, ..LoadOptions::default() }));

/// The beginning of a novel, with nothing in it that comes twice.
fn document(tokens: usize) -> Vec<u32> {
    let text = include_str!("../../../data/persuasion.txt");
    let mut all = MODEL.tokenizer().encode_prompt(&text[..8000]).unwrap();
    all.truncate(tokens);
    all
}

fn read(spec: &str, tokens: &[u32]) -> Result<Option<Cache>, EngineError> {
    let spec: Spec = spec.parse().unwrap();
    read_document(&MODEL, &spec, 0, tokens, &mut Workspace::new(), &mut |_, _| true)
}

fn logits(cache: &mut Cache, token: u32) -> Vec<f32> {
    let mut workspace = Workspace::new();
    let mut batch = [Sequence { tokens: &[token], cache }];
    MODEL.forward(&mut batch, &mut workspace, Logits::Last).all().unwrap().to_vec()
}

#[test]
fn without_a_cap_it_is_as_any_text() {
    let tokens = document(300);
    for spec in ["full", "kvzip"] {
        let mut cache = Cache::new(MODEL.cache_shape(), &spec.parse().unwrap(), 0).unwrap();
        let mut batch = [Sequence { tokens: &tokens, cache: &mut cache }];
        MODEL.forward(&mut batch, &mut Workspace::new(), Logits::None).all().unwrap();
        let mut whole = read(spec, &tokens).unwrap().unwrap();
        assert_eq!(logits(&mut whole, 5), logits(&mut cache, 5), "{spec}");
    }
}

#[test]
fn the_cap_holds_when_it_is_read_and_repeating_it_changes_who_stays() {
    let tokens = document(600);
    let cap = MODEL.cache_shape().f16_bytes(tokens.len()) / 4;
    let spec = format!("kvzip+q8@{cap}B");
    let cache = read(&spec, &tokens).unwrap().unwrap();
    assert_eq!(
        (cache.position(), cache.spec().to_string()),
        (tokens.len(), spec.parse::<Spec>().unwrap().to_string())
    );
    assert!(cache.has_evicted() && cache.ledger().total() <= cap, "{} of {cap}", cache.ledger().total());
    // Streamed under the same cap, other tokens stay.
    let mut streamed = Cache::new(MODEL.cache_shape(), &spec.parse().unwrap(), 0).unwrap();
    let mut batch = [Sequence { tokens: &tokens, cache: &mut streamed }];
    MODEL.forward(&mut batch, &mut Workspace::new(), Logits::None).all().unwrap();
    let differ = (0..4).filter(|&head| cache.positions(1, head) != streamed.positions(1, head)).count();
    assert!(differ > 0);
}

#[test]
fn it_can_be_stopped_and_a_long_one_is_refused_before_anything_runs() {
    let tokens = document(600);
    let spec: Spec = "kvzip@25%".parse().unwrap();
    let mut heard = vec![];
    let stopped = read_document(&MODEL, &spec, 0, &tokens, &mut Workspace::new(), &mut |done, total| {
        heard.push((done, total));
        done < 600
    });
    assert!(stopped.unwrap().is_none());
    assert!(
        heard.len() >= 2 && heard.is_sorted() && heard.iter().all(|(done, total)| done <= total),
        "{heard:?}"
    );
    let long = document(1000);
    match read("kvzip@25%", &long) {
        Err(EngineError::LongDocument { tokens, limit, .. }) => assert_eq!((tokens, limit), (1000, 1024)),
        other => panic!("{:?}", other.err().map(|error| error.to_string())),
    }
}
