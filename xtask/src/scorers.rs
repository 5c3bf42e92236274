//! The scorers in the program: what was learned of the attention of each model of the catalogue.

use crate::command::{self, cargo, sketchkv};
use anyhow::Result;

/// Models with the scorer that is in the program; the first one is in the program itself.
const MODELS: &[&str] =
    &["tiny-gpt2", "smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"];

/// Trains them anew, on all of each text but what measurements are made on.
pub(crate) fn run() -> Result<()> {
    for model in MODELS {
        if *model != MODELS[0] {
            command::run(&mut sketchkv(["pull", model, "--quiet"]))?;
        }
        let mut train = cargo(["run", "--quiet", "--release", "--locked", "--package", "sketchkv", "--"]);
        train.args([
            "train-scorer",
            "--model",
            model,
            "-o",
            &format!("crates/engine/scorers/{model}.scorer"),
        ]);
        for text in ["persuasion", "jargon", "dialogue", "code"] {
            train.args(["--text", &format!("data/{text}.txt")]);
        }
        command::run(&mut train)?;
    }
    Ok(())
}
