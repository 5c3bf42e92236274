use super::{
    data::{Family, Measured, ModelResults, escape, named, specs_of},
    figures::figure,
};
use crate::{
    experiments::{Scored, TaskMeasured},
    format::{self, divergence},
    results::{Finished, State, failures},
};
use std::collections::BTreeMap;

/// A cell of a table: what is shown, and the number it is sorted by.
struct Field(String, Option<f64>);

fn text(text: impl Into<String>) -> Field {
    Field(escape(&text.into()), None)
}

fn number(value: f64, shown: String) -> Field {
    Field(shown, Some(value))
}

/// A table whose columns sort when their heads are pressed.
fn table(caption: &str, header: &[&str], rows: Vec<Vec<Field>>) -> String {
    let heads: Vec<String> = header
        .iter()
        .map(|name| format!("<th scope=\"col\"><button type=\"button\">{name}</button></th>"))
        .collect();
    let body: Vec<String> = rows
        .into_iter()
        .map(|row| {
            let fields: Vec<String> = row
                .into_iter()
                .map(|Field(shown, value)| match value {
                    Some(value) => format!("<td class=\"number\" data-value=\"{value}\">{shown}</td>"),
                    None => format!("<td>{shown}</td>"),
                })
                .collect();
            format!("<tr>{}</tr>", fields.concat())
        })
        .collect();
    format!(
        "<table class=\"sortable\"><caption>{caption}</caption><thead><tr>{}</tr></thead><tbody>{}</tbody></table>",
        heads.concat(),
        body.concat()
    )
}

fn scored_table(caption: &str, scored: &[&Measured<'_, Scored>]) -> String {
    let header = [
        "spec",
        "kind",
        "context",
        "KV",
        "of full, %",
        "asked, %",
        "mean KL",
        "95 % interval",
        "ppl",
        "ppl change, %",
        "same top, %",
        "KL 99 %",
        "decode tok/s",
        "evicts from",
        "peak memory",
    ];
    let rows = scored
        .iter()
        .map(|s| {
            let row = &s.of.row;
            let interval = row
                .kl_interval
                .map_or("–".into(), |[low, high]| format!("{} – {}", divergence(low), divergence(high)));
            vec![
                Field(named(&row.spec, &row.footprint), None),
                text(Family::of(&row.spec).words()),
                number(s.cell.cell.context as f64, s.cell.cell.context.to_string()),
                number(row.footprint.kv_bytes as f64, format::bytes(row.footprint.kv_bytes as u64)),
                number(row.footprint.kv_percent, format!("{:.1}", row.footprint.kv_percent)),
                row.footprint
                    .asked_percent
                    .map_or_else(|| text("–"), |asked| number(asked, format::trimmed(asked))),
                number(row.kl_mean, divergence(row.kl_mean)),
                text(interval),
                number(row.ppl, format!("{:.2}", row.ppl)),
                number(row.ppl_change, format!("{:+.1}", 100.0 * row.ppl_change)),
                number(row.same_top, format!("{:.1}", 100.0 * row.same_top)),
                number(row.divergence.kl_at.p99, divergence(row.divergence.kl_at.p99)),
                number(row.decode_tps, format!("{:.1}", row.decode_tps)),
                row.binds_at.map_or_else(|| text("–"), |at| number(at as f64, at.to_string())),
                number(row.peak_rss_bytes as f64, format::bytes(row.peak_rss_bytes)),
            ]
        })
        .collect();
    table(caption, &header, rows)
}

fn cells<'a, T>(measured: &[&Measured<'a, T>]) -> Vec<&'a Finished> {
    measured.iter().map(|m| m.cell).collect()
}

/// All caches that can be compared with each other.
pub(super) fn scored(model: &ModelResults<'_>) -> String {
    let scored = model.comparable();
    if scored.is_empty() {
        return String::new();
    }
    let words = "Press a column's head to sort by it. KL and changes are against the uncompressed f32 cache; intervals \
                 are by bootstrap over documents, or over blocks of 64 tokens where documents are few.";
    let content = scored_table("Caches on the same tokens", &scored);
    figure("comparison", "All caches, all numbers", words, &content, &cells(&scored))
}

/// The full cache over lengths.
pub(super) fn baseline(model: &ModelResults<'_>) -> String {
    by_experiment(
        model,
        "baseline",
        "The full cache over lengths",
        "The yardstick: nothing is compressed but to f16.",
    )
}

/// The grid of sketches.
pub(super) fn grid(model: &ModelResults<'_>) -> String {
    by_experiment(
        model,
        "grid",
        "Sketch width, depth and exact slots",
        "The original's grid, or the one given in a file, on few documents: it shows the shape of a surface.",
    )
}

fn by_experiment(model: &ModelResults<'_>, experiment: &str, heading: &str, words: &str) -> String {
    let scored: Vec<&Measured<'_, Scored>> =
        model.scored.iter().filter(|s| s.cell.cell.experiment == experiment).collect();
    if scored.is_empty() {
        return String::new();
    }
    figure(experiment, heading, words, &scored_table(heading, &scored), &cells(&scored))
}

