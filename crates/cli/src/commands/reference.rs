use crate::{arguments, output};
use anyhow::{Context, Result};
use clap::{Arg, Command, CommandFactory};
use serde_json::{Value, json};
use std::{fmt::Write, io};

/// Print the help of every command as Markdown; the documentation is made of it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print what every command takes as one JSON document; the tests are made of it.
    #[arg(long)]
    json: bool,
    /// Say of each command line on standard input, a JSON array of words a line, what is wrong with it: null where nothing is.
    /// Nothing is run.
    #[arg(long, conflicts_with = "json")]
    parse: bool,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        // As wide as it is: whoever reads it has a window of another width.
        let mut root = crate::Arguments::command().term_width(0);
        root.build();
        if self.parse {
            let lines = io::read_to_string(io::stdin())?;
            let lines = lines.lines().map(|line| {
                serde_json::from_str::<Vec<String>>(line).context("a line is a JSON array of words")
            });
            let wrong = lines.map(|words| Ok(wrong(&root, &words?))).collect::<Result<Vec<_>>>()?;
            return output::json(&wrong);
        }
        if self.json {
            let mut commands = Vec::new();
            list(&root, &mut Vec::new(), &mut commands);
            return output::json(&commands);
        }
        let mut text = String::new();
        describe(&mut root, "", &mut text)?;
        output::line(text.trim_end())
    }
}

/// What is wrong with a command line, caches included; the words are those after the program's name.
fn wrong(root: &Command, words: &[String]) -> Option<String> {
    let first_line = |error: String| error.lines().next().unwrap_or_default().to_owned();
    let matches = match root.clone().try_get_matches_from([&["sketchkv".to_owned()], words].concat()) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => return None,
        Err(error) => return Some(first_line(error.to_string())),
    };
    let mut command = &matches;
    while let Some((_, below)) = command.subcommand() {
        command = below;
    }
    let given = |id: &str| command.try_get_many::<String>(id).ok().flatten().into_iter().flatten();
    given("kv").find_map(|spec| arguments::spec(spec).err()).map(|error| first_line(error.to_string()))
}

/// The help of every command below `parent`, and of the commands below those.
fn describe(parent: &mut Command, path: &str, text: &mut String) -> Result<()> {
    for command in parent.get_subcommands_mut().filter(|command| !command.is_hide_set()) {
        let path = format!("{path}{}", command.get_name());
        let help = command.render_long_help().to_string();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        write!(text, "## {path}\n\n```text\n{}\n```\n\n", help.join("\n").trim_end())?;
        describe(command, &format!("{path} "), text)?;
    }
    Ok(())
}

/// The arguments of every command below `parent`, and of the commands below those.
fn list(parent: &Command, path: &mut Vec<String>, into: &mut Vec<Value>) {
    for command in parent.get_subcommands().filter(|command| !command.is_hide_set()) {
        path.push(command.get_name().to_owned());
        let arguments: Vec<Value> =
            command.get_arguments().filter(|a| !a.is_hide_set()).map(argument).collect();
        into.push(json!({ "command": path, "arguments": arguments }));
        list(command, path, into);
        path.pop();
    }
}

fn argument(argument: &Arg) -> Value {
    json!({
        "name": argument.get_id().as_str(),
        "long": argument.get_long(),
        "short": argument.get_short(),
        "takes_value": argument.get_action().takes_values(),
        "shown": argument.get_value_names().unwrap_or_default().iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        "required": argument.is_required_set(),
    })
}
