//! What `compare` and the experiments run on: files of the user's, or the text in the program.

use anyhow::Result;
use sketchkv_eval::tasks::Corpus;
use std::path::PathBuf;

/// A novel and a work of reference, both in the public domain.
const PROSE: [(&str, &str); 2] = [
    ("persuasion.txt", include_str!("../../../data/persuasion.txt")),
    ("jargon.txt", include_str!("../../../data/jargon.txt")),
];

/// The texts of `files`, or those in the program, of which every other document is a passage that comes twice.
pub(crate) fn corpus(files: &[PathBuf]) -> Result<Corpus> {
    if files.is_empty() { Ok(Corpus::of_all(PROSE).with_repeats()) } else { Ok(Corpus::read(files)?) }
}
