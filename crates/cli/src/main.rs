//! The `sketchkv` command: language models inside a KV cache of bounded size.

mod arguments;
mod commands;
mod comparison_text;
mod config;
mod constraint;
mod failure;
mod interrupt;
mod output;
mod progress;
mod warning;

use clap::Parser;
use commands::Command;
use sketchkv_eval::format;
use std::process::ExitCode;

/// Language models inside a KV cache of bounded size, every byte counted.
#[derive(Parser)]
#[command(name = "sketchkv", version, disable_help_subcommand = true, arg_required_else_help = true)]
#[command(
    after_help = "`sketchkv COMMAND --help` explains a command, `sketchkv help` lists topics. Exit codes: 0 done, 1 failed, \
    2 asked for something impossible, 130 interrupted."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    if let Err(error) = config::read() {
        return failure::report(&error);
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return failure::refuse(&error),
    };
    match arguments.command.run() {
        Ok(code) => code,
        // Whoever read our output has had enough.
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
