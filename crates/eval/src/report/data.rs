//! Results as the figures need them.

use crate::{
    Footprint,
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
    pub(super) name: String,
    pub(super) scored: Vec<Measured<'a, Scored>>,
    pub(super) generated: Vec<Measured<'a, Generated>>,
    pub(super) speed: Vec<Measured<'a, SpeedMeasured>>,
    pub(super) tasks: Vec<Measured<'a, TaskMeasured>>,
    pub(super) attention: Vec<Measured<'a, AttentionMeasured>>,
}

/// What kind of cache a spec is, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    /// The yardsticks that stand in every comparison.
    Control,
    /// Every token kept, in fewer bits.
    Coded,
    /// Fewer tokens kept, in f16.
    Evicting,
    /// Fewer tokens in fewer bits, or with a tail.
    Composed,
}

impl Family {
    pub(super) const ALL: [Family; 4] = [Family::Control, Family::Coded, Family::Evicting, Family::Composed];

    pub(super) fn of(spec: &str) -> Self {
        let (body, cap) = spec.rsplit_once('@').unwrap_or((spec, ""));
        let first = body.split(['+', '(']).next().unwrap_or(body);
        let parts = body.split('+').count();
        match (first, parts, cap) {
            ("full", 1, _) | ("window" | "random", 1, _) => Family::Control,
            ("full", 2, _) if body.ends_with("+q8") || body.ends_with("+q4h") => Family::Control,
            (_, _, "") => Family::Coded,
            (_, 1, _) => Family::Evicting,
            _ => Family::Composed,
        }
    }

    /// The class of its marks in the style sheet.
    pub(super) fn class(self) -> &'static str {
        match self {
            Family::Control => "control",
            Family::Coded => "coded",
            Family::Evicting => "evicting",
            Family::Composed => "composed",
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Family::Control => "control",
            Family::Coded => "all tokens, fewer bits",
            Family::Evicting => "fewer tokens",
            Family::Composed => "fewer tokens and bits, or a tail",
        }
    }
}

/// The results of each model, the models in the order of their names.
pub(super) fn by_model(cells: &[Finished]) -> Vec<ModelResults<'_>> {
    let mut models: BTreeMap<(&str, &str), Vec<&Finished>> = BTreeMap::new();
    for cell in cells.iter().filter(|cell| cell.state == State::Done) {
        models.entry((&cell.cell.model, &cell.cell.model_hash)).or_default().push(cell);
    }
    models
        .into_iter()
        .map(|((name, _), cells)| ModelResults {
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

/// The places of `points` (x, y) that no other point is at or below in both: the frontier, by x.
pub(super) fn frontier(points: &[(f64, f64)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| points[a].0.total_cmp(&points[b].0).then(points[a].1.total_cmp(&points[b].1)));
    let mut best = f64::INFINITY;
    order.retain(|&i| {
        let better = points[i].1 < best;
        best = best.min(points[i].1);
        better
    });
    order
}

/// Text made safe for HTML and its attributes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A spec as a row's name; behind it, where it missed its cap, what it took and what it was asked to take.
pub(super) fn named(spec: &str, footprint: &Footprint) -> String {
    let mark = footprint.mark().map(|mark| format!(" <strong class=\"missed\">{mark}</strong>"));
    format!("<code>{}</code>{}", escape(spec), mark.unwrap_or_default())
}

/// A power of ten, or a round number near one, on an axis.
pub(super) fn tick_nats(kl: f64) -> String {
    if kl >= 0.999e-3 {
        let text = format!("{kl:.4}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{kl:.0e}")
    }
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
    fn families() {
        for (spec, family) in [
            ("full", Family::Control),
            ("full+q8", Family::Control),
            ("window@25%", Family::Control),
            ("random@64MiB", Family::Control),
            ("full+k=kivi4+v=q4", Family::Coded),
            ("h2o(decay=0.99)@25%", Family::Evicting),
            ("h2o+q8@25%", Family::Composed),
            ("window+buckets@25%", Family::Composed),
        ] {
            assert_eq!(Family::of(spec), family, "{spec}");
        }
    }

    #[test]
    fn the_frontier_is_what_nothing_beats() {
        let points = [(4.0, 1.0), (1.0, 9.0), (2.0, 5.0), (2.0, 6.0), (3.0, 5.0), (8.0, 2.0)];
        assert_eq!(frontier(&points), [1, 2, 0]);
    }

    #[test]
    fn specs_read_from_the_whole_cache_down() {
        let mut specs = ["window@25%", "random@50%", "full+q8", "window@6.25%", "full"];
        in_reading_order(&mut specs);
        assert_eq!(specs, ["full", "full+q8", "random@50%", "window@25%", "window@6.25%"]);
    }

    #[test]
    fn text_is_safe_and_ticks_are_short() {
        assert_eq!(escape("<b a=\"1\">&"), "&lt;b a=&quot;1&quot;&gt;&amp;");
        assert_eq!([1.0, 0.01, 0.005, 1e-5].map(tick_nats), ["1", "0.01", "0.005", "1e-5"]);
    }
}
