use super::{
    escape::escape,
    table::{Field, Table},
};
use crate::results::{Finished, State, failures};
use std::collections::BTreeMap;

const HEADER: [&str; 10] =
    ["model", "experiment", "text", "version", "machine", "model hash", "text hash", "seed", "cells", "time"];

/// Where the numbers come from.
pub(super) fn provenance(cells: &[Finished]) -> String {
    let mut groups: BTreeMap<Vec<String>, (usize, f64)> = BTreeMap::new();
    for cell in cells.iter().filter(|cell| cell.state == State::Done) {
        let group = groups.entry(origin(cell)).or_default();
        group.0 += 1;
        group.1 += cell.duration_s;
    }
    let rows = groups
        .into_iter()
        .map(|(key, (count, seconds))| {
            let mut row: Vec<Field> = key.into_iter().map(Field::text).collect();
            row.push(Field::number(count as f64, count.to_string()));
            row.push(Field::number(seconds, format!("{:.1} min", seconds / 60.0)));
            row
        })
        .collect();
    let table = Table { caption: "Runs", header: HEADER.to_vec(), sorted_by: None, rows };
    format!("<h2 id=\"sources\">Where the numbers come from</h2>{}{}", table.html(), not_measured(cells))
}

fn origin(cell: &Finished) -> Vec<String> {
    let start = |hash: &str| hash.chars().take(12).collect();
    vec![
        cell.cell.model.clone(),
        cell.cell.experiment.clone(),
        cell.cell.text.clone(),
        cell.version.clone(),
        cell.machine.to_string(),
        start(&cell.cell.model_hash),
        start(&cell.cell.text_hash),
        cell.cell.seed.to_string(),
    ]
}

fn not_measured(cells: &[Finished]) -> String {
    let failed: Vec<String> = failures(cells)
        .iter()
        .map(|failure| format!("<li><code>{}</code>: {}</li>", escape(&failure.spec), escape(&failure.error)))
        .collect();
    if failed.is_empty() {
        return String::new();
    }
    format!("<h3>Could not be measured</h3><ul>{}</ul>", failed.concat())
}
