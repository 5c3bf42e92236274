//! Line plots over a logarithmic axis, as SVG.

use std::fmt::Write;

pub(crate) struct Line {
    pub(crate) name: String,
    /// x above 0, y in 0..=1.
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) dashed: bool,
}

pub(crate) struct Panel {
    /// What the x axis counts.
    pub(crate) title: &'static str,
    pub(crate) lines: Vec<Line>,
}

/// Apart from each other for the colour-blind too (Okabe and Ito).
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#555555"];
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 260.0;
const MARGIN: f64 = 52.0;
/// Powers of two at the ends of the x axis.
const X_RANGE: (f64, f64) = (-7.0, 4.0);

/// The panels side by side under one title, y from 0 to 1.
pub(crate) fn svg(title: &str, panels: &[Panel]) -> String {
    let (width, height) = (panels.len() as f64 * (WIDTH + MARGIN) + MARGIN, HEIGHT + 2.0 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{}\" y=\"24\" text-anchor=\"middle\" font-size=\"15\">{title}</text>\n",
        width / 2.0
    );
    for (i, panel) in panels.iter().enumerate() {
        let left = MARGIN + i as f64 * (WIDTH + MARGIN);
        panel.draw(&mut out, left).expect("writing to a string does not fail");
    }
    out + "</svg>\n"
}

impl Panel {
    fn draw(&self, out: &mut String, left: f64) -> std::fmt::Result {
        let x_of = |x: f64| left + (x.log2() - X_RANGE.0) / (X_RANGE.1 - X_RANGE.0) * WIDTH;
        let y_of = |y: f64| MARGIN + (1.0 - y) * HEIGHT;
        let bottom = y_of(0.0);
        for tenth in (0..=10).step_by(2) {
            let y = y_of(f64::from(tenth) / 10.0);
            writeln!(out, "<path d=\"M{left:.1} {y:.1}h{WIDTH}\" stroke=\"#ddd\"/>")?;
            let label = f64::from(tenth) / 10.0;
            writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                left - 6.0,
                y + 4.0
            )?;
        }
        for power in (X_RANGE.0 as i32..=X_RANGE.1 as i32).step_by(1) {
            let x = x_of(2.0f64.powi(power));
            let colour = if power == 0 { "#888" } else { "#eee" };
            writeln!(out, "<path d=\"M{x:.1} {MARGIN}V{bottom:.1}\" stroke=\"{colour}\"/>")?;
            let label = if power < 0 { format!("1/{}", 1 << -power) } else { (1 << power).to_string() };
            writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                bottom + 18.0
            )?;
        }
        let (middle, below) = (left + WIDTH / 2.0, bottom + 38.0);
        writeln!(
            out,
            "<text x=\"{middle:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{}</text>",
            self.title
        )?;
        for (i, (line, colour)) in self.lines.iter().zip(COLOURS).enumerate() {
            let dash = if line.dashed { " stroke-dasharray=\"5 4\"" } else { "" };
            let points: Vec<String> =
                line.points.iter().map(|&(x, y)| format!("{:.1},{:.1}", x_of(x), y_of(y))).collect();
            let points = points.join(" ");
            writeln!(
                out,
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>"
            )?;
            let y = bottom - 14.0 - 18.0 * (self.lines.len() - 1 - i) as f64;
            let (from, text) = (left + 12.0, left + 44.0);
            writeln!(out, "<path d=\"M{from:.1} {y:.1}h26\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>")?;
            writeln!(out, "<text x=\"{text:.1}\" y=\"{:.1}\">{}</text>", y + 4.0, line.name)?;
        }
        Ok(())
    }
}
