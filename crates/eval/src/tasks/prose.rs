//! The texts in the program: what is measured on where nobody brings a text.

use super::Corpus;
use crate::EvalError;
use std::path::Path;

/// A novel in the public domain.
pub const NOVEL: &str = include_str!("../../../../data/persuasion.txt");

/// A work of reference in the public domain.
const REFERENCE: &str = include_str!("../../../../data/jargon.txt");

impl Corpus {
    /// The texts of `files`, or without any those in the program, of which every other document is a passage that comes
    /// twice.
    ///
    /// # Errors
    /// As [`Corpus::read`].
    pub fn of_files<P: AsRef<Path>>(files: &[P]) -> Result<Self, EvalError> {
        if files.is_empty() {
            let prose = [("persuasion.txt", NOVEL), ("jargon.txt", REFERENCE)];
            return Ok(Corpus::of_all(prose).with_repeats());
        }
        Corpus::read(files)
    }
}
