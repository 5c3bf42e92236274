//! What is known of models' attention beforehand: scorers in the program, and those beside a model.

use sketchkv_cache::Scorer;
use sketchkv_model::{Model, ModelError};
use std::fs;
use std::path::{Path, PathBuf};

/// Scorers in the program; `cargo xtask scorers` made them.
const SHIPPED: &[&[u8]] = &[
    include_bytes!("../scorers/tiny-gpt2.scorer"),
    include_bytes!("../scorers/smollm2-135m.scorer"),
    include_bytes!("../scorers/gemma3-270m.scorer"),
    include_bytes!("../scorers/qwen2.5-coder-0.5b.scorer"),
    include_bytes!("../scorers/qwen2.5-coder-1.5b.scorer"),
];

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;
    use sketchkv_kernels::WeightFormat;
    use sketchkv_model::LoadOptions;

    #[test]
    fn a_model_finds_its_own_however_its_weights_are_held() {
        for weights in [WeightFormat::Native, WeightFormat::F32, WeightFormat::Q8] {
            let model = Source::Embedded.load(&LoadOptions { weights, ..LoadOptions::default() }).unwrap();
            let scorer = model.cache_shape().scorer.expect("the one in the program");
            assert_eq!(scorer.model(), model.fingerprint());
        }
    }

    #[test]
    fn each_in_the_program_is_of_another_model() {
        let models = SHIPPED.iter().map(|bytes| bytes[8..16].to_vec());
        assert_eq!(models.collect::<std::collections::BTreeSet<_>>().len(), SHIPPED.len());
    }
}
