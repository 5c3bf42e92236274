//! Programs the chores need: cargo subcommands, and what a Debian package brings.

use crate::command::{cargo, run, succeeds};
use anyhow::{Context, Result};
use std::process::Command;

/// A cargo subcommand that comes from crates.io.
pub(crate) struct Tool {
    /// What follows `cargo`, also the name of the package after `cargo-`.
    pub(crate) subcommand: &'static str,
}

/// The test runner.
pub(crate) const NEXTEST: Tool = Tool { subcommand: "nextest" };
/// Licences, bans, sources and advisories of the dependencies.
pub(crate) const DENY: Tool = Tool { subcommand: "deny" };
/// Coverage-guided fuzzing.
pub(crate) const FUZZ: Tool = Tool { subcommand: "fuzz" };

impl Tool {
    /// Whether the subcommand answers.
    pub(crate) fn installed(&self) -> bool {
        succeeds(&mut cargo([self.subcommand, "--version"]))
    }

    /// Installs the subcommand from source unless it is there.
    pub(crate) fn ensure(&self) -> Result<()> {
        if self.installed() {
            return Ok(());
        }
        let package = format!("cargo-{}", self.subcommand);
        eprintln!("installing {package}, which compiles for some minutes");
        // Unoptimised: what they do takes seconds, and compiling them with optimisation minutes.
        run(&mut cargo(["install", "--locked", "--debug", &package]))
            .with_context(|| format!("cannot install {package}; install it by hand and run this again"))
    }
}

/// Whether a program answers to `--version`.
pub(crate) fn answers(program: &str) -> bool {
    succeeds(Command::new(program).arg("--version"))
}

/// Installs Debian's `packages` unless one of `programs` answers.
pub(crate) fn ensure_program(programs: &[&str], packages: &[&str]) -> Result<()> {
    if programs.iter().any(|program| answers(program)) {
        return Ok(());
    }
    let names = packages.join(" ");
    eprintln!("installing Debian's {names}");
    let apt = |arguments: &[&str]| {
        run(Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive")).with_context(
            || {
                format!(
                    "cannot install {names}; install it with the system's package manager and run this again"
                )
            },
        )
    };
    apt(&["update", "--quiet=2"])?;
    apt(&[&["install", "--yes", "--quiet=2", "--no-install-recommends"], packages].concat())
}
