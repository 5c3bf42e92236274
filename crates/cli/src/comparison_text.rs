//! What `compare`, `bench` and the experiments run on: files of the user's, or the text in the program.

use anyhow::Result;
use sketchkv_eval::tasks::Corpus;
use sketchkv_model::Model;
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

/// The first tokens of the novel, `count` at most: speed does not ask what the text says.
pub(crate) fn tokens(model: &Model, count: usize) -> Result<Vec<u32>> {
    /// More than any tokenizer makes one token of, in the mean over a text.
    const BYTES_A_TOKEN: usize = 12;
    let (_, text) = PROSE[0];
    let mut end = text.len().min(count.saturating_mul(BYTES_A_TOKEN));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut tokens = model.tokenizer().encode_literal(&text[..end])?;
    tokens.truncate(count);
    Ok(tokens)
}
