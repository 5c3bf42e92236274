//! What `compare` runs on: files of the user's, or the text in the program.

use anyhow::Result;
use sketchkv_eval::tasks::{Corpus, TextSample};
use sketchkv_model::Model;
use std::path::PathBuf;

/// A novel and a work of reference, both in the public domain.
const PROSE: [(&str, &str); 2] = [
    ("persuasion.txt", include_str!("../../../data/persuasion.txt")),
    ("jargon.txt", include_str!("../../../data/jargon.txt")),
];

/// `count` documents of `context` tokens.
///
/// Of the text in the program, every other document is a passage that comes twice: on plain prose a small model hardly
/// looks back further than a sliding window reaches, on a passage that comes again it shows at once what was dropped.
pub(crate) fn sample(model: &Model, files: &[PathBuf], context: usize, count: usize) -> Result<TextSample> {
    if !files.is_empty() {
        return Ok(Corpus::read(files)?.sample(model, context, count)?);
    }
    let mut documents = Vec::new();
    for (index, (name, text)) in PROSE.into_iter().enumerate() {
        let corpus = Corpus::of(name, text);
        // Of n documents over two texts in turn, the first text gets the odd one; of those, prose gets the odd one.
        let share = (count + 1 - index) / 2;
        let (plain, twice) = (share.div_ceil(2), share / 2);
        if plain > 0 {
            documents.extend(corpus.sample(model, context, plain)?.documents);
        }
        if twice > 0 {
            documents.extend(corpus.sample(model, context / 2, twice)?.documents.into_iter().map(doubled));
        }
    }
    Ok(TextSample { name: "persuasion.txt and jargon.txt, every other passage twice".into(), documents })
}

fn doubled(mut passage: Vec<u32>) -> Vec<u32> {
    passage.extend_from_within(..);
    passage
}
