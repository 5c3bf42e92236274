use crate::{
    config::{self, Config, KEYS, Key},
    output,
};
use anyhow::Result;
use serde_json::{Map, Value, json};

/// Show or set what all commands begin with: model, cache, threads, the folder of models.
///
/// Kept in a file, which may be written by hand. Variables of the environment go over it, flags over both.
#[derive(clap::Args)]
#[command(after_help = "\
sketchkv config set model smollm2-135m
sketchkv config set kv 64MiB
sketchkv config unset kv

The file is $SKETCHKV_CONFIG, else $XDG_CONFIG_HOME/sketchkv/config.toml, else ~/.config/sketchkv/config.toml.")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Set one thing.
    Set {
        /// Which.
        #[arg(value_parser = KEYS.map(|key| key.name))]
        key: String,
        /// What it is to be.
        value: String,
    },
    /// Set one thing to nothing.
    Unset {
        /// Which.
        #[arg(value_parser = KEYS.map(|key| key.name))]
        key: String,
    },
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        if let Some(command) = self.command {
            let mut file = config::read_file()?;
            match command {
                Command::Set { key, value } => file.set(&key, Some(&value))?,
                Command::Unset { key } => file.set(&key, None)?,
            }
            eprintln!("{}", config::write_file(&file)?.display());
            return Ok(());
        }
        let file = config::read_file()?;
        let path = config::path().map(|path| path.display().to_string());
        let rows = KEYS.map(|key| {
            let (value, from) = now(&file, &key);
            (key.name, value, from)
        });
        if self.json {
            let settings: Map<String, Value> = rows
                .into_iter()
                .map(|(key, value, from)| (key.to_owned(), json!({ "value": value, "from": from })))
                .collect();
            return output::json(&json!({ "file": path, "settings": settings }));
        }
        let rows = rows.map(|(key, value, from)| vec![key.into(), value.unwrap_or_default(), from]);
        output::line(output::table(&["", "value", "from"], &[], rows))?;
        eprintln!("{}", path.unwrap_or_else(|| "no file: there is no home folder".into()));
        Ok(())
    }
}

/// What it is now, and who says so.
fn now(file: &Config, key: &Key) -> (Option<String>, String) {
    if let Some(value) = config::set(key.variable) {
        return (Some(value), key.variable.to_owned());
    }
    match ((key.value)(file), key.name) {
        (Some(value), _) => (Some(value), "the file".into()),
        (None, "model") => (Some(config::usual_model().to_string()), "the program".into()),
        (None, "kv") => (Some(crate::arguments::USUAL_CACHE.into()), "the program".into()),
        (None, _) => (None, "the machine".into()),
    }
}
