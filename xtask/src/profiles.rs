//! The profiles in the program: what was measured of each model of the catalogue.

use crate::command::{self, optimised, sketchkv};
use crate::presets::{MODELS, TEXTS};
use anyhow::Result;

/// The model that is in the program itself.
const EMBEDDED: &str = "tiny-gpt2";

/// Makes them anew: scorers from all of each text but what losses are measured on.
pub(crate) fn run() -> Result<()> {
    for model in MODELS {
        command::run(&mut sketchkv(["pull", model, "--quiet"])?)?;
    }
    [EMBEDDED].iter().chain(MODELS).try_for_each(|model| profile(model))
}

fn profile(model: &str) -> Result<()> {
    let mut profile = optimised(["profile", "--model", model]);
    profile.args(["-o", &format!("crates/engine/profiles/{model}.profile")]);
    profile.args(TEXTS.iter().flat_map(|text| ["--text", text]));
    command::run(&mut profile)
}