/// BLEU of greedy continuations.
pub(super) fn generated(model: &ModelResults<'_>) -> String {
    if model.generated.is_empty() {
        return String::new();
    }
    let rows = model
        .generated
        .iter()
        .map(|g| {
            vec![
                Field(named(&g.cell.cell.spec, &g.of.footprint), None),
                number(g.of.bleu_uncompressed, format!("{:.1}", g.of.bleu_uncompressed)),
                number(g.of.identical as f64, format!("{} of {}", g.of.identical, g.of.samples)),
                number(g.of.bleu_reference, format!("{:.1}", g.of.bleu_reference)),
                text(g.of.example.chars().take(80).collect::<String>()),
            ]
        })
        .collect();
    let header = ["spec", "BLEU to uncompressed", "identical", "BLEU to the text", "begins"];
    let words = "Greedy continuations of the same prompts. A small change of one token changes all that follow, so a low \
                 BLEU need not mean a worse text; the same letters mean the same cache to a reader.";
    let cells: Vec<&Finished> = model.generated.iter().map(|g| g.cell).collect();
    figure("generation", "What it writes", words, &table("Continuations", &header, rows), &cells)
}

/// The tasks of one kind and length that each spec was tried on.
type BySpec<'c, 'r> = BTreeMap<&'c str, Vec<&'c Measured<'r, TaskMeasured>>>;

/// Task scores by spec, the question known before the text and not.
pub(super) fn tasks(model: &ModelResults<'_>) -> String {
    if model.tasks.is_empty() {
        return String::new();
    }
    let mut groups: BTreeMap<(String, usize, String), BySpec<'_, '_>> = BTreeMap::new();
    let specs = specs_of(model.tasks.iter().map(|task| task.cell));
    for task in &model.tasks {
        let asked = if task.cell.setting("awareness") == "aware" { "before and after" } else { "after" };
        let key = (task.cell.setting("task"), task.cell.cell.context, asked.to_owned());
        groups.entry(key).or_default().entry(&task.cell.cell.spec).or_default().push(task);
    }
    let mean = |tasks: &Vec<&Measured<'_, TaskMeasured>>| {
        tasks.iter().map(|t| t.of.score).sum::<f64>() / tasks.len() as f64
    };
    let rows = groups
        .iter()
        .map(|((name, length, asked), scores)| {
            let full = scores.get("full").map(mean);
            let failed = full.is_some_and(|full| full < 0.5);
            let mark = if failed { " (model fails)" } else { "" };
            let mut row = vec![
                text(format!("{}{mark}", name.replace('_', " "))),
                number(*length as f64, length.to_string()),
                text(asked),
            ];
            row.extend(specs.iter().map(|spec| match scores.get(spec) {
                Some(tasks) => {
                    let missed = tasks.iter().any(|task| task.of.footprint.missed());
                    let score = mean(tasks);
                    number(score, format!("{:.0}{}", 100.0 * score, if missed { " †" } else { "" }))
                }
                None => text("–"),
            }));
            row
        })
        .collect();
    let names: Vec<String> = specs.iter().map(|spec| escape(spec)).collect();
    let header: Vec<&str> =
        ["task", "tokens", "question"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let words = "Score in percent. A question that comes after the text only is what a conversation about a document is \
                 like; one that comes before it too lets a cache keep what will be asked for. A dagger marks a cache that took \
                 over 2 % more than it was asked to.";
    let cells: Vec<&Finished> = model.tasks.iter().map(|t| t.cell).collect();
    figure("tasks", "Tasks", words, &table("Task scores", &header, rows), &cells)
}

/// Where the numbers come from.
pub(super) fn provenance(cells: &[Finished]) -> String {
    let mut groups: BTreeMap<Vec<String>, (usize, f64)> = BTreeMap::new();
    for cell in cells.iter().filter(|cell| cell.state == State::Done) {
        let machine = format!("{}, {} cores", cell.machine.cpu, cell.machine.cores);
        let key = vec![
            cell.cell.model.clone(),
            cell.cell.experiment.clone(),
            cell.cell.text.clone(),
            cell.version.clone(),
            machine,
            cell.cell.model_hash.chars().take(12).collect(),
            cell.cell.text_hash.chars().take(12).collect(),
            cell.cell.seed.to_string(),
        ];
        let group = groups.entry(key).or_default();
        group.0 += 1;
        group.1 += cell.duration_s;
    }
    let rows = groups
        .into_iter()
        .map(|(key, (count, seconds))| {
            let mut row: Vec<Field> = key.into_iter().map(text).collect();
            row.push(number(count as f64, count.to_string()));
            row.push(number(seconds, format!("{:.1} min", seconds / 60.0)));
            row
        })
        .collect();
    let header = [
        "model",
        "experiment",
        "text",
        "version",
        "machine",
        "model hash",
        "text hash",
        "seed",
        "cells",
        "time",
    ];
    let failed: Vec<String> = failures(cells)
        .iter()
        .map(|failure| format!("<li><code>{}</code>: {}</li>", escape(&failure.spec), escape(&failure.error)))
        .collect();
    let failures = if failed.is_empty() {
        String::new()
    } else {
        format!("<h3>Could not be measured</h3><ul>{}</ul>", failed.concat())
    };
    format!(
        "<h2>Where the numbers come from</h2><div class=\"scroll\" tabindex=\"0\" role=\"group\" \
         aria-label=\"Where the numbers come from\">{}</div>{failures}",
        table("Runs", &header, rows)
    )
}
