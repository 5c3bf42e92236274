//! `cargo xtask server-tests`: the server, as other people's clients and tests see it.

use crate::{
    command::{built_sketchkv, run, sketchkv},
    environment::Environment,
};
use anyhow::{Context, Result};
use std::path::Path;

/// What the short tests run on, and what the others do beside it.
const REQUIREMENTS: &str = "crates/server/tests/clients/requirements.txt";
const MORE: &str = "crates/server/tests/clients/requirements-all.txt";

const TESTS: &str = "crates/server/tests/clients";

/// Models that the clients ask.
const MODELS: [&str; 2] = ["smollm2-135m", "qwen2.5-coder-0.5b"];

/// Runs every test: OpenAI's client, schemathesis, llama.cpp's tests of its own server, lm-eval, and the load of guidellm.
pub(crate) fn test() -> Result<()> {
    let environment = environment()?;
    environment.add(MORE)?;
    // lm-eval has the library to compare the server with.
    environment.install_wheel()?;
    pytest(&environment, &[])
}

/// Those of OpenAI's client and of schemathesis that take seconds.
pub(crate) fn quick() -> Result<()> {
    pytest(&environment()?, &["-m", "quick"])
}

fn environment() -> Result<Environment> {
    Environment::of(Path::new("target/server-tests"), REQUIREMENTS, None)
}

fn pytest(environment: &Environment, arguments: &[&str]) -> Result<()> {
    for model in MODELS {
        run(&mut sketchkv(["pull", model, "--quiet"])?)?;
    }
    let mut command = environment.command();
    command.args(["-m", "pytest", "--config-file", &format!("{TESTS}/pytest.ini"), TESTS]).args(arguments);
    run(command.env("SKETCHKV", built_sketchkv()?)).context("clients of the server")
}
