//! Tables of caches that were scored on text.

use super::{
    data::{Measured, ModelResults},
    family::Family,
    figure::{cells, figure},
    frontier::FLOOR,
    name::named,
    speed,
    table::{Field, Table},
};
use crate::{
    Footprint,
    experiments::Scored,
    format::{self, divergence},
};

const HEADER: [&str; 14] = [
    "spec",
    "mean KL",
    "95 % interval",
    "bytes taken",
    "bytes asked",
    "same top, %",
    "ppl change, %",
    "tok/s",
    "KL 99 %",
    "ppl",
    "context",
    "evicts from",
    "peak memory",
    "kind",
];
const LOSS: usize = 1;
const TAKEN: usize = 3;
const CONTEXT: usize = 10;

/// All caches that can be compared with each other, by the bytes they took.
pub(super) fn comparison(model: &ModelResults<'_>) -> String {
    let words = "Press a column's head to sort by it. KL and changes are against the uncompressed f32 cache; intervals \
                 are by bootstrap over documents, or over blocks of 64 tokens where documents are few.";
    section(model, "comparison", "All caches, all numbers", words, &model.comparable(), TAKEN)
}

/// The full cache over lengths.
pub(super) fn baseline(model: &ModelResults<'_>) -> String {
    let words = "The yardstick: nothing is compressed but to f16.";
    section(
        model,
        "baseline",
        "The full cache over lengths",
        words,
        &of_experiment(model, "baseline"),
        CONTEXT,
    )
}

/// The grid of sketches, by loss.
pub(super) fn grid(model: &ModelResults<'_>) -> String {
    let words =
        "The original's grid, or the one given in a file, on few documents: it shows the shape of a surface.";
    section(model, "grid", "Sketch width, depth and exact slots", words, &of_experiment(model, "grid"), LOSS)
}

fn of_experiment<'m, 'r>(model: &'m ModelResults<'r>, experiment: &str) -> Vec<&'m Measured<'r, Scored>> {
    model.scored.iter().filter(|s| s.cell.cell.experiment == experiment).collect()
}

fn section(
    model: &ModelResults<'_>,
    part: &str,
    heading: &str,
    words: &str,
    scored: &[&Measured<'_, Scored>],
    sorted_by: usize,
) -> String {
    if scored.is_empty() {
        return String::new();
    }
    let bars = Bars::of(scored);
    let caption = format!("{heading}: {} rows, by {}", scored.len(), HEADER[sorted_by]);
    let table = Table {
        caption: &caption,
        header: HEADER.to_vec(),
        sorted_by: Some(sorted_by),
        rows: scored.iter().map(|s| bars.row(s)).collect(),
    };
    let words = format!("{words} {} Bars of KL are by ratio, from {FLOOR}.", speed::how(scored));
    figure(model, part, heading, &words, &table.html(), &cells(scored.iter().copied()))
}

/// What the longest bar of a column stands for.
struct Bars {
    loss: f64,
    bytes: f64,
    rate: f64,
}

impl Bars {
    fn of(scored: &[&Measured<'_, Scored>]) -> Self {
        let most = |of: fn(&Scored) -> f64| scored.iter().map(|s| of(&s.of)).fold(0.0, f64::max);
        Bars {
            loss: most(|s| s.row.kl_mean).max(10.0 * FLOOR),
            bytes: most(|s| s.row.footprint.kv_bytes as f64),
            rate: most(|s| s.row.decode_tps),
        }
    }

    fn row(&self, scored: &Measured<'_, Scored>) -> Vec<Field> {
        let (row, context) = (&scored.of.row, scored.cell.cell.context);
        let loss = (row.kl_mean / FLOOR).max(1.0).ln() / (self.loss / FLOOR).ln();
        let interval = row.kl_interval.map_or_else(Field::none, |[low, high]| {
            Field::text(format!("{} – {}", divergence(low), divergence(high)))
        });
        vec![
            Field::html(named(&row.spec, &row.footprint)),
            Field::number(row.kl_mean, divergence(row.kl_mean)).with_bar(loss),
            interval,
            taken(&row.footprint).with_bar(row.footprint.kv_bytes as f64 / self.bytes),
            asked(&row.footprint),
            Field::number(row.same_top, format!("{:.1}", 100.0 * row.same_top)),
            Field::number(row.ppl_change, format!("{:+.1}", 100.0 * row.ppl_change)),
            Field::number(row.decode_tps, format::rate(row.decode_tps)).with_bar(row.decode_tps / self.rate),
            Field::number(row.divergence.kl_at.p99, divergence(row.divergence.kl_at.p99)),
            Field::number(row.ppl, format!("{:.2}", row.ppl)),
            Field::number(context as f64, context.to_string()),
            row.binds_at.map_or_else(Field::none, |at| Field::number(at as f64, at.to_string())),
            Field::number(row.peak_rss_bytes as f64, format::bytes(row.peak_rss_bytes)),
            Field::text(Family::of(&row.spec).words()),
        ]
    }
}

fn taken(footprint: &Footprint) -> Field {
    let (bytes, percent) = (footprint.kv_bytes, footprint.kv_percent);
    Field::number(bytes as f64, format!("{} ({percent:.1} %)", format::bytes(bytes as u64)))
}

fn asked(footprint: &Footprint) -> Field {
    footprint.asked_bytes.zip(footprint.asked_percent).map_or_else(Field::none, |(bytes, percent)| {
        let shown = format!("{} ({} %)", format::bytes(bytes as u64), format::trimmed(percent));
        Field::number(bytes as f64, shown)
    })
}
