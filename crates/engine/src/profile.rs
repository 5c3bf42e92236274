//! What was measured of a model beforehand: profiles in the program, and those beside a model.

use crate::losses::Losses;
use sketchkv_cache::{CacheShape, Scorer};
use sketchkv_model::{Model, ModelError};
use std::fs;
use std::path::{Path, PathBuf};

/// What was measured of a model beforehand.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Which of its tokens draw attention.
    pub scorer: Scorer,
    /// What the automatic cache costs it, where that was measured.
    pub losses: Option<Losses>,
}

/// Profiles in the program, by the catalogue's name of the model; `cargo xtask profiles` made them.
const SHIPPED: &[(&str, &[u8])] = &[
    ("tiny-gpt2", include_bytes!("../profiles/tiny-gpt2.profile")),
    ("smollm2-135m", include_bytes!("../profiles/smollm2-135m.profile")),
    ("gemma3-270m", include_bytes!("../profiles/gemma3-270m.profile")),
    ("qwen2.5-coder-0.5b", include_bytes!("../profiles/qwen2.5-coder-0.5b.profile")),
    ("qwen2.5-coder-1.5b", include_bytes!("../profiles/qwen2.5-coder-1.5b.profile")),
];

const MAGIC: &[u8; 8] = b"SKVPROF1";
/// Of the magic and the length of the scorer that follows it.
const HEADER: usize = 16;

impl Profile {
    /// Where a model's own profile lies: beside its file, or in its folder.
    pub fn path_beside(model: &Path) -> PathBuf {
        if model.is_dir() { model.join("model.profile") } else { model.with_extension("profile") }
    }

    /// The profile beside a model or, where there is none, the one in the program that was made for it.
    ///
    /// # Errors
    /// When the one beside it cannot be read, is damaged or is another model's.
    pub fn find(model: &Model, beside: Option<&Path>) -> Result<Option<Profile>, ModelError> {
        match beside.map(Profile::path_beside) {
            Some(path) if path.exists() => {
                let failed = |reason: String| {
                    let reason = format!("{reason}: make it again with `sketchkv profile`, or delete it");
                    ModelError::Format { path: path.clone(), reason }
                };
                let bytes = fs::read(&path).map_err(|error| failed(error.to_string()))?;
                Profile::from_bytes(model, &bytes).map(Some).map_err(failed)
            }
            _ => Ok(SHIPPED.iter().find_map(|(_, bytes)| Profile::from_bytes(model, bytes).ok())),
        }
    }

    /// The profile in the program of this name, or the one in this file, for a model that runs elsewhere: that it has these
    /// layers is all that can be checked of it.
    ///
    /// # Errors
    /// When there is neither, or it is damaged or of another shape.
    pub fn open(name: &str, shape: &CacheShape) -> Result<Profile, String> {
        let read;
        let bytes = match SHIPPED.iter().find(|(known, _)| *known == name) {
            Some((_, bytes)) => bytes,
            None => {
                let names: Vec<_> = SHIPPED.iter().map(|(name, _)| *name).collect();
                read = fs::read(name).map_err(|error| {
                    format!(
                        "the profile {name} cannot be read ({error}), and those in the package are {}",
                        names.join(", ")
                    )
                })?;
                &read[..]
            }
        };
        Profile::of_shape(shape, bytes).map_err(|reason| format!("the profile {name} does not fit: {reason}"))
    }

    /// As bytes, to be kept in a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let scorer = self.scorer.to_bytes();
        let length = (scorer.len() as u64).to_le_bytes();
        let losses = self.losses.as_ref().map(Losses::to_json).unwrap_or_default();
        [&MAGIC[..], &length, &scorer, losses.as_bytes()].concat()
    }

    /// Reads what [`Profile::to_bytes`] wrote, for this model.
    ///
    /// # Errors
    /// When the bytes are not a profile's, or it is another model's.
    pub fn from_bytes(model: &Model, bytes: &[u8]) -> Result<Profile, String> {
        let profile = Profile::of_shape(&model.cache_shape(), bytes)?;
        if profile.scorer.model() != model.fingerprint() {
            return Err("it is another model's".to_owned());
        }
        Ok(profile)
    }

    fn of_shape(shape: &CacheShape, bytes: &[u8]) -> Result<Profile, String> {
        let rest = bytes.strip_prefix(MAGIC).ok_or("it is no profile")?;
        let (length, rest) =
            rest.split_first_chunk().ok_or_else(|| format!("it ends within its first {HEADER} bytes"))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (scorer, losses) = rest.split_at_checked(length).ok_or("it is only a part of one")?;
        let scorer = Scorer::from_bytes(shape, scorer)?;
        let losses = if losses.is_empty() { None } else { Some(Losses::from_json(losses)?) };
        Ok(Profile { scorer, losses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;
    use crate::losses::tests::example;
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
    fn each_in_the_program_is_of_another_model_and_says_what_caps_cost() {
        let scorer = HEADER + 8;
        let models = SHIPPED.iter().map(|(_, bytes)| bytes[scorer..scorer + 8].to_vec());
        assert_eq!(models.collect::<std::collections::BTreeSet<_>>().len(), SHIPPED.len());
        let model = Source::Embedded.load(&LoadOptions::default()).unwrap();
        assert!(Profile::find(&model, None).unwrap().unwrap().losses.is_some());
        for (_, bytes) in SHIPPED {
            let length = u64::from_le_bytes(bytes[MAGIC.len()..HEADER].try_into().unwrap()) as usize;
            Losses::from_json(&bytes[HEADER + length..]).unwrap();
        }
    }

    #[test]
    fn one_is_found_by_its_name_or_its_file_and_must_fit() {
        let shape = Source::Embedded.load(&LoadOptions::default()).unwrap().cache_shape();
        let named = Profile::open("tiny-gpt2", &shape).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("own.profile");
        fs::write(&file, named.to_bytes()).unwrap();
        let own = Profile::open(file.to_str().unwrap(), &shape).unwrap();
        assert_eq!((own.to_bytes(), own.losses), (named.to_bytes(), named.losses));
        assert!(
            Profile::open("smollm2-135m", &shape)
                .unwrap_err()
                .starts_with("the profile smollm2-135m does not fit: ")
        );
        assert!(Profile::open("smollm", &shape).unwrap_err().contains("tiny-gpt2, smollm2-135m, "));
    }

    #[test]
    fn what_is_read_is_what_was_written_and_damage_is_told() {
        let model = Source::Embedded.load(&LoadOptions::default()).unwrap();
        let scorer = Profile::find(&model, None).unwrap().unwrap().scorer;
        for losses in [None, Some(example())] {
            let profile = Profile { scorer: scorer.clone(), losses };
            let bytes = profile.to_bytes();
            let read = Profile::from_bytes(&model, &bytes).unwrap();
            assert_eq!((read.to_bytes(), read.losses), (bytes.clone(), profile.losses));
            for end in [0, 7, 12, HEADER, HEADER + 100] {
                assert!(Profile::from_bytes(&model, &bytes[..end]).is_err(), "{end}");
            }
            assert!(Profile::from_bytes(&model, &[&bytes[..], b"{"].concat()).is_err());
        }
    }
}
