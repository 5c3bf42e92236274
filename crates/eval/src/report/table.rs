use super::{escape::escape, figure::scrolled};
use std::fmt::Write;

/// A cell of a table.
pub(super) struct Field {
    /// What is shown, as HTML.
    shown: String,
    /// The number it is sorted by.
    value: Option<f64>,
    /// The length of its bar, from 0 to 1.
    bar: Option<f64>,
}

impl Field {
    pub(super) fn html(shown: String) -> Self {
        Field { shown, value: None, bar: None }
    }

    pub(super) fn text(text: impl AsRef<str>) -> Self {
        Field::html(escape(text.as_ref()))
    }

    pub(super) fn none() -> Self {
        Field::text("–")
    }

    pub(super) fn number(value: f64, shown: String) -> Self {
        Field { shown, value: Some(value), bar: None }
    }

    pub(super) fn with_bar(self, share: f64) -> Self {
        Field { bar: Some(share.clamp(0.0, 1.0)), ..self }
    }

    fn write(&self, html: &mut String) {
        let Some(value) = self.value else {
            let _ = write!(html, "<td>{}</td>", self.shown);
            return;
        };
        let _ = match self.bar {
            Some(bar) => write!(
                html,
                "<td class=\"number bar\" data-value=\"{value}\" style=\"--bar: {:.1}%\">{}</td>",
                100.0 * bar,
                self.shown
            ),
            None => write!(html, "<td class=\"number\" data-value=\"{value}\">{}</td>", self.shown),
        };
    }
}

/// A table whose columns sort when their heads are pressed. The first field of a row names it.
pub(super) struct Table<'a> {
    pub(super) caption: &'a str,
    pub(super) header: Vec<&'a str>,
    /// The column by which it is sorted, upwards, as it comes.
    pub(super) sorted_by: Option<usize>,
    pub(super) rows: Vec<Vec<Field>>,
}

impl Table<'_> {
    pub(super) fn html(mut self) -> String {
        if let Some(column) = self.sorted_by {
            let value = |row: &Vec<Field>| row[column].value.unwrap_or(f64::INFINITY);
            self.rows.sort_by(|a, b| value(a).total_cmp(&value(b)));
        }
        let mut html =
            format!("<table class=\"sortable\"><caption>{}</caption><thead><tr>", escape(self.caption));
        for (column, name) in self.header.iter().enumerate() {
            let sorted = if self.sorted_by == Some(column) { " aria-sort=\"ascending\"" } else { "" };
            let _ = write!(
                html,
                "<th scope=\"col\"{sorted}><button type=\"button\">{}</button></th>",
                escape(name)
            );
        }
        html.push_str("</tr></thead><tbody>");
        for row in &self.rows {
            html.push_str("<tr>");
            if let Some((name, fields)) = row.split_first() {
                let _ = write!(html, "<th scope=\"row\">{}</th>", name.shown);
                fields.iter().for_each(|field| field.write(&mut html));
            }
            html.push_str("</tr>");
        }
        scrolled(self.caption, &(html + "</tbody></table>"))
    }
}
