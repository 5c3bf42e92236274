//! What a user should know beside the results, on standard error.

/// Prints remarks on a model's file, each as one line.
pub(crate) fn notes(notes: &[String]) {
    notes.iter().for_each(|note| eprintln!("note: {note}"));
}

/// Prints each as one line.
pub(crate) fn show(warnings: &[String]) {
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
}
