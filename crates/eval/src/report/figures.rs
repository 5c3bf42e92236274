use super::{
    data::{Family, Measured, ModelResults, escape, frontier as frontier_of, named, tick_nats},
    plot::{Axis, Point, Series, plot},
};
use crate::{
    experiments::Scored,
    format::{self, divergence},
    results::Finished,
};

/// Below this a divergence is rounding, and is drawn here.
const FLOOR: f64 = 1e-6;

const BYTES: Axis = Axis { title: "KV cache", log: Some(2.0), tick: |value| bytes(value as usize) };
const DEPTH: Axis = Axis { title: "tokens in context", log: Some(2.0), tick: |depth| format!("{depth:.0}") };

fn bytes(bytes: usize) -> String {
    format::bytes(bytes as u64)
}

/// A figure with its words and the command that made it.
pub(super) fn figure(id: &str, heading: &str, words: &str, content: &str, cells: &[&Finished]) -> String {
    let mut commands: Vec<&str> = cells.iter().map(|cell| cell.command.as_str()).collect();
    commands.sort_unstable();
    commands.dedup();
    let made: Vec<String> = commands
        .iter()
        .filter(|command| !command.is_empty())
        .map(|command| format!("<code>{}</code>", escape(command)))
        .collect();
    format!(
        "<figure id=\"{id}\"><h3>{heading}</h3><p>{words}</p><div class=\"scroll\" tabindex=\"0\" role=\"group\" \
         aria-label=\"{heading}\">{content}</div><figcaption>Made by {}</figcaption></figure>\n",
        if made.is_empty() { "an unknown command".to_owned() } else { made.join("<br>") }
    )
}

fn describe(scored: &Measured<'_, Scored>) -> String {
    let row = &scored.of.row;
    format!(
        "{}{}\n{} ({:.1} % of full), KL {}, perplexity {:+.1} %, same top {:.1} %, {:.0} tokens/s",
        row.spec,
        row.footprint.mark().map(|mark| format!(" ({mark})")).unwrap_or_default(),
        bytes(row.footprint.kv_bytes),
        row.footprint.kv_percent,
        divergence(row.kl_mean),
        100.0 * row.ppl_change,
        100.0 * row.same_top,
        row.decode_tps
    )
}

/// Bytes against KL, both by ratio; controls are hollow squares. Names would lie on marks: controls and what nothing beats
/// have a number, by bytes, and a key.
pub(super) fn frontier(model: &ModelResults<'_>) -> String {
    let scored = model.comparable();
    if scored.len() < 2 {
        return String::new();
    }
    let point = |s: &Measured<'_, Scored>| (s.of.row.footprint.kv_bytes as f64, s.of.row.kl_mean.max(FLOOR));
    let points: Vec<(f64, f64)> = scored.iter().map(|s| point(s)).collect();
    // What missed its cap stands where its bytes are, and is part of no frontier.
    let kept: Vec<usize> = (0..scored.len()).filter(|&i| !scored[i].of.row.footprint.missed()).collect();
    let best = frontier_of(&kept.iter().map(|&i| points[i]).collect::<Vec<_>>());
    let best: Vec<usize> = best.into_iter().map(|i| kept[i]).collect();
    let is_control = |i: usize| Family::of(&scored[i].of.row.spec) == Family::Control;
    let mut numbered: Vec<usize> =
        (0..scored.len()).filter(|&i| best.contains(&i) || is_control(i)).collect();
    numbered.sort_by(|&a, &b| points[a].0.total_cmp(&points[b].0));
    let series: Vec<Series> = scored
        .iter()
        .enumerate()
        .map(|(i, s)| Series {
            class: Family::of(&s.of.row.spec).class().to_owned(),
            points: vec![Point { x: points[i].0, y: points[i].1, title: describe(s) }],
            line: false,
            label: numbered.iter().position(|&numbered| numbered == i).map(|at| (at + 1).to_string()),
            hollow: is_control(i),
        })
        .collect();
    let steps: Vec<(f64, f64)> = best.iter().map(|&i| points[i]).collect();
    let y = Axis { title: "mean KL divergence, nats", log: Some(10.0), tick: tick_nats };
    let cell = &scored[0].cell.cell;
    let about = format!(
        "Mean KL divergence against bytes of the KV cache, {} caches of {}",
        scored.len(),
        model.name
    );
    let words = format!(
        "Down and to the left is better. Each mark is a cache on the same {} scored tokens of {} at {} tokens of \
         context, by the bytes it took; the line joins those that no other beats in both and that kept to their caps. They \
         have numbers, as have the controls, the hollow squares. Divergences below {FLOOR:.0e} are drawn there.",
        scored[0].of.scored_tokens,
        escape(&cell.text),
        cell.context,
    );
    let cells: Vec<&Finished> = scored.iter().map(|s| s.cell).collect();
    let key: String = numbered
        .iter()
        .map(|&i| {
            let row = &scored[i].of.row;
            let (size, kl) = (bytes(row.footprint.kv_bytes), divergence(row.kl_mean));
            let name = named(&row.spec, &row.footprint);
            format!("<li>{name} {size}, {:.1} %, KL {kl}</li>", row.footprint.kv_percent)
        })
        .collect();
    let content =
        plot(&BYTES, &y, &series, &steps, &about) + &legend() + &format!("<ol class=\"key\">{key}</ol>");
    figure("frontier", "What a byte buys", &words, &content, &cells)
}

