//! Checkpoints whose numbers leave what can be computed with.

use super::golden;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sketchkv_kernels::half::f16;
use sketchkv_model::{LoadOptions, Model, ModelFile, WeightFormat};
use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use tempfile::TempDir;

/// A checkpoint in f32 with values that are too large to compute with.
pub(crate) struct Spoiled {
    folder: TempDir,
}

impl Spoiled {
    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// In chunks of 16 tokens.
    pub(crate) fn load(&self, weights: WeightFormat) -> Model {
        let options = LoadOptions { threads: 2, chunk: 16, weights, ..LoadOptions::default() };
        ModelFile::open(self.folder.path()).unwrap().with_name("spoiled").load(&options).unwrap()
    }
}

/// Values of a tensor, and what they become.
pub(crate) type Edit<'a> = (&'a str, Range<usize>, f32);

/// The golden GPT-2, its output untied, with these edits.
pub(crate) fn spoiled(edits: &[Edit<'_>]) -> Spoiled {
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
