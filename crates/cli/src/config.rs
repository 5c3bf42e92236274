//! What a user has set once for all commands: a file, and the environment over it.

use crate::{failure::usage, output};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sketchkv_engine::{EMBEDDED, catalog::ModelsFolder};
use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// What can be set; flags go over all of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The model of commands that are told of none.
    pub(crate) model: Option<String>,
    /// The cache of `run` and `chat`.
    pub(crate) kv: Option<String>,
    /// Threads that run a model.
    pub(crate) threads: Option<u16>,
    /// Where models lie.
    pub(crate) models: Option<PathBuf>,
}

/// Names of what can be set, with the variable of the environment that goes over it.
pub(crate) const KEYS: [(&str, &str); 4] = [
    ("model", "SKETCHKV_MODEL"),
    ("kv", "SKETCHKV_KV"),
    ("threads", "SKETCHKV_THREADS"),
    ("models", "SKETCHKV_MODELS"),
];

static CONFIG: OnceLock<Config> = OnceLock::new();

/// Reads it, before anything else is read. To be called once.
///
/// # Errors
/// When the file or a variable does not hold what it should.
pub(crate) fn read() -> Result<()> {
    let mut config = read_file()?;
    for (key, variable) in KEYS {
        if let Some(value) = set(variable) {
            config.set(key, &value).with_context(|| format!("the variable {variable}"))?;
        }
    }
    if let Some(models) = &config.models {
        ModelsFolder::set_usual(models.clone());
    }
    CONFIG.get_or_init(|| config);
    Ok(())
}

/// What is set.
pub(crate) fn get() -> &'static Config {
    CONFIG.get_or_init(Config::default)
}

/// The model of commands that are told of none.
pub(crate) fn usual_model() -> String {
    get().model.clone().unwrap_or_else(|| EMBEDDED.to_owned())
}

/// The file: `$SKETCHKV_CONFIG`, else in `$XDG_CONFIG_HOME/sketchkv`, else in `~/.config/sketchkv`. Empty for none.
pub(crate) fn path() -> Option<PathBuf> {
    if let Some(path) = env::var_os("SKETCHKV_CONFIG") {
        return Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty());
    }
    let folder = env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let folder = folder.or_else(|| env::home_dir().map(|home| home.join(".config")))?;
    Some(folder.join("sketchkv/config.toml"))
}

/// What the file says; nothing where there is none.
pub(crate) fn read_file() -> Result<Config> {
    let Some(path) = path() else { return Ok(Config::default()) };
    match fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).map_err(|error| {
            usage(format!("{}: {}; `sketchkv config` lists what can be set", path.display(), error.message()))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Config::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes the file, whole or not at all.
pub(crate) fn write_file(config: &Config) -> Result<PathBuf> {
    let path = path().ok_or_else(|| usage("there is no home folder: set SKETCHKV_CONFIG to a file"))?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot write {}", path.display()))?;
    }
    output::file(&path, toml::to_string(config)?.as_bytes())?;
    Ok(path)
}

/// The value of a variable that is not empty.
pub(crate) fn set(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|value| !value.trim().is_empty())
}

impl Config {
    /// What `key` is set to.
    pub(crate) fn value(&self, key: &str) -> Option<String> {
        match key {
            "model" => self.model.clone(),
            "kv" => self.kv.clone(),
            "threads" => self.threads.map(|threads| threads.to_string()),
            _ => self.models.as_deref().map(Path::display).map(|path| path.to_string()),
        }
    }

    /// Sets `key`.
    ///
    /// # Errors
    /// When there is no such key, or it cannot be that.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "model" => self.model = Some(value.to_owned()),
            "kv" => {
                crate::arguments::spec(value)?;
                self.kv = Some(value.to_owned());
            }
            "threads" => {
                let threads = value.parse().ok().filter(|threads| (1..=1024).contains(threads));
                self.threads = Some(threads.ok_or_else(|| usage("threads are a number from 1 to 1024"))?);
            }
            "models" => self.models = Some(PathBuf::from(value)),
            _ => return Err(unknown(key)),
        }
        Ok(())
    }

    /// Sets `key` to nothing.
    ///
    /// # Errors
    /// When there is no such key.
    pub(crate) fn unset(&mut self, key: &str) -> Result<()> {
        match key {
            "model" => self.model = None,
            "kv" => self.kv = None,
            "threads" => self.threads = None,
            "models" => self.models = None,
            _ => return Err(unknown(key)),
        }
        Ok(())
    }
}

fn unknown(key: &str) -> anyhow::Error {
    usage(format!("`{key}` cannot be set: it is one of {}", KEYS.map(|(key, _)| key).join(", ")))
}
