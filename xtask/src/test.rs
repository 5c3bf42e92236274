//! `cargo xtask test`: everything that must hold before a change lands.

use crate::{
    browser,
    command::{self, NUMERIC, cargo, in_ci, sketchkv, succeeds},
    commands, docs, fuzz, presets, python, server, shared,
    tools::{DENY, NEXTEST},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::{
    process::Command,
    time::{Duration, Instant},
};

/// The real models that the tests need beside the embedded one.
const REAL_MODELS: [&str; 2] = ["smollm2-135m", "gemma3-270m"];

/// Instruction-set levels below the best one, each forced on the crates whose code depends on it.
const LOWER_LEVELS: [&str; 2] = ["scalar", "avx2"];

#[derive(Args)]
pub(crate) struct Options {
    /// Run only these stages, in their usual order (default: all).
    #[arg(value_name = "STAGE")]
    only: Vec<String>,
    /// List the stages and what each does.
    #[arg(long)]
    list: bool,
}

struct Stage {
    name: &'static str,
    about: &'static str,
    run: fn() -> Result<()>,
}

/// In this order: what fails fastest comes first, what others build upon before them.
const STAGES: &[Stage] = &[
    Stage { name: "format", about: "rustfmt finds nothing to change", run: format },
    Stage { name: "clippy", about: "clippy has no warning in any target", run: clippy },
    Stage {
        name: "deny",
        about: "licences, bans, sources, advisories and features of the dependencies",
        run: deny,
    },
    Stage { name: "model", about: "the real models are there and have the right SHA-256", run: model },
    Stage { name: "browser", about: "a browser to test the report in is there", run: browser::ensure },
    Stage { name: "tests", about: "all tests, by nextest", run: tests },
    Stage {
        name: "python",
        about: "the Python package: wheel, tests, examples; newest and oldest transformers",
        run: python::test,
    },
    Stage {
        name: "server",
        about: "OpenAI's client and schemathesis, against the server",
        run: server::quick,
    },
    Stage {
        name: "levels",
        about: "the numeric crates, and all stores, at lower instruction-set levels",
        run: levels,
    },
    Stage { name: "presets", about: "no preset destroys a model with biased keys", run: presets::quick },
    Stage { name: "doctests", about: "the examples in the documentation run", run: doctests },
    Stage { name: "rustdoc", about: "the documentation builds without warnings", run: rustdoc },
    Stage { name: "docs", about: "the generated parts of README.md and docs/ are current", run: docs::check },
    Stage {
        name: "commands",
        about: "the commands that the documentation shows exist, and those for a beginner run",
        run: commands::check,
    },
    Stage { name: "fuzz", about: "a short coverage-guided search in every fuzz target", run: fuzz::short },
];

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.list {
        for stage in STAGES {
            println!("{:<9} {}", stage.name, stage.about);
        }
        return Ok(());
    }
    if let Some(unknown) = options.only.iter().find(|name| !STAGES.iter().any(|stage| stage.name == **name)) {
        let names: Vec<_> = STAGES.iter().map(|stage| stage.name).collect();
        bail!("no stage is called {unknown:?}; the stages are {}", names.join(", "));
    }
    let mut times = Vec::new();
    for stage in STAGES {
        if !options.only.is_empty() && !options.only.iter().any(|name| name == stage.name) {
            continue;
        }
        eprintln!("\n── {}: {}", stage.name, stage.about);
        let start = Instant::now();
        (stage.run)().with_context(|| format!("stage {} failed", stage.name))?;
        times.push((stage.name, start.elapsed()));
    }
    eprintln!();
    for (name, time) in &times {
        eprintln!("{name:<9} {:>7.1} s", time.as_secs_f64());
    }
    let total: Duration = times.iter().map(|(_, time)| *time).sum();
    eprintln!("{:<9} {:>7.1} s", "all", total.as_secs_f64());
    println!("stages: {} passed, 0 failed", times.len());
    Ok(())
}

fn format() -> Result<()> {
    command::run(&mut cargo(["fmt", "--all", "--check"])).context("run `cargo fmt --all`")
}

fn clippy() -> Result<()> {
    command::run(&mut cargo(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
}

fn deny() -> Result<()> {
    shared::check()?;
    DENY.ensure()?;
    command::run(&mut cargo(["deny", "--locked", "check", "licenses", "bans", "sources"]))?;
    // The advisory database is a git repository on the network: where it cannot be had, the rest still counts.
    if succeeds(&mut cargo(["deny", "fetch", "db"])) {
        return command::run(&mut cargo(["deny", "--locked", "check", "--disable-fetch", "advisories"]));
    }
    eprintln!("the advisory database cannot be reached; advisories are not checked");
    Ok(())
}

fn model() -> Result<()> {
    for name in REAL_MODELS {
        match command::run(&mut sketchkv(["pull", name, "--quiet"])?) {
            Err(error) if !in_ci() => {
                eprintln!("{error:#}\ntests that need {name} will say that they skip");
            }
            outcome => outcome?,
        }
    }
    Ok(())
}

fn tests() -> Result<()> {
    NEXTEST.ensure()?;
    command::run(&mut cargo(["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]))
}

fn levels() -> Result<()> {
    NEXTEST.ensure()?;
    // A filter over the workspace, not packages: these would be built once more, with other features.
    let numeric: Vec<String> = NUMERIC.iter().map(|package| format!("package({package})")).collect();
    let filter = format!("{} | (package(sketchkv-cache) & binary(finite))", numeric.join(" | "));
    for level in LOWER_LEVELS {
        eprintln!("SKETCHKV_CPU={level}");
        let mut command =
            cargo(["nextest", "run", "--workspace", "--locked", "--no-fail-fast", "-E", &filter]);
        command::run(command.env("SKETCHKV_CPU", level))?;
    }
    Ok(())
}

fn doctests() -> Result<()> {
    command::run(&mut cargo(["test", "--doc", "--workspace", "--locked"]))
}

fn rustdoc() -> Result<()> {
    let mut command: Command = cargo(["doc", "--no-deps", "--workspace", "--locked"]);
    command::run(command.env("RUSTDOCFLAGS", "-D warnings"))
}
