//! The text that `bench` runs on.

use anyhow::Result;
use sketchkv_eval::tasks::NOVEL;
use sketchkv_model::Model;

/// The first tokens of the novel, `count` at most: speed does not ask what the text says.
pub(crate) fn tokens(model: &Model, count: usize) -> Result<Vec<u32>> {
    /// More than any tokenizer makes one token of, in the mean over a text.
    const BYTES_A_TOKEN: usize = 12;
    let mut end = NOVEL.len().min(count.saturating_mul(BYTES_A_TOKEN));
    while !NOVEL.is_char_boundary(end) {
        end -= 1;
    }
    let mut tokens = model.tokenizer().encode_literal(&NOVEL[..end])?;
    tokens.truncate(count);
    Ok(tokens)
}
