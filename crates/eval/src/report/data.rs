//! Results as the figures need them.

use crate::{
    experiments::{AttentionMeasured, Generated, Scored, SpeedMeasured, TaskMeasured},
    results::{Finished, State},
};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// A cell with what it measured.
pub(super) struct Measured<'a, T> {
    pub(super) cell: &'a Finished,
    pub(super) of: T,
}

/// All results of one model.
pub(super) struct ModelResults<'a> {
    /// Its place on the page.
    pub(super) place: usize,
    pub(super) name: String,
    pub(super) scored: Vec<Measured<'a, Scored>>,
    pub(super) generated: Vec<Measured<'a, Generated>>,
    pub(super) speed: Vec<Measured<'a, SpeedMeasured>>,
    pub(super) tasks: Vec<Measured<'a, TaskMeasured>>,
    pub(super) attention: Vec<Measured<'a, AttentionMeasured>>,
}

/// The results of each model, the models in the order of their names.
pub(super) fn by_model(cells: &[Finished]) -> Vec<ModelResults<'_>> {
    let mut models: BTreeMap<(&str, &str), Vec<&Finished>> = BTreeMap::new();
    for cell in cells.iter().filter(|cell| cell.state == State::Done) {
        models.entry((&cell.cell.model, &cell.cell.model_hash)).or_default().push(cell);
    }
    models
        .into_iter()
        .enumerate()
        .map(|(place, ((name, _), cells))| ModelResults {
            place,
            name: name.to_owned(),
            scored: of_work(&cells, "score"),
            generated: of_work(&cells, "generate"),
            speed: of_work(&cells, "speed"),
            tasks: of_work(&cells, "task"),
            attention: of_work(&cells, "attention"),
        })
        .collect()
}

fn of_work<'a, T: DeserializeOwned>(cells: &[&'a Finished], work: &str) -> Vec<Measured<'a, T>> {
    cells.iter().filter_map(|cell| Some(Measured { cell, of: cell.measured_as(work)? })).collect()
}

impl<'a> ModelResults<'a> {
    /// An id for a part of its section: the name of the part for the first model of the page.
    pub(super) fn id(&self, part: &str) -> String {
        if self.place == 0 { part.to_owned() } else { format!("{part}-{}", self.place + 1) }
    }

    /// The scored cells that can be compared with each other: one text, context, schedule and seed, the largest such
    /// group, each spec once, by bytes.
    pub(super) fn comparable(&self) -> Vec<&Measured<'a, Scored>> {
        let mut groups: BTreeMap<String, Vec<&Measured<'a, Scored>>> = BTreeMap::new();
        for scored in self
            .scored
            .iter()
            .filter(|scored| ["compare", "pareto"].contains(&scored.cell.cell.experiment.as_str()))
        {
            let cell = &scored.cell.cell;
            let key = format!("{} {} {} {:?}", cell.text_hash, cell.context, cell.seed, cell.settings);
            let group = groups.entry(key).or_default();
            if group.iter().all(|other| other.cell.cell.spec != cell.spec) {
                group.push(scored);
            }
        }
        let rank = |group: &Vec<&Measured<'a, Scored>>| {
            let compared = group.iter().filter(|s| s.cell.cell.experiment == "compare").count();
            (compared, group.len())
        };
        let mut largest = groups.into_values().max_by_key(rank).unwrap_or_default();
        largest.sort_by_key(|scored| scored.of.row.footprint.kv_bytes);
        largest
    }
}

/// Of the runs of a cache the one in which it took most.
pub(super) fn largest<'t, 'r>(
    runs: &[&'t Measured<'r, TaskMeasured>],
) -> Option<&'t Measured<'r, TaskMeasured>> {
    runs.iter().copied().max_by(|a, b| a.of.footprint.kv_percent.total_cmp(&b.of.footprint.kv_percent))
}

/// The specs of `cells`, each once, in the order of a reader: the whole cache, others of all tokens, then by the cap,
/// larger shares first.
pub(super) fn specs_of<'a>(cells: impl Iterator<Item = &'a Finished>) -> Vec<&'a str> {
    let mut specs: Vec<&str> = cells.map(|cell| cell.cell.spec.as_str()).collect();
    in_reading_order(&mut specs);
    specs.dedup();
    specs
}

fn in_reading_order(specs: &mut [&str]) {
    let rank = |spec: &str| {
        let cap = spec.rsplit_once('@').map(|(_, cap)| cap.trim_end_matches(|c: char| !c.is_ascii_digit()));
        let size = cap.map(|cap| -cap.parse::<f64>().unwrap_or(0.0));
        (spec != "full", size.unwrap_or(f64::NEG_INFINITY))
    };
    specs.sort_by(|a, b| {
        let (a_rank, b_rank) = (rank(a), rank(b));
        a_rank.0.cmp(&b_rank.0).then(a_rank.1.total_cmp(&b_rank.1)).then(a.cmp(b))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_read_from_the_whole_cache_down() {
        let mut specs = ["window@25%", "random@50%", "full+q8", "window@6.25%", "full"];
        in_reading_order(&mut specs);
        assert_eq!(specs, ["full", "full+q8", "random@50%", "window@25%", "window@6.25%"]);
    }
}
