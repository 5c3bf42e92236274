//! Coverage-guided fuzzing with cargo-fuzz, which also works on a stable toolchain.

use crate::{
    command::{self, cargo, in_ci},
    tools::FUZZ,
};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::{fs, process::Command};

/// Seconds for each target in `cargo xtask test`.
const SHORT: u64 = 15;

#[derive(Args)]
pub(crate) struct Options {
    /// The target (default: all, one after the other).
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let known = targets()?;
    let chosen = match &options.target {
        Some(name) if !known.contains(name) => {
            bail!("no target is called {name:?}; there are {}", known.join(", "))
        }
        Some(name) => vec![name.clone()],
        None => known,
    };
    FUZZ.ensure()?;
    chosen.iter().try_for_each(|target| search(target, options.seconds))
}

/// The stage of `cargo xtask test`. Outside CI it runs only where cargo-fuzz is installed already: the tests have
/// run the same bodies on seeds and mutations.
pub(crate) fn short() -> Result<()> {
    if !in_ci() && !FUZZ.installed() {
        eprintln!("cargo-fuzz is not installed: skipped (`cargo install --locked cargo-fuzz`)");
        return Ok(());
    }
    run(&Options { target: None, seconds: SHORT })
}

/// The targets are the files in `fuzz/targets`.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("fuzz/targets").context("cannot list fuzz/targets")? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn search(target: &str, seconds: u64) -> Result<()> {
    let (found, seeds) = (format!("fuzz/corpus/{target}"), format!("fuzz/seeds/{target}"));
    fs::create_dir_all(&found).with_context(|| format!("cannot make {found}"))?;
    let mut command: Command =
        cargo(["fuzz", "run", "--dev", "--features", "libfuzzer", target, &found, &seeds, "--"]);
    // The development profile is optimised too, and links in seconds where the release profile takes minutes.
    // The sanitizer and coverage flags are unstable ones; this lets the stable compiler take them.
    command.env("RUSTC_BOOTSTRAP", "1");
    command.args([
        format!("-max_total_time={seconds}"),
        "-timeout=10".into(),
        "-rss_limit_mb=2048".into(),
        "-print_final_stats=1".into(),
    ]);
    command::run(&mut command)
}
