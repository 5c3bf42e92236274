use super::{
    data::{Measured, ModelResults},
    escape::escape,
};
use crate::results::Finished;

/// A part of a model's section: a heading, words, what they speak of, and the commands that made it.
pub(super) fn figure(
    model: &ModelResults<'_>,
    part: &str,
    heading: &str,
    words: &str,
    content: &str,
    cells: &[&Finished],
) -> String {
    let mut commands: Vec<&str> = cells.iter().map(|cell| cell.command.as_str()).collect();
    commands.sort_unstable();
    commands.dedup();
    let made: Vec<String> = commands
        .iter()
        .filter(|command| !command.is_empty())
        .map(|command| format!("<code>{}</code>", escape(command)))
        .collect();
    let made = if made.is_empty() { "an unknown command".to_owned() } else { made.join("<br>") };
    format!(
        "<figure id=\"{}\"><h3>{heading}</h3><p>{words}</p>{content}<figcaption>Made by {made}</figcaption></figure>\n",
        model.id(part)
    )
}

/// A part of the page that is scrolled where the screen is too narrow for it.
pub(super) fn scrolled(name: &str, content: &str) -> String {
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{}\">{content}</div>",
        escape(name)
    )
}

pub(super) fn cells<'m, 'a: 'm, T: 'm>(
    measured: impl IntoIterator<Item = &'m Measured<'a, T>>,
) -> Vec<&'a Finished> {
    measured.into_iter().map(|m| m.cell).collect()
}
