//! What a user should know beside the results, on standard error.

/// Prints each as one line.
pub(crate) fn show(warnings: &[String]) {
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
}
