//! Chores of the sketchkv repository: `cargo xtask test` is what CI runs.

mod aarch64;
mod browser;
mod callgrind;
mod command;
mod commands;
mod docs;
mod environment;
mod fuzz;
mod presets;
mod profiles;
mod python;
mod server;
mod shared;
mod test;
mod tools;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Build, test and documentation chores of sketchkv.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Run every check: format, lints, tests, doctests, docs, dependencies, fuzz bodies.
    Test(test::Options),
    /// Search for crashes with coverage-guided fuzzing (libFuzzer through cargo-fuzz).
    Fuzz(fuzz::Options),
    /// Write the generated parts of the documentation: the method table of README.md, the command reference.
    Docs(docs::Options),
    /// Measure every preset on every real model: the release check, about an hour and a half.
    Models(presets::Options),
    /// Measure the profiles in the program anew: an hour.
    Profiles,
    /// Build the Python package and run its tests, with the newest and the oldest transformers.
    Python,
    /// Run other people's tests against the server: OpenAI's client, schemathesis, llama.cpp's server tests, lm-eval.
    ServerTests,
    /// Run the tests of the numeric crates with the kernels of aarch64, emulated by QEMU.
    Aarch64,
    /// Count the instructions of a decode step with callgrind and compare them with the kept counts.
    Callgrind(callgrind::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    command::enter_repository()?;
    match chore {
        Chore::Test(options) => test::run(&options),
        Chore::Fuzz(options) => fuzz::run(&options),
        Chore::Docs(options) => docs::run(&options),
        Chore::Models(options) => presets::run(&options),
        Chore::Profiles => profiles::run(),
        Chore::Python => python::test(),
        Chore::ServerTests => server::test(),
        Chore::Aarch64 => aarch64::run(),
        Chore::Callgrind(options) => callgrind::run(&options),
    }
}
