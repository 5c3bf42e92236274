use super::data::{Family, Measured, ModelResults, bytes, escape, nats};
use crate::{experiments::Scored, metrics::paired_bootstrap};
use std::{collections::BTreeMap, fmt::Write};

/// The answer in plain words: what to use at which budget, and what is lost.
pub(super) fn section(model: &ModelResults<'_>) -> String {
    let scored = model.comparable();
    let mut html = format!("<h2>{}</h2>\n<section class=\"summary\">", escape(&model.name));
    let full = scored.iter().find(|s| s.of.row.spec == "full");
    if let (Some(full), Some(first)) = (full, scored.first()) {
        let cell = &first.cell.cell;
        let _ = write!(
            html,
            "<p>Uncompressed, its cache takes <strong>{}</strong> for {} tokens and decodes {:.0} tokens a second. \
             Measured on {} tokens of {}; every loss below is against the uncompressed cache on the same tokens.</p>",
            bytes(full.of.row.kv_bytes as f64),
            cell.context,
            full.of.row.decode_tps,
            full.of.scored_tokens,
            escape(&cell.text)
        );
    }
    let mut lines = Vec::new();
    if let Some(free) = nearly_free(&scored) {
        lines.push(format!(
            "<strong>Before evicting anything:</strong> {} takes {:.0} % of the bytes and {}.",
            code(free),
            free.of.row.kv_percent,
            loss(free)
        ));
    }
    let mut budgets: BTreeMap<&str, Vec<&Measured<'_, Scored>>> = BTreeMap::new();
    for one in &scored {
        if let Some((_, cap)) = one.of.row.spec.rsplit_once('@') {
            budgets.entry(cap).or_default().push(one);
        }
    }
    let mut budgets: Vec<_> = budgets.into_iter().filter(|(_, caches)| caches.len() > 1).collect();
    budgets.sort_by_key(|(_, caches)| std::cmp::Reverse(caches.iter().map(|c| c.of.row.kv_bytes).max()));
    lines.extend(budgets.iter().filter_map(|(cap, caches)| at_budget(cap, caches)));
    if let Some(line) = failing_tasks(model) {
        lines.push(line);
    }
    if lines.is_empty() {
        html.push_str("<p>There are too few comparable results for advice: run <code>sketchkv experiment compare</code>.</p>");
    } else {
        let items: Vec<String> = lines.into_iter().map(|line| format!("<li>{line}</li>")).collect();
        let _ = write!(html, "<ul>{}</ul>", items.concat());
    }
    html + "</section>\n"
}

fn code(scored: &Measured<'_, Scored>) -> String {
    format!("<code>{}</code>", escape(&scored.of.row.spec))
}

fn loss(scored: &Measured<'_, Scored>) -> String {
    let row = &scored.of.row;
    format!(
        "changes perplexity by {:+.1} % and the most probable next token in {:.1} % of places (mean KL {})",
        100.0 * row.ppl_change,
        100.0 * (1.0 - row.same_top),
        nats(row.kl_mean)
    )
}

/// The smallest cache of all tokens that loses next to nothing.
fn nearly_free<'a, 'b>(scored: &[&'a Measured<'b, Scored>]) -> Option<&'a Measured<'b, Scored>> {
    scored
        .iter()
        .filter(|s| !s.of.row.spec.contains('@') && s.of.row.spec != "full" && s.of.row.kl_mean < 0.02)
        .min_by_key(|s| s.of.row.kv_bytes)
        .copied()
}

fn at_budget(cap: &str, caches: &[&Measured<'_, Scored>]) -> Option<String> {
    let by_kl = |a: &&&Measured<'_, Scored>, b: &&&Measured<'_, Scored>| {
        a.of.row.kl_mean.total_cmp(&b.of.row.kl_mean)
    };
    let best = caches.iter().min_by(by_kl)?;
    let ties: Vec<String> = caches
        .iter()
        .filter(|other| other.of.row.spec != best.of.row.spec)
        .filter(|other| {
            paired_bootstrap(&other.of.units, &best.of.units, best.cell.cell.seed).is_some_and(|d| d.is_tie())
        })
        .map(|other| code(other))
        .collect();
    let mut line = format!("<strong>At {}:</strong> {} {}", escape(cap), code(best), loss(best));
    if !ties.is_empty() {
        let _ = write!(line, "; a tie with {}", ties.join(", "));
    }
    let worst_control = caches
        .iter()
        .filter(|c| Family::of(&c.of.row.spec) == Family::Control && c.of.row.spec.starts_with("window"))
        .find(|c| c.of.row.spec != best.of.row.spec);
    if let Some(window) = worst_control {
        let ratio = window.of.row.kl_mean / best.of.row.kl_mean.max(1e-9);
        let _ = match ratio {
            r if r > 1.05 => {
                write!(line, ". A plain sliding window of the same bytes diverges {r:.1} times as much")
            }
            _ => write!(line, ". A plain sliding window of the same bytes does no worse"),
        };
    }
    Some(line + ".")
}

fn failing_tasks(model: &ModelResults<'_>) -> Option<String> {
    let mut scores: BTreeMap<String, (f64, usize)> = BTreeMap::new();
    for task in model.tasks.iter().filter(|task| task.cell.cell.spec == "full") {
        let entry = scores.entry(super::data::setting(task.cell, "task")).or_default();
        entry.0 += task.of.score;
        entry.1 += 1;
    }
    let failed: Vec<String> = scores
        .iter()
        .filter(|(_, (sum, count))| sum / (*count as f64) < 0.5)
        .map(|(name, _)| name.replace('_', " "))
        .collect();
    (!failed.is_empty()).then(|| {
        format!(
            "<strong>Tasks that say nothing here:</strong> with its whole cache the model fails at {}.",
            failed.join(", ")
        )
    })
}
