//! From what a user calls a model to the model, loaded.

use crate::Profile;
use crate::catalog::{self, CatalogError, ModelsFolder, Reference};
use sketchkv_model::{EmbeddedFolder, LoadOptions, Model, ModelError, ModelFile};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

/// The model inside the program itself.
pub const EMBEDDED: &str = "tiny-gpt2";
/// One line about it.
pub const EMBEDDED_ABOUT: &str = "a small trained GPT-2, 4.5M parameters, context 1,024";

const EMBEDDED_FOLDER: EmbeddedFolder = EmbeddedFolder {
    name: EMBEDDED,
    files: &[
        ("config.json", include_bytes!("../../../models/tiny-gpt2/config.json")),
        ("generation_config.json", include_bytes!("../../../models/tiny-gpt2/generation_config.json")),
        ("tokenizer.json", include_bytes!("../../../models/tiny-gpt2/tokenizer.json")),
        ("tokenizer_config.json", include_bytes!("../../../models/tiny-gpt2/tokenizer_config.json")),
        ("model.safetensors", include_bytes!("../../../models/tiny-gpt2/model.safetensors")),
    ],
};

/// A model that is there to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The one in the program.
    Embedded,
    /// A pulled model: what to load, and the name it was pulled by.
    Pulled(PathBuf, String),
    /// A GGUF file or a Hugging Face folder.
    Path(PathBuf),
}

impl Source {
    /// Finds what `name` names: the embedded model, a pulled model, a file or a folder. A bare name is looked for in
    /// the catalog first; `./name` is always a path. A path may be of any bytes.
    ///
    /// # Errors
    /// When there is none; the message says how to get one.
    pub fn find(name: impl AsRef<OsStr>) -> Result<Source, CatalogError> {
        let path = Path::new(name.as_ref());
        let text = path.to_string_lossy();
        if text == EMBEDDED {
            return Ok(Source::Embedded);
        }
        let reference = path.to_str().and_then(Reference::parse);
        let in_catalog = matches!(reference, Some(Reference::Entry(_)));
        if path.exists() && !in_catalog {
            return in_folder(path).map(Source::Path);
        }
        let Some(reference) = reference else {
            let known = format!("{EMBEDDED}, {}", catalog::names());
            return Err(CatalogError::NotFound { text: text.into_owned(), known });
        };
        let (models, name) = (ModelsFolder::from_environment()?, reference.name());
        let folder = models.folder(&name);
        match models.manifest(&name)? {
            Some(manifest) => Ok(Source::Pulled(manifest.load_path(&folder), name)),
            None => match in_folder(&folder) {
                // Put there by hand.
                Ok(path) if path.exists() => Ok(Source::Pulled(path, name)),
                _ => Err(CatalogError::NotHere { name }),
            },
        }
    }

    /// Reads everything but the weights.
    ///
    /// # Errors
    /// As [`ModelFile::open`].
    pub fn open(&self) -> Result<ModelFile, ModelError> {
        Ok(match self {
            Source::Embedded => ModelFile::embedded(EMBEDDED_FOLDER)?,
            Source::Pulled(path, name) => ModelFile::open(path)?.with_name(name),
            Source::Path(path) => ModelFile::open(path)?,
        })
    }

    /// Loads the model, ready to run.
    ///
    /// # Errors
    /// As [`ModelFile::open`] and [`ModelFile::load`], and when the profile beside it is damaged or another model's.
    pub fn load(&self, options: &LoadOptions) -> Result<Model, ModelError> {
        let mut model = self.open()?.load(options)?;
        if let Some(profile) = self.profile(&model)? {
            model.set_scorer(profile.scorer);
        }
        Ok(model)
    }

    /// What was measured beforehand of `model`, which this is.
    ///
    /// # Errors
    /// When the profile beside it is damaged or another model's.
    pub fn profile(&self, model: &Model) -> Result<Option<Profile>, ModelError> {
        Profile::find(model, self.path())
    }

    /// Where it lies, unless it is in the program.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Source::Embedded => None,
            Source::Pulled(path, _) | Source::Path(path) => Some(path),
        }
    }
}

/// The file to load for `path`: a file itself, a Hugging Face folder itself, of any other folder its one GGUF file or the
/// first part of its one split model.
fn in_folder(path: &Path) -> Result<PathBuf, CatalogError> {
    if !path.is_dir() || path.join("config.json").exists() {
        return Ok(path.to_owned());
    }
    let entries = fs::read_dir(path).map_err(|error| CatalogError::File {
        what: "list",
        path: path.to_owned(),
        error,
    })?;
    let mut gguf: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf")))
        .collect();
    gguf.sort();
    let split =
        |path: &PathBuf| catalog::split_model(path.file_name()?.to_str()?).map(|(stem, _)| stem.to_owned());
    let reason = match &gguf[..] {
        [only] => return Ok(only.clone()),
        [first, rest @ ..]
            if split(first).is_some() && rest.iter().all(|part| split(part) == split(first)) =>
        {
            return Ok(first.clone());
        }
        [] => "holds neither config.json nor a GGUF file".to_owned(),
        _ => {
            let names: Vec<_> = gguf.iter().map(|path| path.display().to_string()).collect();
            format!("holds several GGUF files, name one: {}", names.join(", "))
        }
    };
    Err(CatalogError::Folder { path: path.to_owned(), reason })
}
