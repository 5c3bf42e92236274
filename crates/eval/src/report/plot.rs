use super::{
    escape::escape,
    labels::{Area, Drawn, LETTER, LINE, Line, Wish, column, place},
    name::shortened,
    scale::Scale,
};
use std::fmt::Write;

const TOP: f64 = 30.0;
const BOTTOM: f64 = 46.0;
/// Half the width of a mark, and of one without a label.
const MARK: f64 = 5.0;
const SMALL_MARK: f64 = 3.5;
const Y_TICKS: usize = 8;
/// Width of a letter of a tick, at most about.
const TICK_LETTER: f64 = 7.0;

/// A size that a plot is drawn in: the style sheet shows the one that fits the screen, so that letters are as large on a phone
/// as on a wide screen.
struct Frame {
    class: &'static str,
    width: f64,
    height: f64,
    /// How far from its mark a label may stand.
    reach: f64,
    /// Letters of a label at most.
    letters: usize,
    ticks: usize,
}

const FRAMES: [Frame; 3] = [
    Frame { class: "narrow", width: 332.0, height: 460.0, reach: 80.0, letters: 17, ticks: 4 },
    Frame { class: "medium", width: 700.0, height: 440.0, reach: 160.0, letters: 26, ticks: 7 },
    Frame { class: "wide", width: 1120.0, height: 500.0, reach: 260.0, letters: 40, ticks: 9 },
];

/// An axis: its values, whether they are laid out by ratio, its title and how its ticks are written.
pub(super) struct Axis {
    pub(super) title: &'static str,
    /// The base of a logarithmic axis.
    pub(super) log: Option<f64>,
    pub(super) tick: fn(f64) -> String,
}

impl Axis {
    fn scale(&self, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Scale {
        match self.log {
            Some(base) => Scale::log(values, base, from, to),
            None => Scale::linear(values, from, to),
        }
    }
}

/// One mark, or one line with marks.
pub(super) struct Series {
    /// Class in the style sheet: colour and shape.
    pub(super) class: String,
    pub(super) points: Vec<Point>,
    /// Whether the points are joined; the label of a line stands at its end.
    pub(super) line: bool,
    pub(super) label: Option<String>,
    /// A hollow mark.
    pub(super) hollow: bool,
}

pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    /// The ends of an interval in y.
    pub(super) interval: Option<[f64; 2]>,
    /// What the pointer shows.
    pub(super) title: String,
}

/// What is drawn, in whatever size.
pub(super) struct Plot<'a> {
    pub(super) x: &'a Axis,
    pub(super) y: &'a Axis,
    /// Labels are placed in this order.
    pub(super) series: &'a [Series],
    /// Points joined by a broken line.
    pub(super) steps: &'a [(f64, f64)],
    /// What it shows, for those who do not see it.
    pub(super) about: &'a str,
}

impl Plot<'_> {
    /// The same plot in every size.
    pub(super) fn html(&self) -> String {
        let drawings: Vec<String> = FRAMES.iter().map(|frame| self.svg(frame)).collect();
        format!("<div class=\"plot\">{}</div>", drawings.concat())
    }

    fn lines(&self) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(|series| series.line)
    }

    fn svg(&self, frame: &Frame) -> String {
        // A column of labels needs room on the right, and a line each.
        let beside = match longest(self.lines().filter_map(|series| series.label.clone())) {
            0 => 14.0,
            letters => letters.min(frame.letters) as f64 * LETTER + 24.0,
        };
        let height = frame.height.max(TOP + BOTTOM + self.lines().count() as f64 * (LINE + 1.0));
        let points = || self.series.iter().flat_map(|series| &series.points);
        let (top, bottom, right) = (TOP, height - BOTTOM, frame.width - beside);
        let sy = self.y.scale(points().flat_map(heights), bottom, top);
        let left = 10.0 + TICK_LETTER * longest(sy.ticks(Y_TICKS).into_iter().map(self.y.tick)) as f64;
        let sx = self.x.scale(points().map(|p| p.x), left, right);
        let drawing = Drawing { plot: self, frame, area: Area { left, top, right, bottom }, sx, sy };
        let mut svg = format!(
            "<svg class=\"{}\" viewBox=\"0 0 {} {height}\" role=\"img\" aria-label=\"{}\">",
            frame.class,
            frame.width,
            escape(self.about)
        );
        drawing.axes(&mut svg);
        drawing.steps(&mut svg);
        self.series.iter().for_each(|series| drawing.marks(&mut svg, series));
        drawing.labels(&mut svg);
        drawing.line_labels(&mut svg);
        svg + "</svg>"
    }
}

/// Letters of the longest.
fn longest(texts: impl Iterator<Item = String>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or(0)
}

/// A point's value and the ends of its interval.
fn heights(point: &Point) -> impl Iterator<Item = f64> {
    [point.y].into_iter().chain(point.interval.into_iter().flatten())
}

struct Drawing<'a> {
    plot: &'a Plot<'a>,
    frame: &'a Frame,
    /// Between the axes.
    area: Area,
    sx: Scale,
    sy: Scale,
}

