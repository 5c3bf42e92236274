//! The real model.

use super::sketchkv;
use std::{env, path::PathBuf};

/// The GGUF file of SmolLM2; `None`, having said so, where it is not to be had and need not be.
///
/// # Panics
/// In continuous integration, where a missing model is a failure.
pub(crate) fn path() -> Option<PathBuf> {
    let mut command = sketchkv();
    if let Some(models) = env::var_os("SKETCHKV_MODELS") {
        command.env("SKETCHKV_MODELS", models);
    }
    if let Some(data) = env::var_os("XDG_DATA_HOME") {
        command.env("XDG_DATA_HOME", data);
    }
    let pulled = super::finish(command.args(["pull", "smollm2-135m"]));
    if pulled.code == 0 {
        return Some(PathBuf::from(pulled.stdout.trim()));
    }
    let in_ci = env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    assert!(!in_ci, "smollm2-135m is missing: {}", pulled.stderr);
    eprintln!("skipped: smollm2-135m is missing: {}", pulled.stderr);
    None
}
