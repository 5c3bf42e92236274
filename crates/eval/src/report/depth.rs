//! What a token costs by how many came before it: time and bytes.

use super::{
    data::ModelResults,
    escape::escape,
    figure::{cells, figure},
    frontier::BYTES,
    name::typed,
    plot::{Axis, Plot, Point, Series},
};
use crate::{experiments::SpeedPoint, format, results::Finished};

const DEPTH: Axis =
    Axis { title: "tokens in context", log: Some(2.0), tick: |depth| format::count(depth as u64) };
const TIME: Axis = Axis { title: "a token, ms", log: None, tick: |ms| format::trimmed(ms) };

/// Time of a decoded token against depth.
pub(super) fn cost(model: &ModelResults<'_>) -> String {
    let words = |first: &Finished, threads: usize| {
        format!(
            "Median time of a single-token step, by how many tokens came before. Lower is better; a flat line means that a \
             longer context costs nothing. These are runs of their own, without scoring, so they need not agree with the \
             speeds of the table. {threads} threads on {}.",
            escape(&first.machine.cpu)
        )
    };
    over_depth(model, "cost", "What a token costs", &TIME, words, |point| point.latency.median_ms)
}

/// Bytes of the cache against depth.
pub(super) fn memory(model: &ModelResults<'_>) -> String {
    let words = |_: &Finished, _| {
        "Everything counted: keys, values, scales, scores, positions, sketches, tails, tables and slack. A cap in tokens or \
         bytes is a flat line."
            .to_owned()
    };
    over_depth(model, "memory", "What a context takes", &BYTES, words, |point| {
        point.footprint.kv_bytes as f64
    })
}

fn over_depth(
    model: &ModelResults<'_>,
    part: &str,
    heading: &str,
    y: &Axis,
    words: impl Fn(&Finished, usize) -> String,
    value: fn(&SpeedPoint) -> f64,
) -> String {
    let Some(first) = model.speed.first() else { return String::new() };
    let series: Vec<Series> = model
        .speed
        .iter()
        .enumerate()
        .map(|(i, speed)| {
            let name = typed(&speed.cell.cell);
            Series {
                // Eight colours; then they come again, broken.
                class: format!("line{}{}", i % 8, if i % 16 < 8 { "" } else { " broken" }),
                points: speed.of.points.iter().map(|p| point(&name, p, value(p))).collect(),
                line: true,
                label: Some(name),
                hollow: false,
            }
        })
        .collect();
    let about = format!(
        "{heading}: {} against context length for {}. At the longest: {}.",
        y.title,
        model.name,
        last_values(&series, y)
    );
    let plot = Plot { x: &DEPTH, y, series: &series, steps: &[], about: &about };
    figure(model, part, heading, &words(first.cell, first.of.threads), &plot.html(), &cells(&model.speed))
}

fn point(name: &str, point: &SpeedPoint, y: f64) -> Point {
    let mark = point.footprint.mark().map(|mark| format!(" ({mark})")).unwrap_or_default();
    let title = format!(
        "{name} at {} tokens: median {:.2} ms, p95 {:.2} ms, {}{mark}",
        point.depth,
        point.latency.median_ms,
        point.latency.p95_ms,
        format::bytes(point.footprint.kv_bytes as u64),
    );
    Point { x: point.depth as f64, y, interval: None, title }
}

fn last_values(series: &[Series], y: &Axis) -> String {
    let last = |s: &Series| Some(format!("{} {}", s.label.as_ref()?, (y.tick)(s.points.last()?.y)));
    series.iter().filter_map(last).collect::<Vec<_>>().join(", ")
}
