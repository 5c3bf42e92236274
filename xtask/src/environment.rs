//! Virtual environments of Python, made once and anew when their requirements have changed.

use crate::{
    command::{build_once, run},
    shared::OF_WHEEL,
};
use anyhow::{Context, Result};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A virtual environment in a folder of its own.
pub(crate) struct Environment {
    folder: PathBuf,
    python: PathBuf,
}

impl Environment {
    /// The one in `folder`, with what the file `requirements` names; then, without their own requirements, what
    /// `without_dependencies` names.
    pub(crate) fn of(folder: &Path, requirements: &str, without_dependencies: Option<&str>) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let home = folder.join("environment");
        let python = home.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
        // Absolute, but not resolved: a link to the system's Python would leave the environment.
        let environment = Environment { folder: folder.to_owned(), python: env::current_dir()?.join(python) };
        let mut is_there = is_current(&home, requirements)?;
        if let Some(others) = without_dependencies {
            is_there &= is_current(&home, others)?;
        }
        if !is_there {
            run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))
                .context("Python 3.10 or later with venv is needed: install it and run this again")?;
            environment.pip(["--requirement", requirements].map(Path::new))?;
            if let Some(others) = without_dependencies {
                environment.pip(["--no-deps", "--requirement", others].map(Path::new))?;
                mark(&home, others)?;
            }
            mark(&home, requirements)?;
        }
        Ok(environment)
    }

    /// Installs what another file of requirements names, beside the rest.
    pub(crate) fn add(&self, requirements: &str) -> Result<()> {
        let home = self.folder.join("environment");
        if !is_current(&home, requirements)? {
            self.pip(["--requirement", requirements].map(Path::new))?;
            mark(&home, requirements)?;
        }
        Ok(())
    }

    /// A folder with other versions, without their own requirements, to be put before the others.
    pub(crate) fn overlay(&self, name: &str, requirements: &str) -> Result<PathBuf> {
        let home = env::current_dir()?.join(&self.folder).join(name);
        if !is_current(&home, requirements)? {
            if home.exists() {
                fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
            }
            let target = ["--no-deps", "--requirement", requirements, "--target"].map(Path::new);
            self.pip(target.into_iter().chain([&*home]))?;
            mark(&home, requirements)?;
        }
        Ok(home)
    }

    /// Builds the wheel of sketchkv as the workspace is built, and installs it in place of an earlier one.
    pub(crate) fn install_wheel(&self) -> Result<()> {
        let wheels = self.folder.join("wheels");
        if wheels.exists() {
            fs::remove_dir_all(&wheels).with_context(|| format!("cannot empty {}", wheels.display()))?;
        }
        let mut maturin = self.command();
        maturin.args([
            "-m",
            "maturin",
            "build",
            "--quiet",
            "--locked",
            "--profile",
            "dev",
            "--features",
            OF_WHEEL,
        ]);
        maturin.args(["--compatibility", "linux", "--out"]).arg(&wheels);
        build_once(&mut maturin);
        run(&mut maturin)?;
        let wheel = fs::read_dir(&wheels)?.next().context("maturin has built no wheel")??.path();
        self.pip([Path::new("--force-reinstall"), Path::new("--no-deps"), &wheel])
    }

    /// Its Python.
    pub(crate) fn command(&self) -> Command {
        Command::new(&self.python)
    }

    fn pip<'a>(&self, arguments: impl IntoIterator<Item = &'a Path>) -> Result<()> {
        let mut command = self.command();
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
