//! The embedded model, and what the tests of models share.

#[path = "../../../model/tests/common/mod.rs"]
mod model;

#[allow(unused_imports, reason = "each test file uses some of it")]
pub(crate) use model::spoiled::{Spoiled, spoiled};
use sketchkv_model::{Model, WeightFormat};

pub(crate) fn tiny_gpt2(weights: WeightFormat) -> Model {
    model::load(&model::tiny_gpt2(), weights)
}
