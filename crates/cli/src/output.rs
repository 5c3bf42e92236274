//! What goes to standard output: results, and nothing else.

use crate::failure::usage;
use anyhow::{Context, Result};
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde::Serialize;
use std::{
    fs,
    io::{self, Write},
    path::Path,
};

/// Writes `text` and a line end.
pub(crate) fn line(text: impl AsRef<str>) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.as_ref())?;
    Ok(())
}

/// Writes one JSON document.
pub(crate) fn json(document: &impl Serialize) -> Result<()> {
    line(serde_json::to_string_pretty(document).context("results are plain data")?)
}

/// Writes text that may end anywhere, at once.
pub(crate) fn piece(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Whether a file can be written there; for before there is anything to wait for.
///
/// # Errors
/// When its folder cannot be written to, or there is something that is no file: to replace a pipe or a device by a file is
/// never meant.
pub(crate) fn check(path: &Path) -> Result<()> {
    let problem = match fs::metadata(path) {
        Ok(found) if found.is_file() => return Ok(()),
        Ok(found) if found.is_dir() => "it is a folder".to_owned(),
        Ok(_) => "it is no file".to_owned(),
        Err(error) if error.kind() != io::ErrorKind::NotFound => error.to_string(),
        Err(error) => match (path.file_name(), path.parent()) {
            (None, _) => "it is no name of a file".to_owned(),
            (_, Some(folder)) if folder.as_os_str().is_empty() || folder.is_dir() => return Ok(()),
            _ => error.to_string(),
        },
    };
    Err(usage(format!(
        "cannot write {}: {problem}; give the name of a file in a folder that is there",
        path.display()
    )))
}

/// Writes a whole file or none: beside its place first, then renamed.
pub(crate) fn file(path: &Path, bytes: &[u8]) -> Result<()> {
    check(path)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    fs::write(&part, bytes).and_then(|()| fs::rename(&part, path)).map_err(|error| {
        let _ = fs::remove_file(&part);
        anyhow::Error::new(error).context(format!("cannot write {}", path.display()))
    })
}

/// Columns of the terminal that standard output is; `None` where it is none.
fn terminal_width() -> Option<usize> {
    terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0.into())
}

/// A table in the form of Markdown, which also reads well in a terminal: what is wider than that is folded. Columns in `right`
/// hold numbers.
pub(crate) fn table(header: &[&str], right: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.into_iter().collect();
    let least: Vec<usize> =
        (0..header.len()).map(|column| least_width(column, header, &rows, right.contains(&column))).collect();
    // A bar and two spaces a column, and the last bar.
    let least_of_all = least.iter().map(|width| width + 3).sum::<usize>() + 1;
    let width = terminal_width();
    if let Some(width) = width.filter(|&width| least_of_all > width) {
        return records(header, &rows, width);
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header.to_vec()).add_rows(rows);
    if let Some(width) = width {
        let width = u16::try_from(width).unwrap_or(u16::MAX);
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    for (index, least) in least.into_iter().enumerate() {
        let Some(column) = table.column_mut(index) else { continue };
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least as u16)));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// Characters of a part of a text that may be broken anywhere.
const PART: usize = 14;

/// Below which a column is no longer readable: a number is never broken, a text now and then.
fn least_width(column: usize, header: &[&str], rows: &[Vec<String>], number: bool) -> usize {
    let longest = |words: &mut dyn Iterator<Item = &str>| words.map(|word| word.chars().count()).max();
    let head = longest(&mut header[column].split(' ')).unwrap_or(0);
    let mut cells = rows.iter().filter_map(|row| row.get(column)).map(String::as_str);
    let cell = longest(&mut cells).unwrap_or(0);
    head.max(if number { cell } else { cell.min(PART) }).max(1)
}

/// The rows of a table one below the other.
fn records(header: &[&str], rows: &[Vec<String>], width: usize) -> String {
    let widest = header.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let record = |row: &Vec<String>| {
        let lines = header.iter().zip(row).map(|(name, cell)| {
            let indent = format!("\n{}", " ".repeat(widest + 2));
            format!(
                "{name:<widest$}  {}",
                filled(cell, width.saturating_sub(widest + 2)).replace('\n', &indent)
            )
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    rows.iter().map(record).collect::<Vec<_>>().join("\n\n")
}

/// Text in the form of Markdown, its paragraphs and tables as wide as the terminal.
pub(crate) fn page(text: &str) -> String {
    let Some(width) = terminal_width() else { return text.to_owned() };
    let block = |block: &str| match block {
        _ if block.starts_with("    ") || block.starts_with("```") => block.to_owned(),
        _ if block.starts_with('|') => {
            let cells = |line: &str| -> Vec<String> {
                line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
            };
            let mut lines = block.lines();
            let header = cells(lines.next().unwrap_or_default());
            let header: Vec<&str> = header.iter().map(String::as_str).collect();
            table(&header, &[], lines.skip(1).map(cells))
        }
        _ => filled(block, width),
    };
    text.split("\n\n").map(block).collect::<Vec<_>>().join("\n\n")
}

/// A paragraph in lines of at most `width` characters.
fn filled(paragraph: &str, width: usize) -> String {
    let (mut text, mut used) = (String::new(), 0);
    for word in paragraph.split_whitespace() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            text.push('\n');
            used = 0;
        } else if used > 0 {
            text.push(' ');
            used += 1;
        }
        text += word;
        used += length;
    }
    text
}

/// Whether `error` says that the reader of our output is gone.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_is_filled_and_a_long_word_stays_whole() {
        assert_eq!(filled("one two\nthree four", 9), "one two\nthree\nfour");
        assert_eq!(filled("a https://example.org b", 5), "a\nhttps://example.org\nb");
    }

    #[test]
    fn a_number_is_never_broken_and_rows_can_stand_alone() {
        let rows = vec![vec!["foreseen+progressive+adaptive@25%".to_owned(), "1,234.5 MiB".to_owned()]];
        assert_eq!(least_width(0, &["spec", "KV"], &rows, false), PART);
        assert_eq!(least_width(1, &["spec", "KV"], &rows, true), 11);
        let row = vec!["full".to_owned(), "all of them".to_owned()];
        assert_eq!(records(&["spec", "kept"], &[row], 12), "spec  full\nkept  all of\n      them");
    }
}
