//! The scorers in the program: what was learned of the attention of each model of the catalogue.

use crate::command::{self, optimised, sketchkv};
use crate::presets::{MODELS, TEXTS};
use anyhow::Result;

/// The model that is in the program itself.
const EMBEDDED: &str = "tiny-gpt2";

/// Trains them anew, on all of each text but what measurements are made on.
pub(crate) fn run() -> Result<()> {
    for model in MODELS {
        command::run(&mut sketchkv(["pull", model, "--quiet"]))?;
    }
    [EMBEDDED].iter().chain(MODELS).try_for_each(|model| train(model))
}

fn train(model: &str) -> Result<()> {
    let mut train = optimised(["train-scorer", "--model", model]);
    train.args(["-o", &format!("crates/engine/scorers/{model}.scorer")]);
    train.args(TEXTS.iter().flat_map(|text| ["--text", text]));
    command::run(&mut train)
}
