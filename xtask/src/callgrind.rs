//! Instructions of a decode step, counted by callgrind: a regression that no noise hides.
//!
//! Callgrind runs the code on a processor of its own, with AVX2 and without AVX-512, so that the counts are those of
//! the `avx2` level and the same on every x86-64 machine. They depend on the compiler, whose version is kept with them.

use crate::{
    command::{self, cargo},
    tools::ensure_program,
};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::{fs, process::Command};

#[derive(Args)]
pub(crate) struct Options {
    /// Keep the counts of now as those to compare with.
    #[arg(long)]
    bless: bool,
}

/// Kept counts: `# rustc …`, then `COUNT DEPTH SPEC` a line.
const KEPT: &str = "crates/model/examples/step.counts";
const MODEL: &str = "models/tiny-gpt2";
/// Counts may grow by this share.
const TOLERANCE: f64 = 0.03;

/// Depth and spec of each counted step: products alone, then every kind of kernel and of bookkeeping.
const STEPS: [(usize, &str); 7] = [
    (1, "full"),
    (900, "full"),
    (900, "full+q8"),
    (900, "full+q4h"),
    (900, "full+k=kivi4+v=q4"),
    (900, "window@25%"),
    (900, "h2o@25%"),
];

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure_program(&["valgrind"], &["valgrind"])?;
    let compiler = command::output(Command::new("rustc").arg("--version"))?.trim().to_owned();
    let kept = if options.bless { None } else { Some(Kept::read()?) };
    let mut lines = vec![format!("# {compiler}")];
    let mut grown = vec![];
    for (depth, spec) in STEPS {
        let now = count(depth, spec)?;
        lines.push(format!("{now} {depth} {spec}"));
        let before = kept.as_ref().and_then(|kept| kept.count(depth, spec));
        let change = before.map(|before| now as f64 / before as f64 - 1.0);
        let shown = change.map_or("new".to_owned(), |change| format!("{:+.2}%", 100.0 * change));
        println!("{now:>12} instructions  {shown:>8}  {spec} at depth {depth}");
        if change.is_some_and(|change| change > TOLERANCE) {
            grown.push(format!("{spec} at depth {depth} by {shown}"));
        }
    }
    let Some(kept) = kept else {
        fs::write(KEPT, lines.join("\n") + "\n").with_context(|| format!("cannot write {KEPT}"))?;
        eprintln!("wrote {KEPT}");
        return Ok(());
    };
    if grown.is_empty() {
        return Ok(());
    }
    if kept.compiler != compiler {
        eprintln!(
            "the kept counts are of {}, these of {compiler}: not compared; `cargo xtask callgrind --bless` keeps these",
            kept.compiler
        );
        return Ok(());
    }
    bail!(
        "a step takes more instructions: {}; if that is meant, `cargo xtask callgrind --bless`",
        grown.join(", ")
    )
}

struct Kept {
    compiler: String,
    /// `COUNT DEPTH SPEC`
    lines: Vec<String>,
}

impl Kept {
    fn read() -> Result<Kept> {
        let text = fs::read_to_string(KEPT)
            .with_context(|| format!("cannot read {KEPT}; `cargo xtask callgrind --bless` writes it"))?;
        let mut lines = text.lines().map(str::to_owned);
        let compiler = lines.next().unwrap_or_default().trim_start_matches("# ").to_owned();
        Ok(Kept { compiler, lines: lines.collect() })
    }

    fn count(&self, depth: usize, spec: &str) -> Option<u64> {
        let of_step = |line: &String| {
            let (count, step) = line.split_once(' ')?;
            (step == format!("{depth} {spec}")).then(|| count.parse().ok())?
        };
        self.lines.iter().find_map(of_step)
    }
}

/// Instructions of the step.
fn count(depth: usize, spec: &str) -> Result<u64> {
    let runner = r#"target."cfg(all())".runner = ["valgrind", "--tool=callgrind", "--collect-atstart=no",
        "--toggle-collect=*counted_step*", "--callgrind-out-file=/dev/null"]"#
        .replace("\n        ", " ");
    let mut command =
        cargo(["run", "--release", "--locked", "--package", "sketchkv-model", "--example", "step"]);
    command.args(["--config", &runner, "--", MODEL, &depth.to_string(), spec]).env("SKETCHKV_CPU", "avx2");
    let done = command.output().context("cannot start cargo")?;
    let report = String::from_utf8_lossy(&done.stderr);
    let counted = report.lines().find_map(|line| line.split("Collected :").nth(1)?.trim().parse().ok());
    match counted {
        Some(count) if count > 0 && done.status.success() => Ok(count),
        _ => bail!("callgrind counted nothing for {spec} at depth {depth}:\n{report}"),
    }
}
