//! The generated parts of the documentation.

use crate::command::{output, sketchkv};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fs;

#[derive(Args)]
pub(crate) struct Options {
    /// Change nothing; fail when something is not current.
    #[arg(long)]
    check: bool,
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

pub(crate) fn run(options: &Options) -> Result<()> {
    for part in PARTS {
        let current = fs::read_to_string(part.file).with_context(|| format!("cannot read {}", part.file))?;
        let generated = output(&mut sketchkv(part.command))?;
        let wanted = replaced(&current, part, &generated)?;
        if wanted == current {
            continue;
        }
        if options.check {
            bail!("{} is not current; run `cargo xtask docs`", part.file);
        }
        fs::write(part.file, wanted).with_context(|| format!("cannot write {}", part.file))?;
        eprintln!("wrote {}", part.file);
    }
    Ok(())
}

/// The stage of `cargo xtask test`.
pub(crate) fn check() -> Result<()> {
    run(&Options { check: true })
}

fn replaced(text: &str, part: &Part, generated: &str) -> Result<String> {
    let missing = || format!("{} lacks the markers of {:?}", part.file, part.name);
    let (open, close) = (format!("<!-- {}:", part.name), format!("<!-- /{} -->", part.name));
    let start = text.find(&open).with_context(missing)?;
    let body = start + text[start..].find("-->\n").with_context(missing)? + "-->\n".len();
    let end = body + text[body..].find(&close).with_context(missing)?;
    Ok(format!("{}\n{}\n\n{}", &text[..body], generated.trim_end(), &text[end..]))
}
