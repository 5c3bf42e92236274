//! `cargo xtask python`: the wheel, in an environment of its own.

use crate::{
    command::{built_sketchkv, run},
    environment::Environment,
};
use anyhow::{Context, Result};
use std::path::Path;

/// What the tests run on, what of it comes without its own requirements, and what is laid over it for the oldest transformers and
/// for kvpress, which wants another one than the newest.
const REQUIREMENTS: &str = "crates/python/requirements.txt";
const WITHOUT_DEPENDENCIES: &str = "crates/python/requirements-no-deps.txt";
const OLDEST: &str = "crates/python/requirements-oldest.txt";
const KVPRESS: &str = "crates/python/requirements-kvpress.txt";

/// The tests of the package, those that depend on the version of transformers, and those of kvpress.
const TESTS: &str = "crates/python/tests";
const DROP_IN: [&str; 2] =
    ["crates/python/tests/test_transformers.py", "crates/python/tests/test_cache_api.py"];
const PRESSES: &str = "crates/python/tests/test_kvpress.py";

/// Builds the wheel, installs it in an environment of its own, and runs every test and example of it; those of the drop-in with
/// the oldest transformers, too, and those of the adapter with kvpress.
pub(crate) fn test() -> Result<()> {
    let environment = Environment::of(Path::new("target/python"), REQUIREMENTS, Some(WITHOUT_DEPENDENCIES))?;
    let oldest = environment.overlay("oldest", OLDEST)?;
    let kvpress = environment.overlay("kvpress", KVPRESS)?;
    environment.install_wheel()?;
    // The command that sweeps drive.
    let sketchkv = built_sketchkv()?;
    let pytest = || {
        let mut command = environment.command();
        command.args(["-m", "pytest", "--quiet"]).env("SKETCHKV", &sketchkv);
        command
    };
    run(pytest().arg(TESTS)).context("with the newest transformers")?;
    run(pytest().args(DROP_IN).env("PYTHONPATH", oldest)).context("with the oldest transformers")?;
    run(pytest().arg(PRESSES).env("PYTHONPATH", kvpress)).context("with kvpress")
}
