//! Running other programs.

use crate::shared::OF_PROGRAM;
use anyhow::{Context, Result, bail};
use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The crates whose code depends on the instruction set.
pub(crate) const NUMERIC: [&str; 2] = ["sketchkv-kernels", "sketchkv-sketch"];

/// Makes the root of the repository the current folder, wherever the chore was started.
pub(crate) fn enter_repository() -> Result<()> {
    // Where cargo runs it from, which a moved checkout changes and a built program does not know.
    let own = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let root = Path::new(&own).parent().context("xtask lies inside the repository")?;
    env::set_current_dir(root).with_context(|| format!("cannot enter {}", root.display()))
}

/// The cargo that started this chore, or the one on the path.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    build_once(&mut command);
    command
}

/// In continuous integration everything is built once: what would make a second time faster is left out, by whatever starts
/// cargo.
pub(crate) fn build_once(command: &mut Command) {
    if in_ci() {
        command.env("CARGO_INCREMENTAL", "0");
    }
}

/// Whether this runs in continuous integration, where nothing may be skipped.
pub(crate) fn in_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// The `sketchkv` command, built as the tests build it.
pub(crate) fn sketchkv<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Command> {
    let mut command = Command::new(built_sketchkv()?);
    // What its user has set does not belong into documents and tests.
    command.args(arguments).env("SKETCHKV_CONFIG", "");
    Ok(command)
}

/// Where the `sketchkv` command is, built as the tests build it.
pub(crate) fn built_sketchkv() -> Result<PathBuf> {
    let bin = ["--bin", "sketchkv", "--features", OF_PROGRAM];
    run(cargo(["build", "--quiet", "--locked", "--workspace"]).args(bin))?;
    Ok(env::current_dir()?.join("target/debug").join(format!("sketchkv{}", env::consts::EXE_SUFFIX)))
}

/// The `sketchkv` command, optimised: for what takes long.
pub(crate) fn optimised<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = cargo(["run", "--quiet", "--release", "--locked", "--package", "sketchkv", "--"]);
    command.args(arguments);
    command
}

/// Runs a command to its end; anything but success is an error that names it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", line(command));
    }
    Ok(())
}

/// Runs a command and returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if !output.status.success() {
        bail!("{} failed ({})", line(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} did not print UTF-8", line(command)))
}

/// Whether a command starts and succeeds; its output is discarded.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