fn legend() -> String {
    let entries: Vec<String> = Family::ALL
        .iter()
        .map(|family| {
            let class = family.class();
            let mark = if *family == Family::Control {
                "<rect x=\"2\" y=\"2\" width=\"10\" height=\"10\"/>"
            } else {
                "<circle cx=\"7\" cy=\"7\" r=\"5\"/>"
            };
            let hollow = if *family == Family::Control { " hollow" } else { "" };
            format!(
                "<li><svg width=\"14\" height=\"14\" aria-hidden=\"true\"><g class=\"{class}{hollow}\">{mark}</g></svg> {}</li>",
                family.words()
            )
        })
        .collect();
    format!("<ul class=\"legend\">{}</ul>", entries.concat())
}

fn over_depth(model: &ModelResults<'_>, y: fn(&crate::experiments::SpeedPoint) -> f64) -> Vec<Series> {
    let mut series: Vec<Series> = model
        .speed
        .iter()
        .enumerate()
        .map(|(i, speed)| Series {
            class: format!("line{}", i % 8),
            points: speed
                .of
                .points
                .iter()
                .map(|point| Point {
                    x: point.depth as f64,
                    y: y(point),
                    title: format!(
                        "{} at {} tokens: {:.1} tokens/s, median {:.2} ms, p95 {:.2} ms, {}{}",
                        speed.cell.cell.spec,
                        point.depth,
                        point.latency.tokens_per_second,
                        point.latency.median_ms,
                        point.latency.p95_ms,
                        bytes(point.footprint.kv_bytes),
                        point.footprint.mark().map(|mark| format!(" ({mark})")).unwrap_or_default()
                    ),
                })
                .collect(),
            line: true,
            label: Some(speed.cell.cell.spec.clone()),
            hollow: false,
        })
        .collect();
    // Labels are placed from the top down.
    let last = |s: &Series| s.points.last().map_or(0.0, |p| p.y);
    series.sort_by(|a, b| last(b).total_cmp(&last(a)));
    series
}

/// Decode speed against depth.
pub(super) fn speed(model: &ModelResults<'_>) -> String {
    if model.speed.is_empty() {
        return String::new();
    }
    let series = over_depth(model, |point| 1e3 / point.latency.median_ms);
    let y = Axis { title: "decode, tokens per second", log: None, tick: |rate| format!("{rate:.0}") };
    let machine = &model.speed[0].cell.machine;
    let words = format!(
        "One over the median time of a single-token step, by how many tokens came before. Higher is better; a flat \
         line means that a longer context costs nothing. {} threads on {}.",
        model.speed[0].of.threads,
        escape(&machine.cpu)
    );
    let about = format!("Decode speed against context length for {} caches of {}", series.len(), model.name);
    let cells: Vec<&Finished> = model.speed.iter().map(|s| s.cell).collect();
    figure("speed", "Speed against depth", &words, &plot(&DEPTH, &y, &series, &[], &about), &cells)
}

/// Bytes of the cache against depth.
pub(super) fn memory(model: &ModelResults<'_>) -> String {
    if model.speed.is_empty() {
        return String::new();
    }
    let series = over_depth(model, |point| point.footprint.kv_bytes as f64);
    let words = "Everything counted: keys, values, scales, scores, positions, sketches, tails, tables and slack. A cap \
                 in tokens or bytes is a flat line.";
    let about =
        format!("Bytes of the KV cache against context length for {} caches of {}", series.len(), model.name);
    let cells: Vec<&Finished> = model.speed.iter().map(|s| s.cell).collect();
    figure("memory", "Memory against length", words, &plot(&DEPTH, &BYTES, &series, &[], &about), &cells)
}
