//! The generated parts of the documentation.

use crate::command::{cargo, output, sketchkv};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use std::fs;
use std::process::Command;

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
    Part { file: "docs/methods.md", name: "methods", command: &["methods", "--page"] },
    Part { file: "docs/usage.md", name: "commands", command: &["reference"] },
];

/// What docs/methods.md shows of every method; never checked, as [`TABLE`].
const MEASURED: Part = Part {
    file: "docs/methods.md",
    name: "measured",
    command: &[
        "compare",
        "--model",
        "smollm2-135m",
        "--context",
        "1024",
        "--samples",
        "4",
        "--text",
        "data/persuasion.txt",
        "--text",
        "data/jargon.txt",
        "--text",
        "data/code.txt",
        "--text",
        "data/dialogue.txt",
    ],
};

/// What README.md shows of `compare --quick`; never checked, since times differ.
const TABLE: Part = Part { file: "README.md", name: "table", command: &["compare", "--quick"] };

pub(crate) fn run(options: &Options) -> Result<()> {
    for part in PARTS {
        update(part, &output(&mut sketchkv(part.command)?)?, options.check)?;
    }
    if options.measure {
        update(&TABLE, &output(optimised().args(TABLE.command))?, false)?;
        let specs = each_method()?.into_iter().flat_map(|spec| ["--kv".to_owned(), spec]);
        let table = output(optimised().args(MEASURED.command).args(specs))?;
        update(&MEASURED, &table, false)?;
    }
    Ok(())
}

fn optimised() -> Command {
    cargo(["run", "--quiet", "--release", "--package", "sketchkv", "--"])
}

/// Every method in the company that it needs, and the presets.
fn each_method() -> Result<Vec<String>> {
    let listed: Value = serde_json::from_str(&output(optimised().args(["methods", "--json"]))?)?;
    let of = |list: &str| listed[list].as_array().cloned().unwrap_or_default();
    let methods = of("methods").into_iter().filter_map(|method| {
        let name = method["name"].as_str()?;
        match method["choice"].as_str()? {
            _ if ["f32", "none", "all", "uniform"].contains(&name) => None,
            "keep" if name == "full" => Some("full".to_owned()),
            "keep" => Some(format!("{name}@25%")),
            "store" => Some(format!("full+{name}")),
            "read" => Some(format!("full+{name}(k=128)")),
            _ => Some(format!("h2o+{name}@25%")),
        }
    });
    let presets = of("presets").into_iter().filter_map(|preset| preset["name"].as_str().map(str::to_owned));
    Ok(methods.chain(presets).collect())
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