impl Drawing<'_> {
    fn at(&self, point: &Point) -> (f64, f64) {
        (self.sx.at(point.x), self.sy.at(point.y))
    }

    fn axes(&self, svg: &mut String) {
        let Area { left, top, right, bottom } = self.area;
        for tick in self.sx.ticks(self.frame.ticks) {
            let (at, text) = (self.sx.at(tick), (self.plot.x.tick)(tick));
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{bottom:.1}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                bottom + 17.0
            );
        }
        for tick in self.sy.ticks(Y_TICKS) {
            let (at, text) = (self.sy.at(tick), (self.plot.y.tick)(tick));
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                left - 7.0,
                at + 4.0
            );
        }
        let _ = write!(
            svg,
            "<text class=\"axis\" x=\"2\" y=\"14\">{}</text>\
             <text class=\"axis\" x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            self.plot.y.title,
            bottom + 38.0,
            self.plot.x.title
        );
    }

    fn path(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let path: Vec<String> =
            points.map(|(x, y)| format!("{:.1},{:.1}", self.sx.at(x), self.sy.at(y))).collect();
        path.join(" ")
    }

    fn steps(&self, svg: &mut String) {
        if !self.plot.steps.is_empty() {
            let path = self.path(self.plot.steps.iter().copied());
            let _ = write!(svg, "<polyline class=\"frontier\" points=\"{path}\"/>");
        }
    }

    fn marks(&self, svg: &mut String, series: &Series) {
        let hollow = if series.hollow { " hollow" } else { "" };
        let minor = if series.label.is_none() { " minor" } else { "" };
        let _ = write!(svg, "<g class=\"{}{hollow}{minor}\">", series.class);
        if series.line {
            let path = self.path(series.points.iter().map(|p| (p.x, p.y)));
            let _ = write!(svg, "<polyline points=\"{path}\"/>");
        }
        for point in &series.points {
            self.whisker(svg, point);
            self.mark(svg, series, point);
        }
        svg.push_str("</g>");
    }

    fn whisker(&self, svg: &mut String, point: &Point) {
        if let Some([low, high]) = point.interval {
            let (x, low, high) = (self.sx.at(point.x), self.sy.at(low), self.sy.at(high));
            let _ = write!(
                svg,
                "<line class=\"whisker\" x1=\"{x:.1}\" y1=\"{high:.1}\" x2=\"{x:.1}\" y2=\"{low:.1}\"/>"
            );
        }
    }

    fn mark(&self, svg: &mut String, series: &Series, point: &Point) {
        let ((x, y), title) = (self.at(point), escape(&point.title));
        let half = if series.label.is_some() { MARK } else { SMALL_MARK };
        let _ = if series.hollow {
            write!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{side}\" height=\"{side}\"><title>{title}</title></rect>",
                x - half,
                y - half,
                side = 2.0 * half
            )
        } else {
            write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{half}\"><title>{title}</title></circle>")
        };
    }

    /// Labels of single marks.
    fn labels(&self, svg: &mut String) {
        let (series, wishes): (Vec<&Series>, Vec<Wish>) = self
            .single()
            .filter_map(|series| {
                let (label, point) = (series.label.as_ref()?, series.points.last()?);
                Some((series, Wish { text: shortened(label, self.frame.letters), mark: self.at(point) }))
            })
            .unzip();
        let frame = Area { right: self.frame.width - 4.0, ..self.area };
        let places = place(&wishes, &self.drawn(), &frame, self.frame.reach);
        for ((series, wish), place) in series.iter().zip(&wishes).zip(places) {
            let Some(place) = place else { continue };
            if let Some((from, to)) = place.leader {
                leader(svg, from, to);
            }
            let middle = f64::midpoint(place.area.top, place.area.bottom);
            label(svg, &series.class, place.area.left, middle, &wish.text);
        }
    }

    fn single(&self) -> impl Iterator<Item = &Series> {
        self.plot.series.iter().filter(|series| !series.line)
    }

    /// What labels of single marks are not to stand on.
    fn drawn(&self) -> Drawn {
        let points = || self.single().flat_map(|series| &series.points);
        let whisker = |point: &Point| {
            let (x, _) = self.at(point);
            point.interval.map(|[low, high]| ((x, self.sy.at(low)), (x, self.sy.at(high))))
        };
        let at = |&(x, y): &(f64, f64)| (self.sx.at(x), self.sy.at(y));
        let steps = self.plot.steps.windows(2).map(|pair| (at(&pair[0]), at(&pair[1])));
        Drawn {
            marks: points().map(|point| Area::around(self.at(point), MARK)).collect(),
            lines: points().filter_map(whisker).chain(steps).collect::<Vec<Line>>(),
        }
    }

    /// Labels of lines, in a column at their ends.
    fn line_labels(&self, svg: &mut String) {
        let mut ends: Vec<(f64, &Series, &String)> = self
            .plot
            .lines()
            .filter_map(|series| Some((self.sy.at(series.points.last()?.y), series, series.label.as_ref()?)))
            .collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        let wished: Vec<f64> = ends.iter().map(|&(y, ..)| y).collect();
        let half = LINE / 2.0;
        for (at, (y, series, text)) in
            column(&wished, self.area.top + half, self.area.bottom).iter().zip(ends)
        {
            let x = series.points.last().map_or(self.area.right, |point| self.sx.at(point.x));
            leader(svg, (x + MARK + 1.0, y), (self.area.right + 12.0, *at));
            label(svg, &series.class, self.area.right + 16.0, *at, &shortened(text, self.frame.letters));
        }
    }
}

fn leader(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ =
        write!(svg, "<line class=\"leader\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>");
}

fn label(svg: &mut String, class: &str, left: f64, middle: f64, text: &str) {
    let (base, text) = (middle + 4.0, escape(text));
    let _ = write!(svg, "<text class=\"label {class}\" x=\"{left:.1}\" y=\"{base:.1}\">{text}</text>");
}
