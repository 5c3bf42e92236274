//! What a user should know beside the results, on standard error.

use clap::builder::styling::AnsiColor;

/// Prints remarks on a model's file, each as one line.
pub(crate) fn notes(notes: &[String]) {
    notes.iter().for_each(|note| eprintln!("note: {note}"));
}

/// Prints each as one line.
pub(crate) fn show(warnings: &[String]) {
    let style = AnsiColor::Yellow.on_default().bold();
    warnings.iter().for_each(|warning| anstream::eprintln!("{style}warning:{style:#} {warning}"));
}
