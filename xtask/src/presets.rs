//! What presets cost on real models: a release check, and a short part of it in every test run.

use crate::command::{self, optimised, output, sketchkv};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

#[derive(Args)]
pub(crate) struct Options {
    /// Only these models (default: all).
    #[arg(value_name = "MODEL")]
    only: Vec<String>,
    /// Texts of 4,096 tokens: 1 to 6.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=6))]
    texts: u8,
}

/// Every preset is measured on all of them.
pub(crate) const MODELS: &[&str] =
    &["smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"];

/// Kinds of text that constants were chosen on.
pub(crate) const TEXTS: [&str; 4] =
    ["data/persuasion.txt", "data/code.txt", "data/dialogue.txt", "data/jargon.txt"];

/// Texts that no constant was chosen on.
const HELD_OUT: [&str; 2] = ["data/scripture.txt", "data/btree.txt"];

/// A preset, alone and at a share, and the mean KL that it may cost in nats. Under a share the three are one cache.
const LIMITS: &[(&str, f64)] =
    &[("best-quality", 0.01), ("balanced", 0.01), ("fastest", 0.01), ("best-quality@25%", 0.03)];

/// Caps of the automatic cache, as parts of what an f16 cache takes, and the mean KL that they may cost at most: more would be ruin.
/// docs/results.md has what they do cost.
const AUTOMATIC: [(usize, f64); 3] = [(4, 0.05), (8, 0.15), (16, 0.3)];
/// Tokens of a document.
const CONTEXT: usize = 4096;

/// The model of the short part, whose keys have biases that a code per token cannot hold.
const QUICK: &str = "qwen2.5-coder-0.5b";

/// `cargo xtask models`: every preset and the automatic cache on every model, 4,096 tokens of each text, streamed in chunks of 256, scored from
/// token 2,560 on.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(unknown) = options.only.iter().find(|name| !MODELS.contains(&name.as_str())) {
        bail!("no release check is for a model {unknown:?}; the models are {}", MODELS.join(", "));
    }
    let mut missed = vec![];
    for model in
        MODELS.iter().filter(|model| options.only.is_empty() || options.only.iter().any(|o| o == *model))
    {
        command::run(&mut optimised(["pull", model, "--quiet"]))?;
        doors(model)?;
        let presets: Vec<_> = LIMITS.iter().map(|&(preset, most)| (preset.to_owned(), most)).collect();
        let full = full_bytes(model)?;
        let automatic: Vec<_> =
            AUTOMATIC.iter().map(|&(part, most)| (format!("{}B", full / part), most)).collect();
        for text in TEXTS.iter().chain(&HELD_OUT).take(options.texts.into()) {
            // Rows of one run are scored from where the last of their caps binds: the two kinds are run apart.
            for limits in [&presets, &automatic] {
                let mut compare = optimised(["compare", "--json", "--samples", "1", "--prefill", "2560"]);
                compare.args([
                    "-c",
                    &CONTEXT.to_string(),
                    "--stream",
                    "256",
                    "--model",
                    model,
                    "--text",
                    text,
                ]);
                missed.extend(check(&mut compare, &format!("{model}, {text}"), limits)?);
            }
        }
    }
    verdict(missed)
}

/// Every command that runs a model does so on this one.
fn doors(model: &str) -> Result<()> {
    let commands = [
        vec!["info", model],
        vec!["run", "--model", model, "-n", "8", "--kv", "best-quality", "The sea"],
        vec!["bench", "--model", model, "-p", "64", "-n", "8", "-r", "1", "--kv", "full", "--kv", "balanced"],
        vec!["advise", "--model", model, "--budget", "32MiB", "--context", "2048"],
        // Gemma's is a base model, without a template.
        vec![
            "chat",
            "--model",
            model,
            "-n",
            "8",
            "--template",
            if model == "gemma3-270m" { "gemma" } else { "chatml" },
        ],
    ];
    let said = || -> io::Result<Stdio> {
        let (lines, mut to) = io::pipe()?;
        to.write_all(b"Hello\nAnd you?\n")?;
        Ok(lines.into())
    };
    commands.into_iter().try_for_each(|words| command::run(optimised(words).stdin(said()?)))
}

/// What an f16 cache of a document takes.
fn full_bytes(model: &str) -> Result<usize> {
    let context = CONTEXT.to_string();
    let explained = output(&mut optimised(["explain", "full", "--model", model, "-c", &context, "--json"]))?;
    let explained: Value = serde_json::from_str(&explained).context("`explain --json` is no JSON")?;
    let row = explained["rows"].as_array().and_then(|rows| rows.last()).context("`explain` has no rows")?;
    let number = |name: &str| row[name].as_f64().with_context(|| format!("`explain` has no {name}"));
    Ok((100.0 * number("kv_bytes")? / number("kv_percent")?) as usize)
}

/// What `cargo xtask test` checks: that no preset destroys a model that is not the one they were chosen on.
pub(crate) fn quick() -> Result<()> {
    command::run(&mut sketchkv(["pull", QUICK, "--quiet"])?)?;
    let mut compare = sketchkv(["compare", "--json", "-c", "512", "--samples", "1", "--prefill", "384"])?;
    compare.args(["--stream", "64", "--model", QUICK, "--text", TEXTS[0]]);
    // So short a text is mostly its newest tokens: shares are wider, and cost more.
    let limits = LIMITS.iter().map(|&(preset, most)| match preset.split_once('@') {
        None => (preset.to_owned(), most),
        Some((name, _)) => (format!("{name}@50%"), 0.1),
    });
    verdict(check(&mut compare, QUICK, &limits.collect::<Vec<_>>())?)
}

fn verdict(missed: Vec<String>) -> Result<()> {
    if missed.is_empty() {
        return Ok(());
    }
    bail!("presets cost more than they may:\n{}", missed.join("\n"));
}

/// Runs a comparison of presets, prints a line each, and returns those over their limit.
fn check(compare: &mut Command, place: &str, limits: &[(String, f64)]) -> Result<Vec<String>> {
    compare.args(limits.iter().flat_map(|(preset, _)| ["--kv", preset]));
    let comparison: Value = serde_json::from_str(&output(compare)?).context("`compare --json` is no JSON")?;
    let rows = comparison["rows"].as_array().context("`compare --json` has no rows")?;
    if rows.len() != limits.len() {
        bail!("{place}: {} rows for {} presets", rows.len(), limits.len());
    }
    let mut missed = vec![];
    for (row, (preset, most)) in rows.iter().zip(limits) {
        let spec = row["spec"].as_str().unwrap_or("?");
        if ["topk", "quest"].iter().any(|read| spec.contains(read)) {
            bail!(
                "{preset} = {spec}: what chooses what it reads does so for single tokens, and is to be scored so"
            );
        }
        let line = match row["kl_mean"].as_f64() {
            Some(kl) => format!(
                "{place}: {preset} = {spec}: KL {kl:.4} of {most}, {:.1} % of full",
                row["kv_percent"]
            ),
            None => format!("{place}: {preset} = {spec}: {}", row["error"]),
        };
        println!("{line}");
        if row["kl_mean"].as_f64().is_none_or(|kl| kl.is_nan() || kl > *most) {
            missed.push(line);
        }
    }
    Ok(missed)
}
