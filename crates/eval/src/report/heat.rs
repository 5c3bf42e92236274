use super::{
    data::{Measured, ModelResults, escape, specs_of},
    figures::figure,
};
use crate::{Footprint, experiments::TaskMeasured, format::divergence, results::Finished};
use std::{collections::BTreeSet, fmt::Write};

/// A table of coloured cells; colour says again what the number in the cell says.
pub(super) struct HeatMap<'a> {
    pub(super) caption: &'a str,
    pub(super) row_title: &'a str,
    pub(super) column_title: &'a str,
    pub(super) rows: Vec<String>,
    pub(super) columns: Vec<String>,
    /// `[row][column]`: how the cell is written, and its goodness from 0 to 1.
    pub(super) cells: Vec<Vec<Option<(String, f64)>>>,
}

impl HeatMap<'_> {
    pub(super) fn html(&self) -> String {
        let mut html = format!(
            "<table class=\"heat\"><caption>{}</caption><thead><tr><th scope=\"col\">{} \\ {}</th>",
            escape(self.caption),
            self.row_title,
            self.column_title
        );
        for column in &self.columns {
            let _ = write!(html, "<th scope=\"col\">{column}</th>");
        }
        html.push_str("</tr></thead><tbody>");
        for (name, cells) in self.rows.iter().zip(&self.cells) {
            let _ = write!(html, "<tr><th scope=\"row\">{name}</th>");
            for cell in cells {
                let _ = match cell {
                    Some((text, goodness)) => {
                        // Five shades, from the worst to the best.
                        let shade = (goodness.clamp(0.0, 1.0) * 4.0).round();
                        write!(html, "<td class=\"shade{shade:.0}\">{text}</td>")
                    }
                    None => write!(html, "<td>–</td>"),
                };
            }
            html.push_str("</tr>");
        }
        html + "</tbody></table>"
    }
}

/// Depth × length of the single needle, one map a cache.
pub(super) fn needles(model: &ModelResults<'_>) -> String {
    let needles: Vec<&Measured<'_, TaskMeasured>> = model
        .tasks
        .iter()
        .filter(|task| {
            task.cell.setting("task") == "niah_single" && task.cell.setting("awareness") == "agnostic"
        })
        .collect();
    if needles.is_empty() {
        return String::new();
    }
    let lengths: BTreeSet<usize> = needles.iter().map(|task| task.cell.cell.context).collect();
    let mut depths: Vec<String> = needles.iter().map(|task| task.cell.setting("depth")).collect();
    depths.sort_by(|a, b| a.parse::<f64>().unwrap_or(0.0).total_cmp(&b.parse().unwrap_or(0.0)));
    depths.dedup();
    let specs = specs_of(needles.iter().map(|task| task.cell));
    let score = |spec: &str, length: usize, depth: &str| {
        let found: Vec<f64> = needles
            .iter()
            .filter(|task| task.cell.cell.spec == spec && task.cell.cell.context == length)
            .filter(|task| task.cell.setting("depth") == depth)
            .map(|task| task.of.score)
            .collect();
        (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
    };
    let maps: Vec<String> = specs
        .iter()
        .map(|spec| {
            let cell = |depth: &String, length: usize| {
                let score = score(spec, length, depth)?;
                // What the model cannot do with all its cache says nothing about a smaller one.
                let able =
                    *spec == "full" || score_of_full(&needles, length, depth).is_none_or(|full| full >= 0.5);
                let mark = if able { "" } else { "*" };
                Some((format!("{:.0}{mark}", 100.0 * score), score))
            };
            let of_spec = needles.iter().filter(|task| task.cell.cell.spec == **spec);
            HeatMap {
                caption: &caption(spec, of_spec.map(|task| &task.of.footprint)),
                row_title: "depth",
                column_title: "tokens",
                rows: depths
                    .iter()
                    .map(|d| format!("{:.0} %", 100.0 * d.parse::<f64>().unwrap_or(0.0)))
                    .collect(),
                columns: lengths.iter().map(usize::to_string).collect(),
                cells: depths.iter().map(|d| lengths.iter().map(|&l| cell(d, l)).collect()).collect(),
            }
            .html()
        })
        .collect();
    let cells: Vec<&Finished> = needles.iter().map(|task| task.cell).collect();
    let words = "A fact is hidden at a depth of a text and asked for after it; the number is the share found, in percent. \
                 Where a number bears a star, the model fails with its whole cache too, so it says nothing about the \
                 method.";
    figure(
        "needles",
        "Needles in a haystack",
        words,
        &format!("<div class=\"maps\">{}</div>", maps.concat()),
        &cells,
    )
}

/// Layer × query head of the divergence of attention, one map a cache.
pub(super) fn attention(model: &ModelResults<'_>) -> String {
    if model.attention.is_empty() {
        return String::new();
    }
    let maps: Vec<String> = specs_of(model.attention.iter().map(|one| one.cell))
        .iter()
        .filter_map(|spec| model.attention.iter().find(|one| one.cell.cell.spec == *spec))
        .map(|one| {
            let of = &one.of;
            let caption = format!(
                "{}: KL {}, cosine {:.3}, {:.0} % of the top 64 found",
                caption(&one.cell.cell.spec, [&of.footprint].into_iter()),
                divergence(of.mean.kl),
                of.mean.cosine,
                100.0 * of.mean.topk_recall
            );
            // From a divergence of 1 nat, the worst shade, to 0.001.
            let goodness = |kl: f64| -kl.max(1e-9).log10() / 3.0;
            let cell = |&kl: &f64| Some((divergence(kl), goodness(kl)));
            HeatMap {
                caption: &caption,
                row_title: "layer",
                column_title: "head",
                rows: (0..of.kl.len()).map(|layer| layer.to_string()).collect(),
                columns: (0..of.kl.first().map_or(0, Vec::len)).map(|head| head.to_string()).collect(),
                cells: of.kl.iter().map(|heads| heads.iter().map(cell).collect()).collect(),
            }
            .html()
        })
        .collect();
    let cells: Vec<&Finished> = model.attention.iter().map(|one| one.cell).collect();
    let words = "KL divergence of each query head's attention weights from those of an uncompressed f32 cache on the same \
                 text, mean over single-token steps. Weight that a tail or an estimate holds counts as spread evenly over \
                 the positions it stands for; a position that has none counts as 1e-10, about 23 nats times the mass lost.";
    figure(
        "attention",
        "Attention, layer by layer",
        words,
        &format!("<div class=\"maps\">{}</div>", maps.concat()),
        &cells,
    )
}

/// A spec and, where one of its caches missed its cap, by how much the worst did.
fn caption<'a>(spec: &str, footprints: impl Iterator<Item = &'a Footprint>) -> String {
    let missed = footprints.filter(|footprint| footprint.missed());
    let worst = missed.max_by(|a, b| a.kv_percent.total_cmp(&b.kv_percent)).and_then(Footprint::mark);
    worst.map_or_else(|| spec.to_owned(), |mark| format!("{spec} ({mark})"))
}

fn score_of_full(needles: &[&Measured<'_, TaskMeasured>], length: usize, depth: &str) -> Option<f64> {
    let full = needles.iter().find(|task| {
        let cell = &task.cell.cell;
        cell.spec == "full" && cell.context == length && task.cell.setting("depth") == depth
    });
    full.map(|task| task.of.score)
}
