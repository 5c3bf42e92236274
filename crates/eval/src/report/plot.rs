use super::{data::escape, scale::Scale};
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 56.0;
/// Width of a letter of a label, about.
const LETTER: f64 = 6.7;

/// An axis: its values, whether they are laid out by ratio, its title and how its ticks are written.
pub(super) struct Axis {
    pub(super) title: &'static str,
    /// The base of a logarithmic axis.
    pub(super) log: Option<f64>,
    pub(super) tick: fn(f64) -> String,
}

/// One mark, or one line with marks.
pub(super) struct Series {
    /// Class in the style sheet: colour and shape.
    pub(super) class: String,
    pub(super) points: Vec<Point>,
    /// Whether the points are joined.
    pub(super) line: bool,
    /// Written beside the last point.
    pub(super) label: Option<String>,
    /// A hollow mark.
    pub(super) hollow: bool,
}

pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    /// What the pointer shows.
    pub(super) title: String,
}

/// An SVG of `series` over two axes. `about` says in words what it shows, for those who do not see it.
pub(super) fn plot(x: &Axis, y: &Axis, series: &[Series], steps: &[(f64, f64)], about: &str) -> String {
    let xs = || series.iter().flat_map(|s| s.points.iter().map(|p| p.x));
    let ys = || series.iter().flat_map(|s| s.points.iter().map(|p| p.y));
    // Labels beside the last point of a line need room on the right.
    let longest = series.iter().filter(|s| s.line).filter_map(|s| s.label.as_ref()).map(String::len).max();
    let right = WIDTH - longest.map_or(RIGHT, |letters| letters.min(34) as f64 * LETTER + 18.0);
    let bottom = HEIGHT - BOTTOM;
    let scale = |axis: &Axis, values: &mut dyn Iterator<Item = f64>, from, to| match axis.log {
        Some(base) => Scale::log(values, base, from, to),
        None => Scale::linear(values, from, to),
    };
    let (sx, sy) = (scale(x, &mut xs(), LEFT, right), scale(y, &mut ys(), bottom, TOP));
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\"><title>{}</title>",
        escape(about),
        escape(about)
    );
    axes(&mut svg, (x, &sx), (y, &sy), right);
    if !steps.is_empty() {
        let path: Vec<String> =
            steps.iter().map(|&(x, y)| format!("{:.1},{:.1}", sx.at(x), sy.at(y))).collect();
        let _ = write!(svg, "<polyline class=\"frontier\" points=\"{}\"/>", path.join(" "));
    }
    for one in series {
        marks(&mut svg, one, &sx, &sy);
    }
    labels(&mut svg, series, &sx, &sy, right);
    svg + "</svg>"
}

fn axes(svg: &mut String, (x, sx): (&Axis, &Scale), (y, sy): (&Axis, &Scale), right: f64) {
    let bottom = HEIGHT - BOTTOM;
    for tick in sx.ticks() {
        let at = sx.at(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 20.0,
            (x.tick)(tick)
        );
    }
    for tick in sy.ticks() {
        let at = sy.at(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            at + 4.5,
            (y.tick)(tick)
        );
    }
    let _ = write!(
        svg,
        "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text class=\"axis\" transform=\"rotate(-90)\" x=\"{:.1}\" y=\"16\" text-anchor=\"middle\">{}</text>",
        f64::midpoint(LEFT, right),
        HEIGHT - 12.0,
        x.title,
        -f64::midpoint(TOP, bottom),
        y.title
    );
}

fn marks(svg: &mut String, series: &Series, sx: &Scale, sy: &Scale) {
    let _ = write!(svg, "<g class=\"{}{}\">", series.class, if series.hollow { " hollow" } else { "" });
    if series.line {
        let path: Vec<String> =
            series.points.iter().map(|p| format!("{:.1},{:.1}", sx.at(p.x), sy.at(p.y))).collect();
        let _ = write!(svg, "<polyline points=\"{}\"/>", path.join(" "));
    }
    for point in &series.points {
        let (x, y) = (sx.at(point.x), sy.at(point.y));
        let title = escape(&point.title);
        let _ = if series.hollow {
            let (left, top) = (x - 5.0, y - 5.0);
            write!(
                svg,
                "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"10\" height=\"10\"><title>{title}</title></rect>"
            )
        } else {
            write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"><title>{title}</title></circle>")
        };
    }
    svg.push_str("</g>");
}

/// Labels of series, moved until none lies on another, nor on a mark where that can be helped; one that finds no place
/// near its point is left out.
fn labels(svg: &mut String, series: &[Series], sx: &Scale, sy: &Scale, right: f64) {
    let mut taken: Vec<(f64, f64, f64)> = Vec::new();
    let marks: Vec<(f64, f64)> = series
        .iter()
        .filter(|s| !s.line)
        .flat_map(|s| s.points.iter().map(|p| (sx.at(p.x), sy.at(p.y))))
        .collect();
    for one in series {
        let (Some(label), Some(last)) = (&one.label, one.points.last()) else { continue };
        let text: String = if label.chars().count() > 34 {
            label.chars().take(33).chain(['…']).collect()
        } else {
            label.clone()
        };
        let width = text.chars().count() as f64 * LETTER;
        let (x, y) = (sx.at(last.x), sy.at(last.y));
        let places: Vec<(f64, f64)> = if one.line {
            // Beside the line's end, pushed up or down.
            (0..24)
                .map(|i| {
                    (right + 8.0, y + 4.0 + f64::from((i + 1) / 2 * 14 * if i % 2 == 0 { 1 } else { -1 }))
                })
                .collect()
        } else {
            vec![
                (x + 8.0, y + 4.0),
                (x - 8.0 - width, y + 4.0),
                (x - width / 2.0, y - 9.0),
                (x - width / 2.0, y + 17.0),
                (x + 9.0, y - 6.0),
                (x + 9.0, y + 14.0),
                (x - 9.0 - width, y - 6.0),
                (x - 9.0 - width, y + 14.0),
                (x - width / 2.0, y - 14.0),
                (x - width / 2.0, y + 22.0),
                (x + 9.0, y - 20.0),
                (x + 9.0, y + 28.0),
            ]
        };
        let free = |&(left, base): &(f64, f64)| {
            let inside = left >= LEFT && (one.line || left + width <= WIDTH - 4.0);
            let in_height = (TOP + 8.0..HEIGHT - BOTTOM + 6.0).contains(&base);
            let clear = |&(other, other_base, other_width): &(f64, f64, f64)| {
                (base - other_base).abs() >= 13.0 || left > other + other_width || other > left + width
            };
            inside && in_height && taken.iter().all(clear)
        };
        let off_marks = |&(left, base): &(f64, f64)| {
            let beside = |&(x, y): &(f64, f64)| {
                x + 6.0 < left || x - 6.0 > left + width || y + 6.0 < base - 10.0 || y - 6.0 > base + 3.0
            };
            one.line || marks.iter().all(beside)
        };
        let place = places.iter().find(|place| free(place) && off_marks(place));
        if let Some(&(left, base)) = place.or_else(|| places.iter().find(|place| free(place))) {
            taken.push((left, base, width));
            let _ = write!(
                svg,
                "<text class=\"label {}\" x=\"{left:.1}\" y=\"{base:.1}\">{}</text>",
                one.class,
                escape(&text)
            );
        }
    }
}
