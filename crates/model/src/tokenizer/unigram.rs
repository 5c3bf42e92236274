//! SentencePiece's unigram model: of all ways to cut a text into tokens, the one whose scores have the largest sum.

use super::gguf::{BYTE, token_types};
use crate::ModelError;
use crate::file::Gguf;
use tokenizers::Tokenizer;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::Precompiled;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;

const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";

/// The tokenizer of `tokenizer.ggml.model` `t5`.
pub(super) fn unigram(gguf: &Gguf, tokens: &[String], scores: &[f32]) -> Result<Tokenizer, ModelError> {
    let fail = |reason: String| ModelError::format(gguf.path(), reason);
    let unknown = gguf.number("tokenizer.ggml.unknown_token_id")?.unwrap_or(2);
    if unknown >= tokens.len() {
        return Err(fail(format!("`tokenizer.ggml.unknown_token_id` is {unknown}, beyond the vocabulary")));
    }
    let bytes = token_types(gguf, tokens).map_err(fail)?.is_some_and(|types| types.contains(&BYTE));
    let vocabulary = tokens.iter().zip(scores).map(|(token, score)| (token.clone(), f64::from(*score)));
    let model = Unigram::from(vocabulary.collect(), Some(unknown), bytes)
        .map_err(|e| fail(format!("the tokenizer does not fit together: {e}")))?;
    let mut inner = Tokenizer::new(model);
    if let Some(map) = gguf.header().value(CHARSMAP) {
        let map = map.integers().and_then(charsmap).ok_or_else(|| {
            fail(format!("`{CHARSMAP}` is no table of characters as SentencePiece writes it"))
        })?;
        inner.with_normalizer(Some(map)).map_err(|e| fail(e.to_string()))?;
    }
    let prefix = gguf.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let collapses = gguf.flag("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(true);
    let scheme = if prefix { PrependScheme::First } else { PrependScheme::Never };
    // Where spaces collapse, every word begins with one, the first too.
    let every = Metaspace::new('▁', PrependScheme::Always, true);
    let (spaces, splitter): (_, PreTokenizerWrapper) = if collapses {
        let steps = vec![WhitespaceSplit.into(), every.clone().into()];
        (every, Sequence::new(steps).into())
    } else {
        let spaces = Metaspace::new('▁', scheme, false);
        (spaces.clone(), spaces.into())
    };
    inner.with_pre_tokenizer(Some(splitter));
    inner.with_decoder(Some(spaces));
    Ok(inner)
}

/// The table by which characters are replaced, once it is certain that no text leads out of it: the reader does not look.
///
/// It is the length of a double array, the array of 32-bit units, and the replacements, each ended by a zero byte. A
/// unit holds the byte that leads to it, the offset to the units after it, and whether the first of these is a value.
fn charsmap(map: &[i64]) -> Option<Precompiled> {
    // Some files hold the bytes as signed numbers.
    let bytes: Option<Vec<u8>> =
        map.iter().map(|n| u8::try_from(*n).ok().or(i8::try_from(*n).ok().map(|n| n as u8))).collect();
    let bytes = bytes?;
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (units, replacements) = rest.split_at_checked(u32::from_le_bytes(*length) as usize / 4 * 4)?;
    let replacements = std::str::from_utf8(replacements).ok()?;
    let units: Vec<usize> =
        units.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit) as usize).collect();
    let offset = |unit: usize| (unit >> 10) << ((unit & (1 << 9)) >> 6);
    let mut seen = vec![false; units.len()];
    let mut open = vec![offset(*units.first()?)];
    while let Some(base) = open.pop() {
        if std::mem::replace(seen.get_mut(base)?, true) {
            continue;
        }
        for byte in 1..=255 {
            let at = base ^ byte;
            let unit = *units.get(at)?;
            if unit & (1 << 31 | 0xff) != byte {
                continue;
            }
            let next = at ^ offset(unit);
            if unit & (1 << 8) != 0 && !replacements.is_char_boundary(*units.get(next)? & ((1 << 31) - 1)) {
                return None;
            }
            open.push(next);
        }
    }
    Precompiled::from(&bytes).ok()
}
