use super::{
    data::{Measured, ModelResults},
    escape::escape,
    family::Family,
    figure::{cells, figure},
    name::{named, typed},
    plot::{Axis, Plot, Point, Series},
};
use crate::{
    experiments::Scored,
    format::{self, divergence},
};

/// Below this a divergence makes no difference to anyone, and is drawn here.
pub(super) const FLOOR: f64 = 1e-3;

pub(super) const BYTES: Axis =
    Axis { title: "bytes of the KV cache", log: Some(2.0), tick: |value| format::bytes(value as u64) };

/// The class of marks of caches that took over 2 % more than they were asked to.
const MISSED: &str = "missed";

const LOSS: Axis = Axis { title: "mean KL divergence, nats", log: Some(10.0), tick: tick_nats };

/// A power of ten, or a round number near one, on an axis.
fn tick_nats(kl: f64) -> String {
    let text = format!("{kl:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Bytes against KL, both by ratio: controls, the hollow grey squares, and what nothing beats have their names.
pub(super) fn frontier(model: &ModelResults<'_>) -> String {
    let scored = model.comparable();
    if scored.len() < 2 {
        return String::new();
    }
    let best = unbeaten(&scored);
    let steps: Vec<(f64, f64)> = best.iter().map(|&i| place(scored[i])).collect();
    let is_control = |i: usize| Family::of(&scored[i].of.row.spec) == Family::Control;
    // Names are placed in this order: first of what nothing beats, then of the controls.
    let mut order: Vec<usize> = (0..scored.len()).collect();
    let telling = telling(&scored, &best);
    order.sort_by_key(|i| (!telling.contains(i), !is_control(*i)));
    let series: Vec<Series> = order
        .iter()
        .map(|&i| series(scored[i], telling.contains(&i) || is_control(i), is_control(i)))
        .collect();
    let unbeaten: Vec<String> = best.iter().map(|&i| in_words(scored[i])).collect();
    let about = format!(
        "Mean KL divergence against bytes of the KV cache, {} caches of {}. Nothing beats: {}.",
        scored.len(),
        model.name,
        if unbeaten.is_empty() { "none".to_owned() } else { unbeaten.join("; ") }
    );
    let plot = Plot { x: &BYTES, y: &LOSS, series: &series, steps: &steps, about: &about };
    let content = plot.html() + &legend() + &unbeaten_list(&scored, &best);
    figure(model, "frontier", "What a byte buys", &words(&scored), &content, &cells(scored.iter().copied()))
}

fn words(scored: &[&Measured<'_, Scored>]) -> String {
    let cell = &scored[0].cell.cell;
    format!(
        "Down and to the left is better. Each mark is a cache on the same {} scored tokens of {} at {} tokens of context, \
         by the bytes it took, with its 95 % interval; the line joins those that no other beats in both and that kept to \
         their caps. Divergences below {FLOOR} are drawn there.",
        scored[0].of.scored_tokens,
        escape(&cell.text),
        cell.context,
    )
}

fn place(scored: &Measured<'_, Scored>) -> (f64, f64) {
    (scored.of.row.footprint.kv_bytes as f64, scored.of.row.kl_mean.max(FLOOR))
}

fn series(scored: &Measured<'_, Scored>, labelled: bool, is_control: bool) -> Series {
    let (x, y) = place(scored);
    let interval = scored.of.row.kl_interval.map(|ends| ends.map(|end| end.max(FLOOR)));
    Series {
        class: class(scored).to_owned(),
        points: vec![Point { x, y, interval, title: in_words(scored) }],
        line: false,
        label: labelled.then(|| typed(&scored.cell.cell)),
        hollow: is_control,
    }
}

/// The class of a mark in the style sheet: what missed its cap looks unlike all that kept to theirs.
fn class(scored: &Measured<'_, Scored>) -> &'static str {
    let row = &scored.of.row;
    if row.footprint.missed() { MISSED } else { Family::of(&row.spec).class() }
}

fn in_words(scored: &Measured<'_, Scored>) -> String {
    let row = &scored.of.row;
    format!(
        "{}{}: {}, {:.1} % of full, KL {}",
        row.spec,
        row.footprint.mark().map(|mark| format!(" ({mark})")).unwrap_or_default(),
        format::bytes(row.footprint.kv_bytes as u64),
        row.footprint.kv_percent,
        divergence(row.kl_mean)
    )
}

/// Those that no other is at or below in both bytes and divergence, by bytes. What missed its cap is none of them.
fn unbeaten(scored: &[&Measured<'_, Scored>]) -> Vec<usize> {
    let kept: Vec<usize> = (0..scored.len()).filter(|&i| !scored[i].of.row.footprint.missed()).collect();
    let exact: Vec<(f64, f64)> =
        kept.iter().map(|&i| (place(scored[i]).0, scored[i].of.row.kl_mean)).collect();
    lowest(&exact).into_iter().map(|i| kept[i]).collect()
}

/// Of the frontier, those that lose at least a tenth less than the next smaller one: steps too small to see have no names.
fn telling(scored: &[&Measured<'_, Scored>], best: &[usize]) -> Vec<usize> {
    let mut last = f64::INFINITY;
    let mut telling = best.to_vec();
    telling.retain(|&i| {
        let (_, loss) = place(scored[i]);
        let tells = loss < 0.9 * last;
        if tells {
            last = loss;
        }
        tells
    });
    telling
}

/// The places of `points` (x, y) that no other point is at or below in both, by x.
fn lowest(points: &[(f64, f64)]) -> Vec<usize> {
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

/// The frontier as a list: what the plot says, to read.
fn unbeaten_list(scored: &[&Measured<'_, Scored>], best: &[usize]) -> String {
    let items: Vec<String> = best
        .iter()
        .map(|&i| {
            let row = &scored[i].of.row;
            let size = format::bytes(row.footprint.kv_bytes as u64);
            let name = named(&row.spec, &row.footprint);
            format!(
                "<li>{name} {size}, {:.1} %, KL {}</li>",
                row.footprint.kv_percent,
                divergence(row.kl_mean)
            )
        })
        .collect();
    if items.is_empty() {
        return String::new();
    }
    format!(
        "<details class=\"key\" open><summary>What nothing beats, by bytes</summary><ol>{}</ol></details>",
        items.concat()
    )
}

fn legend() -> String {
    const CIRCLE: &str = "<circle cx=\"7\" cy=\"7\" r=\"5\"/>";
    const SQUARE: &str = "<rect x=\"2\" y=\"2\" width=\"10\" height=\"10\"/>";
    let families = Family::ALL.iter().map(|family| match family {
        Family::Control => ("control hollow", SQUARE, family.words()),
        _ => (family.class(), CIRCLE, family.words()),
    });
    let entries: Vec<String> = families
        .chain([(MISSED, CIRCLE, "took over 2 % more than asked")])
        .map(|(class, mark, words)| {
            format!("<li><svg width=\"14\" height=\"14\" aria-hidden=\"true\"><g class=\"{class}\">{mark}</g></svg> {words}</li>")
        })
        .collect();
    format!("<ul class=\"legend\">{}</ul>", entries.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frontier_is_what_nothing_beats() {
        let points = [(4.0, 1.0), (1.0, 9.0), (2.0, 5.0), (2.0, 6.0), (3.0, 5.0), (8.0, 2.0)];
        assert_eq!(lowest(&points), [1, 2, 0]);
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!([1.0, 0.01, 0.005, 0.001].map(tick_nats), ["1", "0.01", "0.005", "0.001"]);
    }
}
