//! Where pulled models lie: one folder each, with a manifest that says what it holds and where it came from.

use super::{CatalogError, checksum::sha256};
use serde::{Deserialize, Serialize};
use std::{
    env, fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// The folder where the environment names none.
static USUAL: OnceLock<PathBuf> = OnceLock::new();

/// The manifest's file name in a model's folder. It is written last: where it is, the model is whole.
const MANIFEST: &str = "sketchkv.json";

/// The folder of all pulled models.
pub struct ModelsFolder {
    root: PathBuf,
}

/// What a model's folder holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The name to use with `--model`.
    pub name: String,
    /// Where it came from.
    pub source: String,
    /// The branch or tag it was pulled from, if any.
    pub revision: Option<String>,
    /// Its files.
    pub files: Vec<ManifestFile>,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its name in the folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its content, in hexadecimal.
    pub sha256: String,
}

impl ModelsFolder {
    /// The folder at `path`, which need not be there.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        ModelsFolder { root: path.into() }
    }

    /// Makes `root` the folder where `$SKETCHKV_MODELS` names none; the first call counts.
    pub fn set_usual(root: PathBuf) {
        let _ = USUAL.set(root);
    }

    /// `$SKETCHKV_MODELS`, else the [usual](ModelsFolder::set_usual) folder, else `$XDG_DATA_HOME/sketchkv/models`, else
    /// `~/.local/share/sketchkv/models`.
    ///
    /// # Errors
    /// When none of these is set.
    pub fn from_environment() -> Result<Self, CatalogError> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = set("SKETCHKV_MODELS")
            .or_else(|| USUAL.get().cloned())
            .or_else(|| set("XDG_DATA_HOME").map(|data| data.join("sketchkv/models")))
            .or_else(|| env::home_dir().map(|home| home.join(".local/share/sketchkv/models")))
            .ok_or(CatalogError::NoHome)?;
        Ok(ModelsFolder { root })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The folder of the model called `name`; the slash of a hub name becomes `--`.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name.replace(['/', ':', '@'], "--"))
    }

    /// The manifest of the model called `name`, `None` when it was not pulled to the end.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn manifest(&self, name: &str) -> Result<Option<Manifest>, CatalogError> {
        read_manifest(&self.folder(name))
    }

    /// Removes the pulled model called `name`; false when there is none.
    ///
    /// # Errors
    /// When its folder cannot be removed. The model counts as not pulled then.
    pub fn remove(&self, name: &str) -> Result<bool, CatalogError> {
        let folder = self.folder(name);
        if self.manifest(name)?.is_none() {
            return Ok(false);
        }
        // The manifest goes first: without it, what is left of a folder is no model.
        for step in [fs::remove_file(folder.join(MANIFEST)), fs::remove_dir_all(&folder)] {
            step.map_err(CatalogError::file("remove", &folder))?;
        }
        Ok(true)
    }

    /// The manifests of all pulled models, by name.
    ///
    /// # Errors
    /// When the folder cannot be listed, or a manifest is damaged.
    pub fn manifests(&self) -> Result<Vec<Manifest>, CatalogError> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(CatalogError::file("list", &self.root))?,
        };
        let mut manifests = Vec::new();
        for entry in entries {
            let folder = entry.map_err(CatalogError::file("list", &self.root))?.path();
            manifests.extend(read_manifest(&folder)?);
        }
        manifests.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(manifests)
    }
}

fn read_manifest(folder: &Path) -> Result<Option<Manifest>, CatalogError> {
    let path = folder.join(MANIFEST);
    match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| CatalogError::Folder {
            reason: format!("is damaged: remove it and pull the model again: {error}"),
            path,
        }),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(CatalogError::file("read", path)(error)),
    }
}

impl Manifest {
    /// Describes `files`, which lie in `folder`.
    pub(super) fn of(
        name: &str,
        source: String,
        revision: Option<String>,
        folder: &Path,
        files: &[String],
    ) -> Result<Self, CatalogError> {
        let describe = |file: &String| {
            let path = folder.join(file);
            let reading = || CatalogError::file("read", &path);
            let bytes = fs::metadata(&path).map_err(reading())?.len();
            Ok(ManifestFile { name: file.clone(), bytes, sha256: sha256(&path).map_err(reading())? })
        };
        let files = files.iter().map(describe).collect::<Result<_, _>>()?;
        Ok(Manifest { name: name.to_owned(), source, revision, files })
    }

    /// Writes the manifest into `folder`, whole or not at all.
    pub(super) fn write(&self, folder: &Path) -> Result<(), CatalogError> {
        let (path, part) = (folder.join(MANIFEST), folder.join(format!(".{MANIFEST}.part")));
        let text = serde_json::to_string_pretty(self).expect("a manifest is plain data") + "\n";
        fs::write(&part, text).map_err(CatalogError::writing(&part, None))?;
        fs::rename(&part, &path).map_err(CatalogError::file("finish", &path))
    }

    /// Whether every file lies in `folder` with the content it had when it was pulled.
    pub(super) fn holds(&self, folder: &Path) -> bool {
        self.files.iter().all(|file| {
            let path = folder.join(&file.name);
            fs::metadata(&path).is_ok_and(|metadata| metadata.len() == file.bytes)
                && sha256(&path).is_ok_and(|found| found == file.sha256)
        })
    }

    /// The sum of its files' sizes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// What to load, in the model's `folder`: its GGUF file, or the folder itself.
    pub fn load_path(&self, folder: &Path) -> PathBuf {
        let gguf = self.files.iter().find(|file| file.name.to_ascii_lowercase().ends_with(".gguf"));
        gguf.map_or_else(|| folder.to_owned(), |file| folder.join(&file.name))
    }
}
