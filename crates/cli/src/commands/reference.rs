use crate::output;
use anyhow::Result;
use clap::{Command, CommandFactory};
use std::fmt::Write;

/// Print the help of every command as Markdown; the documentation is made of it.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let mut root = crate::Arguments::command();
        root.build();
        let mut text = String::new();
        describe(&mut root, "", &mut text)?;
        output::line(text.trim_end())
    }
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
