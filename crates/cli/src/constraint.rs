use crate::failure::usage;
use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;
use sketchkv_engine::{Constraint, Grammars};
use sketchkv_eval::read_input_text;
use sketchkv_model::Model;
use std::path::{Path, PathBuf};

/// What the text must be.
#[derive(Default, Args)]
#[command(next_help_heading = "Constraint")]
pub(crate) struct ConstraintArguments {
    /// The text is JSON that fits this schema: a file, or the schema itself.
    #[arg(long, value_name = "FILE_OR_JSON", conflicts_with_all = ["regex", "grammar"])]
    json_schema: Option<String>,
    /// The text is what this regex matches, from its first character to its last.
    #[arg(long, conflicts_with = "grammar")]
    regex: Option<String>,
    /// The text is what the rule `start` of this file gives, a grammar in llguidance's dialect of Lark.
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,
}

/// What was asked for, read and not yet compiled.
pub(crate) enum Asked {
    Schema(Value),
    Regex(String),
    Grammar(String),
}

impl ConstraintArguments {
    /// What is asked for, if anything.
    pub(crate) fn read(self) -> Result<Option<Asked>> {
        Ok(match self {
            ConstraintArguments { json_schema: Some(schema), .. } => {
                Some(Asked::Schema(read_schema(&schema)?))
            }
            ConstraintArguments { regex: Some(regex), .. } => Some(Asked::Regex(regex)),
            ConstraintArguments { grammar: Some(path), .. } => Some(Asked::Grammar(read("grammar", &path)?)),
            _ => None,
        })
    }
}

impl Asked {
    /// What a text of `model` is held to.
    pub(crate) fn compile(&self, model: &Model) -> Result<Constraint> {
        let grammars = Grammars::new(model)?;
        Ok(match self {
            Asked::Schema(schema) => grammars.json_schema(schema)?,
            Asked::Regex(regex) => grammars.regex(regex)?,
            Asked::Grammar(grammar) => grammars.lark(grammar)?,
        })
    }
}

/// A schema is an object, and few files have a name that begins as one.
fn read_schema(argument: &str) -> Result<Value> {
    let (text, named) = match argument.trim_start().starts_with('{') {
        true => (argument.to_owned(), String::new()),
        false => (read("schema", Path::new(argument))?, format!(" {argument}")),
    };
    serde_json::from_str(&text).map_err(|error| usage(format!("the schema{named} is no JSON: {error}")))
}

fn read(what: &str, path: &Path) -> Result<String> {
    read_input_text(path)
        .with_context(|| format!("the {what} {:?} cannot be read", path.display().to_string()))
}
