use super::{
    budgets::{Budget, Kept},
    data::{Measured, ModelResults},
    escape::escape,
    family::Family,
    speed,
};
use crate::{experiments::Scored, format, metrics::paired_bootstrap};
use std::{collections::BTreeMap, fmt::Write};

/// What the answer rests on, in plain words: every budget that was measured, ties, controls, and what says nothing.
pub(super) fn summary(model: &ModelResults<'_>) -> String {
    let scored = model.comparable();
    format!(
        "<section class=\"summary\"><h3>What that rests on</h3>{}{}{}</section>\n",
        measured_on(&scored),
        findings(model, &scored),
        missed(&scored)
    )
}

fn measured_on(scored: &[&Measured<'_, Scored>]) -> String {
    let Some(full) = scored.iter().find(|s| s.of.row.spec == "full") else { return String::new() };
    let cell = &full.cell.cell;
    format!(
        "<p>Uncompressed, its cache takes <strong>{}</strong> for {} tokens and decodes {} tokens a second. Measured on {} \
         tokens of {}. Losses are mean KL divergences in nats from the uncompressed cache on the same tokens, with intervals \
         of 95 %. {}</p>",
        format::bytes(full.of.row.footprint.kv_bytes as u64),
        cell.context,
        format::rate(full.of.row.decode_tps),
        full.of.scored_tokens,
        escape(&cell.text),
        escape(&speed::how(scored))
    )
}

fn findings(model: &ModelResults<'_>, scored: &[&Measured<'_, Scored>]) -> String {
    let free = nearly_free(scored)
        .map(|free| format!("<strong>Before evicting anything:</strong> {}.", taken_and_lost(free)));
    let budgets = Kept::of(scored).asked();
    let lines = free.into_iter().chain(budgets.iter().filter_map(at_budget)).chain(failing_tasks(model));
    let items: Vec<String> = lines.map(|line| format!("<li>{line}</li>")).collect();
    if items.is_empty() {
        return "<p>There are too few comparable results for advice: run <code>sketchkv experiment compare</code>.</p>".into();
    }
    format!("<ul>{}</ul>", items.concat())
}

fn missed(scored: &[&Measured<'_, Scored>]) -> String {
    let missed = scored.iter().filter(|s| s.of.row.footprint.missed()).count();
    if missed == 0 {
        return String::new();
    }
    format!(
        "<p>{missed} of {} caches took over 2 % more than they were asked to, because they need more than that of so short a \
         text. They are marked below, and nothing above speaks of them.</p>",
        scored.len()
    )
}

fn code(scored: &Measured<'_, Scored>) -> String {
    format!("<code>{}</code>", escape(&scored.of.row.spec))
}

fn taken_and_lost(scored: &Measured<'_, Scored>) -> String {
    let row = &scored.of.row;
    format!(
        "{} took {:.1} % of the bytes, and changes perplexity by {:+.1} % and the most probable next token in {:.1} % of \
         places (mean KL {})",
        code(scored),
        row.footprint.kv_percent,
        100.0 * row.ppl_change,
        100.0 * (1.0 - row.same_top),
        format::divergence(row.kl_mean)
    )
}

/// The smallest cache of all tokens that loses next to nothing.
fn nearly_free<'a, 'b>(scored: &[&'a Measured<'b, Scored>]) -> Option<&'a Measured<'b, Scored>> {
    scored
        .iter()
        .filter(|s| !s.of.row.spec.contains('@') && s.of.row.spec != "full" && s.of.row.kl_mean < 0.02)
        .min_by_key(|s| s.of.row.footprint.kv_bytes)
        .copied()
}

/// The best cache within a budget, what it ties with, and what a window within it loses.
fn at_budget(budget: &Budget<'_, '_>) -> Option<String> {
    let Budget { bytes, percent, within } = budget;
    let best = budget.best()?;
    let others = || within.iter().filter(|other| other.of.row.spec != best.of.row.spec);
    others().next()?;
    let ties: Vec<String> = others()
        .filter(|other| {
            paired_bootstrap(&other.of.units, &best.of.units, best.cell.cell.seed).is_some_and(|d| d.is_tie())
        })
        .map(|other| code(other))
        .collect();
    let mut line = format!(
        "<strong>At {} % of full ({}):</strong> {}",
        format::trimmed(*percent),
        format::bytes(*bytes as u64),
        taken_and_lost(best)
    );
    if !ties.is_empty() {
        let _ = write!(line, "; a tie with {}", ties.join(", "));
    }
    // The largest window: a smaller one within the budget would be held against fewer bytes.
    let window = others()
        .filter(|c| Family::of(&c.of.row.spec) == Family::Control && c.of.row.spec.starts_with("window"))
        .max_by_key(|c| c.of.row.footprint.kv_bytes);
    if let Some(window) = window {
        let ratio = window.of.row.kl_mean / best.of.row.kl_mean.max(1e-9);
        let _ =
            write!(line, ". A plain sliding window that took {:.1} % ", window.of.row.footprint.kv_percent);
        let _ = match ratio {
            r if r > 1.05 => write!(line, "diverges {r:.1} times as much"),
            _ => write!(line, "does no worse"),
        };
    }
    Some(line + ".")
}

fn failing_tasks(model: &ModelResults<'_>) -> Option<String> {
    let mut scores: BTreeMap<String, (f64, usize)> = BTreeMap::new();
    for task in model.tasks.iter().filter(|task| task.cell.cell.spec == "full") {
        let entry = scores.entry(task.cell.setting("task")).or_default();
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
