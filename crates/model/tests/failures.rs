//! Sequences that cannot run, or whose numbers leave the finite ones: each fails alone, with an error that says where.

mod common;

use common::spoiled::*;
use common::*;
use sketchkv_model::{LoadOptions, Logits, Model, ModelError, Sequence, WeightFormat, Workspace};

const CHUNK: usize = 16;

fn tokens(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 37 + 11) % 500).collect()
}

/// What a sequence of 20 tokens fails with.
fn error_of(model: &Model) -> (ModelError, usize) {
    let mut cache = cache(model, "full+q8");
    let error = run(model, &mut cache, &tokens(20), Logits::None).err();
    let error = error.or_else(|| run(model, &mut cache, &tokens(1), Logits::Last).err());
    (error.expect("it holds what is no number"), cache.position())
}

#[test]
fn numbers_that_are_none_name_the_layer_where_they_began() {
    for (tensor, expected, weights) in [
        ("transformer.h.1.ln_1.weight", Some(1), WeightFormat::F32),
        ("transformer.h.1.ln_1.weight", Some(1), WeightFormat::Q8),
        ("transformer.h.1.ln_2.weight", Some(1), WeightFormat::Q8),
        ("transformer.h.0.mlp.c_proj.weight", Some(0), WeightFormat::F32),
        ("transformer.ln_f.weight", None, WeightFormat::F32),
    ] {
        let length = if tensor.contains("c_proj") { 160 * 64 } else { 64 };
        let model = spoiled(&[(tensor, 0..length, 3e38)]).load(weights);
        let (error, position) = error_of(&model);
        let ModelError::NotFinite { layer, position: at, ref cache, ref model, .. } = error else {
            panic!("{tensor}: {error}")
        };
        assert_eq!(layer, expected, "{tensor} {weights:?}: {error}");
        assert_eq!((model.as_str(), cache.as_str()), ("spoiled", "full+q8"));
        // Logits are looked at where they are wanted, layers always.
        assert_eq!((at, position), if layer.is_some() { (0, 0) } else { (20, 20) }, "{tensor}: {error}");
        let message = error.to_string();
        assert!(message.starts_with("spoiled with the cache `full+q8`: "), "{message}");
        assert!(message.contains(&format!("at position {at}: ")), "{message}");
    }
}

/// A token and a position whose embeddings are both huge: where they meet the model cannot go on. That is in the third
/// pass of one sequence.
#[test]
fn one_sequence_fails_alone_and_keeps_its_earlier_passes() {
    let (token, position) = (509, 40);
    let row = |row: usize| row * 64..(row + 1) * 64;
    let edits =
        [("transformer.wte.weight", row(token), 3e38), ("transformer.wpe.weight", row(position), 3e38)];
    let model = spoiled(&edits).load(WeightFormat::F32);
    let mut texts = [tokens(30), tokens(50), tokens(38)];
    texts[1][position] = token as u32;
    for (spec, want) in [("h2o+f32@25%", Logits::Last), ("full+q8", Logits::All)] {
        let mut caches = [(); 3].map(|()| cache(&model, spec));
        let alone: Vec<_> =
            texts.iter().map(|text| run(&model, &mut cache(&model, spec), text, want)).collect();
        let mut batch: Vec<Sequence<'_>> =
            texts.iter().zip(&mut caches).map(|(tokens, cache)| Sequence { tokens, cache }).collect();
        let mut workspace = Workspace::new();
        let outputs = model.forward(&mut batch, &mut workspace, want);
        for sequence in [0, 2] {
            assert!(outputs.of(sequence).unwrap() == alone[sequence].as_ref().unwrap(), "{spec} {sequence}");
        }
        let error = outputs.of(1).unwrap_err();
        assert!(matches!(error, ModelError::NotFinite { layer: Some(0), position: 40, .. }), "{error}");
        assert_eq!(outputs.all().unwrap_err().to_string(), error.to_string());
        assert_eq!(alone[1].as_ref().unwrap_err().to_string(), error.to_string());
        assert_eq!(caches.each_ref().map(|cache| cache.position()), [30, 2 * CHUNK, 38]);

        // The failed sequence goes on from there as one that never tried.
        let mut other = cache(&model, spec);
        run(&model, &mut other, &texts[1][..2 * CHUNK], Logits::None).unwrap();
        let going_on = &texts[1][2 * CHUNK..2 * CHUNK + 4];
        let [again, expected] =
            [&mut caches[1], &mut other].map(|cache| run(&model, cache, going_on, Logits::All).unwrap());
        assert!(again == expected, "{spec}");
    }
}

#[test]
fn a_sequence_that_cannot_run_leaves_the_others_alone() {
    let options = LoadOptions { threads: 1, weights: WeightFormat::F32, ..LoadOptions::default() };
    let model = load_with(&golden("llama3"), &options);
    let other = load_with(&golden("llama"), &options);
    let good = tokens(9);
    let expected = run(&model, &mut exact_cache(&model), &good, Logits::Last).unwrap();
    let long = tokens(300);
    let bad: [(&[u32], &Model, &str); 4] = [
        (&[], &model, "no tokens"),
        (&[1, 640], &model, "token 640 is none of the model's 640"),
        (&[1], &other, "another shape"),
        (&long, &model, "300 tokens are more than the model's context of 256"),
    ];
    for (tokens, of, message) in bad {
        let mut caches = [exact_cache(&model), exact_cache(of), exact_cache(&model)];
        let [first, second, third] = &mut caches;
        let mut batch = [
            Sequence { tokens: &good, cache: first },
            Sequence { tokens, cache: second },
            Sequence { tokens: &good, cache: third },
        ];
        let mut workspace = Workspace::new();
        let outputs = model.forward(&mut batch, &mut workspace, Logits::Last);
        let error = outputs.of(1).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert!(outputs.of(0).unwrap() == expected && outputs.of(2).unwrap() == expected);
        assert_eq!(caches.each_ref().map(|cache| cache.position()), [9, 0, 9]);
    }
}
