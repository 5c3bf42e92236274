//! `cargo xtask python`: the wheel, in an environment of its own.

use crate::command::{build_once, output, run, sketchkv};
use anyhow::{Context, Result};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What the tests run on, what of it comes without its own requirements, and what is laid over it for the oldest transformers.
const REQUIREMENTS: &str = "crates/python/requirements.txt";
const WITHOUT_DEPENDENCIES: &str = "crates/python/requirements-no-deps.txt";
const OLDEST: &str = "crates/python/requirements-oldest.txt";

/// The tests of the package, and those that depend on the version of transformers.
const TESTS: &str = "crates/python/tests";
const DROP_IN: &str = "crates/python/tests/test_transformers.py";

/// Builds the wheel, installs it in an environment of its own, and runs every test and example of it; those of the drop-in with
/// the oldest transformers, too.
pub(crate) fn test() -> Result<()> {
    let folder = Path::new("target/python");
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let python = environment(folder)?;
    let oldest = overlay(folder, &python)?;
    install(folder, &python)?;
    // The command that sweeps drive, built as the tests build it.
    output(&mut sketchkv(["--version"]))?;
    let built = env::current_dir()?.join("target/debug").join(format!("sketchkv{}", env::consts::EXE_SUFFIX));
    let pytest = || {
        let mut command = Command::new(&python);
        command.args(["-m", "pytest", "--quiet"]).env("SKETCHKV", &built);
        command
    };
    run(pytest().arg(TESTS)).context("with the newest transformers")?;
    run(pytest().arg(DROP_IN).env("PYTHONPATH", oldest)).context("with the oldest transformers")
}

/// A virtual environment with the requirements; the Python in it. It is made anew when these have changed.
fn environment(folder: &Path) -> Result<PathBuf> {
    let home = folder.join("environment");
    let python = home.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    if !is_current(&home, REQUIREMENTS)? || !is_current(&home, WITHOUT_DEPENDENCIES)? {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))
            .context("Python 3.10 or later with venv is needed: install it and run this again")?;
        pip(&python, ["--requirement", REQUIREMENTS].map(AsRef::as_ref))?;
        pip(&python, ["--no-deps", "--requirement", WITHOUT_DEPENDENCIES].map(AsRef::as_ref))?;
        mark(&home, REQUIREMENTS)?;
        mark(&home, WITHOUT_DEPENDENCIES)?;
    }
    // Absolute, but not resolved: a link to the system's Python would leave the environment.
    Ok(env::current_dir()?.join(python))
}

/// A folder with the oldest requirements, to be put before the others.
fn overlay(folder: &Path, python: &Path) -> Result<PathBuf> {
    let home = env::current_dir()?.join(folder).join("oldest");
    if !is_current(&home, OLDEST)? {
        if home.exists() {
            fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
        }
        let target = ["--no-deps", "--requirement", OLDEST, "--target"].map(Path::new);
        pip(python, target.into_iter().chain([&*home]))?;
        mark(&home, OLDEST)?;
    }
    Ok(home)
}

fn pip<'a>(python: &Path, arguments: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let mut command = Command::new(python);
    command.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "--no-cache-dir",
        "--disable-pip-version-check",
    ]);
    run(command.args(arguments))
}

/// Builds the wheel as the workspace is built, and installs it in place of an earlier one.
fn install(folder: &Path, python: &Path) -> Result<()> {
    let wheels = folder.join("wheels");
    if wheels.exists() {
        fs::remove_dir_all(&wheels).with_context(|| format!("cannot empty {}", wheels.display()))?;
    }
    let mut maturin = Command::new(python);
    maturin.args([
        "-m",
        "maturin",
        "build",
        "--quiet",
        "--locked",
        "--profile",
        "dev",
        "--features",
        "shared",
    ]);
    maturin.args(["--compatibility", "linux", "--out"]).arg(&wheels);
    build_once(&mut maturin);
    run(&mut maturin)?;
    let wheel = fs::read_dir(&wheels)?.next().context("maturin has built no wheel")??.path();
    pip(python, [Path::new("--force-reinstall"), Path::new("--no-deps"), &wheel])
}

/// Whether a folder was made from the requirements as they are.
fn is_current(home: &Path, requirements: &str) -> Result<bool> {
    let wanted = fs::read(requirements).with_context(|| format!("cannot read {requirements}"))?;
    Ok(fs::read(copy_of(requirements, home)).is_ok_and(|had| had == wanted))
}

fn mark(home: &Path, requirements: &str) -> Result<()> {
    fs::copy(requirements, copy_of(requirements, home))
        .with_context(|| format!("cannot write to {}", home.display()))?;
    Ok(())
}

fn copy_of(requirements: &str, home: &Path) -> PathBuf {
    home.join(Path::new(requirements).file_name().unwrap_or_default())
}
