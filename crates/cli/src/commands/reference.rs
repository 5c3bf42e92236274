use crate::output;
use anyhow::Result;
use clap::CommandFactory;
use std::fmt::Write;

/// Print the help of every command as Markdown; the documentation is made of it.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let mut root = crate::Arguments::command();
        root.build();
        let mut text = String::new();
        for command in root.get_subcommands_mut().filter(|command| !command.is_hide_set()) {
            let help = command.render_long_help().to_string();
            let help: Vec<&str> = help.lines().map(str::trim_end).collect();
            write!(text, "## {}\n\n```text\n{}\n```\n\n", command.get_name(), help.join("\n").trim_end())?;
        }
        output::line(text.trim_end())
    }
}
