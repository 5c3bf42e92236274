//! The browser that the report is tested in.

use crate::command::{in_ci, run, succeeds};
use anyhow::{Context, Result};
use std::process::Command;

/// Under any of these names.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Where nothing may be skipped, Chromium is installed unless a browser is there; elsewhere its test says that it skips.
pub(crate) fn ensure() -> Result<()> {
    if BROWSERS.iter().any(|name| succeeds(Command::new(name).arg("--version"))) {
        return Ok(());
    }
    if !in_ci() {
        eprintln!("there is no Chromium: the test of the report in a browser will say that it skips");
        return Ok(());
    }
    eprintln!("installing Debian's chromium");
    let apt = |arguments: &[&str]| {
        run(Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
            .context("cannot install Chromium; install it by hand and run this again")
    };
    apt(&["update", "--quiet=2"])?;
    apt(&["install", "--yes", "--quiet=2", "--no-install-recommends", "chromium"])
}
