//! Sequences that cannot run, or whose numbers leave the finite ones: each fails alone, with an error that says where.

mod common;

use common::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use sketchkv_kernels::half::f16;
use sketchkv_model::{LoadOptions, Logits, Model, ModelError, ModelFile, Sequence, WeightFormat, Workspace};
use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use tempfile::TempDir;

const CHUNK: usize = 16;

/// A checkpoint in f32 with values that are too large to compute with.
struct Spoiled {
    folder: TempDir,
}

impl Spoiled {
    fn load(&self, weights: WeightFormat) -> Model {
        let options = LoadOptions { threads: 2, chunk: CHUNK, weights, ..LoadOptions::default() };
        ModelFile::open(self.folder.path()).unwrap().with_name("spoiled").load(&options).unwrap()
    }
}

/// Values of a tensor, and what they become.
type Edit<'a> = (&'a str, Range<usize>, f32);

/// The golden GPT-2, its output untied, with these edits.
fn spoiled(edits: &[Edit<'_>]) -> Spoiled {
    let folder = TempDir::new().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(golden("gpt2").join(file), folder.path().join(file)).unwrap();
    }
    let config = fs::read_to_string(golden("gpt2/config.json")).unwrap();
    let tied = "\"tie_word_embeddings\": true";
    assert!(config.contains(tied));
    fs::write(folder.path().join("config.json"), config.replace(tied, &tied.replace("true", "false")))
        .unwrap();

    let bytes = fs::read(golden("gpt2/model.safetensors")).unwrap();
    let halves = SafeTensors::deserialize(&bytes).unwrap();
    let mut floats: HashMap<String, (Vec<usize>, Vec<f32>)> = HashMap::new();
    for (name, view) in halves.tensors() {
        assert_eq!(view.dtype(), Dtype::F16);
        let half = |b: &[u8; 2]| f16::from_le_bytes(*b).to_f32();
        floats.insert(name, (view.shape().to_vec(), view.data().as_chunks().0.iter().map(half).collect()));
    }
    floats.insert("lm_head.weight".into(), floats["transformer.wte.weight"].clone());
    for (tensor, values, with) in edits {
        floats.get_mut(*tensor).unwrap().1[values.clone()].fill(*with);
    }
    let encoded: Vec<(String, Vec<usize>, Vec<u8>)> = floats
        .into_iter()
        .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let views = encoded
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    fs::write(folder.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    Spoiled { folder }
}

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
