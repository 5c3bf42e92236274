//! The first screen: what to use at three budgets.

use super::{
    budgets::{Budget, Kept},
    command::{copyable, measure, run},
    data::{Measured, ModelResults},
    escape::escape,
    speed::beside,
};
use crate::{
    advise::UNNOTICED,
    experiments::Scored,
    format::{self, divergence},
};

/// The model's name, and a card for each of three budgets, unless nothing kept to its cap.
pub(super) fn answer(model: &ModelResults<'_>) -> String {
    let scored = model.comparable();
    let kept = Kept::of(&scored);
    let full = scored.iter().find(|s| s.of.row.spec == "full").copied();
    let cards: Vec<String> = kept.three().iter().filter_map(|budget| card(budget, &kept, full)).collect();
    let cards = if cards.is_empty() {
        String::new()
    } else {
        format!("<div class=\"answer\">{}</div>", cards.concat())
    };
    format!("<h2 id=\"{}\">What to use with {}</h2>{cards}\n", model.id("model"), escape(&model.name))
}

fn card(budget: &Budget<'_, '_>, kept: &Kept<'_, '_>, full: Option<&Measured<'_, Scored>>) -> Option<String> {
    let percent = format::trimmed(budget.percent);
    let content = match budget.best() {
        Some(best) => recommended(best, full),
        None => out_of_reach(kept.smallest()?, &percent),
    };
    Some(format!(
        "<section class=\"card\"><h3>Within {percent} % of full <small>{}</small></h3>{content}</section>",
        size(budget.bytes)
    ))
}

fn recommended(best: &Measured<'_, Scored>, full: Option<&Measured<'_, Scored>>) -> String {
    let row = &best.of.row;
    let facts = [("takes", takes(best)), ("loses", loses(best)), ("speed", speed(best, full))];
    let facts: Vec<String> =
        facts.iter().map(|(name, words)| format!("<div><dt>{name}</dt><dd>{words}</dd></div>")).collect();
    format!(
        "<p class=\"spec\"><code>{}</code></p><dl>{}</dl>{}",
        escape(&row.spec),
        facts.concat(),
        copyable(&run(best.cell))
    )
}

fn takes(best: &Measured<'_, Scored>) -> String {
    let footprint = &best.of.row.footprint;
    let asked = footprint.asked_bytes.map(|asked| format!("; asked {}", size(asked)));
    format!(
        "<strong>{}</strong>, {:.1} % of full{}",
        size(footprint.kv_bytes),
        footprint.kv_percent,
        asked.unwrap_or_default()
    )
}

fn loses(best: &Measured<'_, Scored>) -> String {
    let row = &best.of.row;
    let interval = row
        .kl_interval
        .map(|[low, high]| format!(" <small>({} to {})</small>", divergence(low), divergence(high)));
    format!(
        "<strong>{}</strong>: KL {}{}, {:.1} % of next tokens differ",
        verdict(row.kl_mean),
        divergence(row.kl_mean),
        interval.unwrap_or_default(),
        100.0 * (1.0 - row.same_top)
    )
}

/// A mean KL in words.
fn verdict(kl: f64) -> &'static str {
    match kl {
        kl if kl < UNNOTICED => "nothing to notice",
        kl if kl < 0.05 => "little",
        kl if kl < 0.3 => "noticeably",
        _ => "much",
    }
}

fn speed(best: &Measured<'_, Scored>, full: Option<&Measured<'_, Scored>>) -> String {
    let rate = format!("<strong>{} tok/s</strong>", format::rate(best.of.row.decode_tps));
    let beside = full.and_then(|full| Some((full.of.row.decode_tps, beside(best, full)?)));
    match beside {
        Some((full, times)) => format!("{rate}, {times:.2} × full’s {}", format::rate(full)),
        None => rate,
    }
}

fn out_of_reach(smallest: &Measured<'_, Scored>, percent: &str) -> String {
    format!(
        "<p>Nothing that was measured fits. The smallest, <code>{}</code>, took {:.1} %. Measure caches of this size:</p>{}",
        escape(&smallest.of.row.spec),
        smallest.of.row.footprint.kv_percent,
        copyable(&measure(smallest.cell, percent))
    )
}

fn size(bytes: usize) -> String {
    format::bytes(bytes as u64)
}
