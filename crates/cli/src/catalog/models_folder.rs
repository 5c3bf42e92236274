//! Where pulled models lie: one folder each, with a manifest that says what it holds and where it came from.

use super::{checksum::sha256, fetch::write_failure};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// The manifest's file name in a model's folder. It is written last: where it is, the model is whole.
const MANIFEST: &str = "sketchkv.json";

/// The folder of all pulled models.
pub(crate) struct ModelsFolder {
    root: PathBuf,
}

/// What a model's folder holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The name to use with `--model`.
    pub(crate) name: String,
    /// Where it came from.
    pub(crate) source: String,
    /// The branch or tag it was pulled from, if any.
    pub(crate) revision: Option<String>,
    /// Its files.
    pub(crate) files: Vec<ManifestFile>,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestFile {
    /// Its name in the folder.
    pub(crate) name: String,
    /// Its size.
    pub(crate) bytes: u64,
    /// The SHA-256 of its content, in hexadecimal.
    pub(crate) sha256: String,
}

impl ModelsFolder {
    /// `$SKETCHKV_MODELS`, else `$XDG_DATA_HOME/sketchkv/models`, else `~/.local/share/sketchkv/models`.
    ///
    /// # Errors
    /// When none of these is set.
    pub(crate) fn from_environment() -> Result<Self> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = set("SKETCHKV_MODELS")
            .or_else(|| set("XDG_DATA_HOME").map(|data| data.join("sketchkv/models")))
            .or_else(|| env::home_dir().map(|home| home.join(".local/share/sketchkv/models")))
            .context("there is no home folder for models: set SKETCHKV_MODELS to a folder")?;
        Ok(ModelsFolder { root })
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// The folder of the model called `name`; the slash of a hub name becomes `--`.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name.replace(['/', ':', '@'], "--"))
    }

    /// The manifest of the model called `name`, `None` when it was not pulled to the end.
    pub(crate) fn manifest(&self, name: &str) -> Result<Option<Manifest>> {
        read_manifest(&self.folder(name))
    }

    /// The manifests of all pulled models, by name.
    pub(crate) fn manifests(&self) -> Result<Vec<Manifest>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("cannot list {}", self.root.display()))?,
        };
        let mut manifests = Vec::new();
        for entry in entries {
            let folder = entry.with_context(|| format!("cannot list {}", self.root.display()))?.path();
            manifests.extend(read_manifest(&folder)?);
        }
        manifests.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(manifests)
    }
}

fn read_manifest(folder: &Path) -> Result<Option<Manifest>> {
    let path = folder.join(MANIFEST);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let parsed = serde_json::from_str(&text);
            let way_out = || format!("{} is damaged: remove it and pull the model again", path.display());
            parsed.with_context(way_out).map(Some)
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
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
    ) -> Result<Self> {
        let describe = |file: &String| {
            let path = folder.join(file);
            let reading = || format!("cannot read {}", path.display());
            let bytes = fs::metadata(&path).with_context(reading)?.len();
            Ok(ManifestFile { name: file.clone(), bytes, sha256: sha256(&path).with_context(reading)? })
        };
        let files = files.iter().map(describe).collect::<Result<_>>()?;
        Ok(Manifest { name: name.to_owned(), source, revision, files })
    }

    /// Writes the manifest into `folder`, whole or not at all.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let (path, part) = (folder.join(MANIFEST), folder.join(format!(".{MANIFEST}.part")));
        let text = serde_json::to_string_pretty(self).context("a manifest is plain data")? + "\n";
        fs::write(&part, text).map_err(|error| write_failure(&part, error, None))?;
        fs::rename(&part, &path).with_context(|| format!("cannot finish {}", path.display()))
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
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// What to load, in the model's `folder`: its GGUF file, or the folder itself.
    pub(crate) fn load_path(&self, folder: &Path) -> PathBuf {
        let gguf = self.files.iter().find(|file| file.name.to_ascii_lowercase().ends_with(".gguf"));
        gguf.map_or_else(|| folder.to_owned(), |file| folder.join(&file.name))
    }
}
