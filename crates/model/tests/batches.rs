//! Sequences that share a batch: each gets what it gets alone, bit for bit.

mod common;

use common::*;
use sketchkv_cache::Cache;
use sketchkv_model::{LoadOptions, Logits, Model, Sequence, WeightFormat, Workspace};

const CHUNK: usize = 64;
/// Tokens of each sequence that run one at a time.
const STEPS: usize = 6;

/// Logits of a sequence, call by call.
type Calls = Vec<Vec<f32>>;

/// The calls that a sequence makes on its own: its prompt, then its last tokens one by one.
fn calls(tokens: &[u32]) -> Vec<&[u32]> {
    let (prompt, steps) = tokens.split_at(tokens.len() - STEPS);
    std::iter::once(prompt).chain(steps.chunks(1)).collect()
}

/// Runs sequences side by side: `order` says who stands where in a batch, sequence i makes its first call in round
/// `joins[i]`.
fn together(model: &Model, spec: &str, texts: &[Vec<u32>], order: &[usize], joins: &[usize]) -> Vec<Calls> {
    let mut caches: Vec<Cache> = texts.iter().map(|_| cache(model, spec)).collect();
    let mut found: Vec<Calls> = vec![vec![]; texts.len()];
    let mut workspace = Workspace::new();
    for round in 0..joins.iter().max().unwrap() + STEPS + 1 {
        let mut members: Vec<(usize, Sequence<'_>)> = caches
            .iter_mut()
            .enumerate()
            .filter_map(|(i, cache)| {
                let call = round.checked_sub(joins[i])?;
                Some((i, Sequence { tokens: calls(&texts[i]).get(call)?, cache }))
            })
            .collect();
        members.sort_by_key(|(i, _)| order.iter().position(|o| o == i));
        let (indices, mut batch): (Vec<usize>, Vec<Sequence<'_>>) = members.into_iter().unzip();
        let outputs = model.forward(&mut batch, &mut workspace, Logits::Last);
        for (place, i) in indices.into_iter().enumerate() {
            found[i].push(outputs.of(place).unwrap().to_vec());
        }
    }
    found
}

fn check_neighbours(model: &Model, specs: &[&str], lengths: &[usize]) {
    let prose = prose(model, lengths.iter().sum());
    let mut at = 0;
    let mut next = |length: &usize| {
        at += length;
        prose[at - length..at].to_vec()
    };
    let texts: Vec<Vec<u32>> = lengths.iter().map(&mut next).collect();
    let at_once = vec![0; texts.len()];
    let in_order: Vec<usize> = (0..texts.len()).collect();
    for spec in specs {
        let alone: Vec<Calls> = texts
            .iter()
            .flat_map(|text| together(model, spec, std::slice::from_ref(text), &[0], &[0]))
            .collect();
        assert!(alone.iter().all(|calls| calls.len() == STEPS + 1));
        // A prompt fed a chunk a call is the prompt fed at once.
        for (text, alone) in texts.iter().zip(&alone) {
            let mut cache = cache(model, spec);
            let prompt = calls(text)[0];
            let fed =
                prompt.chunks(CHUNK).map(|tokens| run(model, &mut cache, tokens, Logits::Last).unwrap());
            assert!(fed.last().unwrap() == alone[0], "`{spec}` by chunks");
        }
        assert!(together(model, spec, &texts, &in_order, &at_once) == alone, "`{spec}` together");
        for order in [[3, 2, 1, 0], [1, 3, 0, 2]] {
            assert!(together(model, spec, &texts, &order, &at_once) == alone, "`{spec}` as {order:?}");
        }
        for joins in [[0, 1, 2, 3], [4, 0, 2, 0], [1, 1, 0, 5]] {
            assert!(together(model, spec, &texts, &in_order, &joins) == alone, "`{spec}` joined {joins:?}");
        }
    }
}

/// Under a cap the cut of a prompt decides what is kept: it must be the sequence's own.
#[test]
fn neighbours_change_no_bit() {
    let options = LoadOptions { threads: 2, chunk: CHUNK, ..LoadOptions::default() };
    let specs = ["h2o@25%", "expected+q4h@25%", "full+q8"];
    check_neighbours(&load_with(&tiny_gpt2(), &options), &specs, &[230, 45, 150, 71]);
    let exact = LoadOptions { weights: WeightFormat::F32, ..options.clone() };
    check_neighbours(&load_with(&tiny_gpt2(), &exact), &["h2o@25%"], &[230, 45, 150, 71]);
    if let Some(path) = smollm2() {
        check_neighbours(&load_with(&path, &options), &["h2o+q8@25%"], &[100, 20, 70, 33]);
    }
}

/// The rows of all sequences, in the order of the batch, whatever passes they came from.
#[test]
fn all_logits_lie_in_order() {
    let options = LoadOptions { threads: 1, chunk: 8, weights: WeightFormat::F32, ..LoadOptions::default() };
    let model = load_with(&golden("gpt2"), &options);
    let texts: Vec<Vec<u32>> =
        [5, 19, 1, 8].iter().map(|n| (0..*n).map(|i| (i * 31 + n) % 500).collect()).collect();
    let alone: Vec<Vec<f32>> = texts.iter().map(|text| all_logits(&model, text)).collect();
    let mut caches: Vec<Cache> = texts.iter().map(|_| exact_cache(&model)).collect();
    let mut batch: Vec<Sequence<'_>> =
        texts.iter().zip(&mut caches).map(|(tokens, cache)| Sequence { tokens, cache }).collect();
    let mut workspace = Workspace::new();
    let outputs = model.forward(&mut batch, &mut workspace, Logits::All);
    for (i, alone) in alone.iter().enumerate() {
        assert!(outputs.of(i).unwrap() == alone, "sequence {i}");
    }
    assert!(outputs.all().unwrap() == alone.concat());
    assert_eq!(workspace.outputs().of(2).unwrap().len(), model.config().vocabulary);
}
