//! What is known of models' attention beforehand: scorers in the program, and those beside a model.

use sketchkv_cache::Scorer;
use sketchkv_model::{Model, ModelError};
use std::fs;
use std::path::{Path, PathBuf};

/// Scorers in the program.
const SHIPPED: &[&[u8]] = &[];

/// Where a model's own scorer lies: beside its file, or in its folder.
pub fn path_beside(model: &Path) -> PathBuf {
    if model.is_dir() { model.join("model.scorer") } else { model.with_extension("scorer") }
}

/// Gives a model the scorer beside it or, where there is none, the one in the program that was made for it.
///
/// # Errors
/// When the one beside it cannot be read, is damaged or is another model's.
pub(crate) fn attach(model: &mut Model, beside: Option<&Path>) -> Result<(), ModelError> {
    let scorer = match beside.map(path_beside) {
        Some(path) if path.exists() => {
            let failed = |reason: String| {
                let reason = format!("{reason}: make it again with `sketchkv train-scorer`, or delete it");
                ModelError::Format { path: path.clone(), reason }
            };
            let bytes = fs::read(&path).map_err(|error| failed(error.to_string()))?;
            Some(read(model, &bytes).map_err(failed)?)
        }
        _ => SHIPPED.iter().find_map(|bytes| read(model, bytes).ok()),
    };
    if let Some(scorer) = scorer {
        model.set_scorer(scorer);
    }
    Ok(())
}

fn read(model: &Model, bytes: &[u8]) -> Result<Scorer, String> {
    let scorer = Scorer::from_bytes(&model.cache_shape(), bytes)?;
    if scorer.model() == model.fingerprint() { Ok(scorer) } else { Err("it is another model's".to_owned()) }
}
