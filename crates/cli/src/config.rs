//! What a user has set once for all commands: a file, and the environment over it.

use crate::{arguments::ModelName, failure::usage, output};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sketchkv_engine::{EMBEDDED, catalog::ModelsFolder};
use sketchkv_eval::read_input_text;
use std::{env, fs, path::PathBuf, sync::OnceLock};

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

/// One thing that can be set.
pub(crate) struct Key {
    /// Its name in the file and in `sketchkv config`.
    pub(crate) name: &'static str,
    /// The variable of the environment that goes over it.
    pub(crate) variable: &'static str,
    /// What it is set to.
    pub(crate) value: fn(&Config) -> Option<String>,
    /// Sets it to a value that it can have, or to nothing.
    set: fn(&mut Config, Option<&str>) -> Result<()>,
}

/// Everything that can be set.
pub(crate) const KEYS: [Key; 4] = [
    Key {
        name: "model",
        variable: "SKETCHKV_MODEL",
        value: |config| config.model.clone(),
        set: |config, value| {
            config.model = value.map(str::to_owned);
            Ok(())
        },
    },
    Key {
        name: "kv",
        variable: "SKETCHKV_KV",
        value: |config| config.kv.clone(),
        set: |config, value| {
            value.map(crate::arguments::spec).transpose()?;
            config.kv = value.map(str::to_owned);
            Ok(())
        },
    },
    Key {
        name: "threads",
        variable: "SKETCHKV_THREADS",
        value: |config| config.threads.map(|threads| threads.to_string()),
        set: |config, value| {
            config.threads = value.map(threads).transpose()?;
            Ok(())
        },
    },
    Key {
        name: "models",
        variable: "SKETCHKV_MODELS",
        value: |config| config.models.as_deref().map(|path| path.display().to_string()),
        set: |config, value| {
            config.models = value.map(PathBuf::from);
            Ok(())
        },
    },
];

fn threads(text: &str) -> Result<u16> {
    let threads = text.parse().ok().filter(|threads| (1..=1024).contains(threads));
    threads.ok_or_else(|| usage("threads are a number from 1 to 1024"))
}

static CONFIG: OnceLock<Config> = OnceLock::new();

/// Reads it, before anything else is read. To be called once.
///
/// # Errors
/// When the file or a variable does not hold what it should.
pub(crate) fn read() -> Result<()> {
    let mut config = read_file()?;
    for Key { name, variable, .. } in KEYS {
        if let Some(value) = set(variable) {
            config.set(name, Some(&value)).with_context(|| format!("the variable {variable}"))?;
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
pub(crate) fn usual_model() -> ModelName {
    get().model.as_deref().unwrap_or(EMBEDDED).into()
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
    match read_input_text(&path) {
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
    /// Sets what is called `name` to `value`, or to nothing.
    ///
    /// # Errors
    /// When nothing is called that, or it cannot be that.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        let key = KEYS.iter().find(|key| key.name == name).ok_or_else(|| {
            let names = KEYS.map(|key| key.name).join(", ");
            usage(format!("`{name}` cannot be set: it is one of {names}"))
        })?;
        if value.is_some_and(|value| value.trim().is_empty()) {
            return Err(usage(format!(
                "{name} cannot be empty: `sketchkv config unset {name}` sets it to nothing"
            )));
        }
        (key.set)(self, value)
    }
}
