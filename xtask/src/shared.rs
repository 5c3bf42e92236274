//! What is built once: the program and the wheel share their dependencies with the tests.

use crate::command::{cargo, output};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;

/// The feature that turns on, of the dependencies of the wheel, what the tests of the whole workspace turn on.
pub(crate) const OF_WHEEL: &str = "shared";
/// The same for the program.
pub(crate) const OF_PROGRAM: &str = "xtask/shared";

/// What is built beside the tests.
const BUILT: [(&str, &[&str]); 2] = [
    (OF_WHEEL, &["--package", "sketchkv-python", "--features", OF_WHEEL]),
    (OF_PROGRAM, &["--workspace", "--features", OF_PROGRAM]),
];

/// A dependency with other features is compiled once more, and so is everything that builds upon it: minutes each time.
pub(crate) fn check() -> Result<()> {
    let tested = dependencies(&["--workspace"])?;
    for (feature, built) in BUILT {
        let own = dependencies(&[built, &["--edges", "normal,build"]].concat())?;
        let others: Vec<&str> = own.difference(&tested).map(String::as_str).collect();
        if !others.is_empty() {
            let others = others.join("\n");
            bail!("the feature `{feature}` is to make these as the tests have them, not\n{others}");
        }
    }
    Ok(())
}

/// Every dependency from outside, with its version and its features, one a line.
fn dependencies(of: &[&str]) -> Result<BTreeSet<String>> {
    let mut tree = cargo(["tree", "--quiet", "--locked", "--prefix", "none", "--format", "{p} [{f}]"]);
    let tree = output(tree.args(of)).context("the dependencies cannot be listed")?;
    let lines = tree.lines().map(|line| line.trim_end_matches(" (*)").to_owned());
    Ok(lines.filter(|line| !line.contains("sketchkv-python ") && !line.starts_with("xtask ")).collect())
}
