use super::{
    data::{Measured, ModelResults, largest, specs_of},
    figure::{cells, figure, scrolled},
    heat::{Group, Heat, HeatMap},
    name::{named, typed},
};
use crate::{experiments::TaskMeasured, format};
use std::collections::BTreeSet;

const HEADING: &str = "Needles in a haystack";

type Needle<'r> = Measured<'r, TaskMeasured>;

/// Whether a fact is found, by its depth and by what the cache was asked to take: one map a length.
pub(super) fn needles(model: &ModelResults<'_>) -> String {
    let needles: Vec<&Needle<'_>> = model
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
    let maps: Vec<String> = lengths.iter().map(|&length| map(&needles, length)).collect();
    let words = "A fact is hidden at a depth of a text and asked for after it; the number is the share found, in percent. \
                 Where a number bears a star, the model fails with its whole cache too, so it says nothing about the \
                 method.";
    let content = scrolled(HEADING, &format!("<div class=\"maps\">{}</div>", maps.concat()));
    figure(model, "needles", HEADING, words, &content, &cells(needles.iter().copied()))
}

fn map(all: &[&Needle<'_>], length: usize) -> String {
    let needles: Vec<&Needle<'_>> =
        all.iter().copied().filter(|task| task.cell.cell.context == length).collect();
    let mut depths: Vec<String> = needles.iter().map(|task| task.cell.setting("depth")).collect();
    depths.sort_by(|a, b| fraction(a).total_cmp(&fraction(b)));
    depths.dedup();
    HeatMap {
        caption: &format!("Found in {} tokens, in percent", format::count(length as u64)),
        row_title: "cache",
        column_title: "depth",
        columns: depths.iter().map(|depth| format!("{:.0} %", 100.0 * fraction(depth))).collect(),
        groups: groups(&needles, &depths),
    }
    .html()
}

/// The caches of each budget, in the order of a reader.
fn groups(needles: &[&Needle<'_>], depths: &[String]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for spec in specs_of(needles.iter().map(|task| task.cell)) {
        let title = match spec.rsplit_once('@') {
            Some((_, cap)) => format!("asked to take {cap}"),
            None => "without a cap".to_owned(),
        };
        let row = row(needles, spec, depths);
        match groups.last_mut() {
            Some(group) if group.title.as_ref() == Some(&title) => group.rows.push(row),
            _ => groups.push(Group { title: Some(title), rows: vec![row] }),
        }
    }
    groups
}

fn row(needles: &[&Needle<'_>], spec: &str, depths: &[String]) -> (String, Vec<Option<Heat>>) {
    let of_spec: Vec<&Needle<'_>> =
        needles.iter().copied().filter(|task| task.cell.cell.spec == spec).collect();
    let name = largest(&of_spec).map_or_else(String::new, |largest| {
        let footprint = &largest.of.footprint;
        let name = named(&typed(&largest.cell.cell), footprint);
        // What missed its cap says already what it took.
        if footprint.missed() {
            name
        } else {
            format!("{name} <small>took {:.0} %</small>", footprint.kv_percent)
        }
    });
    let cell = |depth: &String| {
        let score = score(&of_spec, depth)?;
        // What the model cannot do with all its cache says nothing about a smaller one.
        let able = spec == "full" || found_by_full(needles, depth).is_none_or(|full| full >= 0.5);
        Some(Heat(format!("{:.0}{}", 100.0 * score, if able { "" } else { "*" }), score))
    };
    (name, depths.iter().map(cell).collect())
}

fn score(needles: &[&Needle<'_>], depth: &str) -> Option<f64> {
    let found: Vec<f64> =
        needles.iter().filter(|task| task.cell.setting("depth") == depth).map(|task| task.of.score).collect();
    (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
}

fn found_by_full(needles: &[&Needle<'_>], depth: &str) -> Option<f64> {
    let full: Vec<&Needle<'_>> =
        needles.iter().copied().filter(|task| task.cell.cell.spec == "full").collect();
    score(&full, depth)
}

fn fraction(depth: &str) -> f64 {
    depth.parse().unwrap_or(0.0)
}
