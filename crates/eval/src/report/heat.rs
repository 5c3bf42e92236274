use super::escape::escape;
use std::fmt::Write;

/// A table of coloured cells; colour says again what the number in the cell says.
pub(super) struct HeatMap<'a> {
    pub(super) caption: &'a str,
    pub(super) row_title: &'a str,
    pub(super) column_title: &'a str,
    pub(super) columns: Vec<String>,
    pub(super) groups: Vec<Group>,
}

/// Rows that belong together.
pub(super) struct Group {
    pub(super) title: Option<String>,
    /// Each with its name as HTML.
    pub(super) rows: Vec<(String, Vec<Option<Heat>>)>,
}

/// How a cell is written, and its goodness from 0 to 1.
pub(super) struct Heat(pub(super) String, pub(super) f64);

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
        html.push_str("</tr></thead>");
        self.groups.iter().for_each(|group| self.write(&mut html, group));
        html + "</table>"
    }

    fn write(&self, html: &mut String, group: &Group) {
        html.push_str("<tbody>");
        if let Some(title) = &group.title {
            let _ = write!(
                html,
                "<tr><th class=\"group\" scope=\"rowgroup\" colspan=\"{}\">{}</th></tr>",
                self.columns.len() + 1,
                escape(title)
            );
        }
        for (name, cells) in &group.rows {
            let _ = write!(html, "<tr><th scope=\"row\">{name}</th>");
            cells.iter().for_each(|cell| heat(html, cell.as_ref()));
            html.push_str("</tr>");
        }
        html.push_str("</tbody>");
    }
}

fn heat(html: &mut String, cell: Option<&Heat>) {
    let _ = match cell {
        // Five shades, from the worst to the best.
        Some(Heat(text, goodness)) => {
            write!(html, "<td class=\"shade{:.0}\">{text}</td>", (goodness.clamp(0.0, 1.0) * 4.0).round())
        }
        None => write!(html, "<td>–</td>"),
    };
}
