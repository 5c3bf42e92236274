//! The generated parts of the documentation.

use crate::command::{cargo, output, sketchkv};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fs;

#[derive(Args)]
pub(crate) struct Options {
    /// Change nothing; fail when something is not current.
    #[arg(long)]
    check: bool,
    /// Also measure: write the table of `compare --quick` as it comes out on this machine, which should be idle.
    #[arg(long, conflicts_with = "check")]
    measure: bool,
}

/// A part of a file between `<!-- NAME: … -->` and `<!-- /NAME -->` that a command of the program writes.
struct Part {
    file: &'static str,
    name: &'static str,
    command: &'static [&'static str],
}

const PARTS: &[Part] = &[
    Part { file: "README.md", name: "methods", command: &["methods", "--markdown"] },
    Part { file: "docs/usage.md", name: "commands", command: &["reference"] },
];

/// What README.md shows of `compare --quick`; never checked, since times differ.
const TABLE: Part = Part { file: "README.md", name: "table", command: &["compare", "--quick"] };

pub(crate) fn run(options: &Options) -> Result<()> {
    for part in PARTS {
        update(part, &output(&mut sketchkv(part.command))?, options.check)?;
    }
    if options.measure {
        let mut optimised = cargo(["run", "--quiet", "--release", "--package", "sketchkv", "--"]);
        update(&TABLE, &output(optimised.args(TABLE.command))?, false)?;
    }
    Ok(())
}

/// Puts what was `generated` where it belongs, or only says whether it is there.
fn update(part: &Part, generated: &str, check: bool) -> Result<()> {
    let current = fs::read_to_string(part.file).with_context(|| format!("cannot read {}", part.file))?;
    let wanted = replaced(&current, part, generated)?;
    if wanted == current {
        return Ok(());
    }
    if check {
        bail!("{} is not current; run `cargo xtask docs`", part.file);
    }
    fs::write(part.file, wanted).with_context(|| format!("cannot write {}", part.file))?;
    eprintln!("wrote {}", part.file);
    Ok(())
}

/// The stage of `cargo xtask test`.
pub(crate) fn check() -> Result<()> {
    run(&Options { check: true, measure: false })
}

fn replaced(text: &str, part: &Part, generated: &str) -> Result<String> {
    let missing = || format!("{} lacks the markers of {:?}", part.file, part.name);
    let (open, close) = (format!("<!-- {}:", part.name), format!("<!-- /{} -->", part.name));
    let start = text.find(&open).with_context(missing)?;
    let body = start + text[start..].find("-->\n").with_context(missing)? + "-->\n".len();
    let end = body + text[body..].find(&close).with_context(missing)?;
    Ok(format!("{}\n{}\n\n{}", &text[..body], generated.trim_end(), &text[end..]))
}
