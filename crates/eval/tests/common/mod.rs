//! The embedded model, from the repository.

use sketchkv_model::{LoadOptions, Model, WeightFormat};
use std::path::Path;

pub(crate) fn tiny_gpt2(weights: WeightFormat) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-gpt2");
    Model::load(&folder, &LoadOptions { weights, threads: 2, ..LoadOptions::default() }).unwrap()
}
