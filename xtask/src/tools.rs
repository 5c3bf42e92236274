//! The cargo subcommands the chores need.

use crate::command::{cargo, run, succeeds};
use anyhow::{Context, Result};

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
        run(&mut cargo(["install", "--locked", &package]))
            .with_context(|| format!("cannot install {package}; install it by hand and run this again"))
    }
}
