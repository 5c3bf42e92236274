use llguidance::{
    panic_utils,
    toktrie::{ApproximateTokEnv, INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie},
};
use sketchkv_model::Tokenizer;
use std::{panic::AssertUnwindSafe, sync::Arc};

/// Bytes of a token above which it takes no part: the trie has no deeper branches.
const LONGEST: usize = 1000;

/// The bytes of all tokens in a trie. Tokens that are special or end a text stand for no bytes of it: a grammar says them by
/// name.
pub(super) fn vocabulary(tokenizer: &Tokenizer) -> Result<TokEnv, String> {
    let words: Vec<Vec<u8>> = (0..tokenizer.vocabulary() as u32).map(|id| word(tokenizer, id)).collect();
    let ends: Vec<u32> = tokenizer.ends().filter(|&id| (id as usize) < words.len()).collect();
    let info = TokRxInfo::new(words.len() as u32, ends.first().copied().unwrap_or(INVALID_TOKEN));
    let built = panic_utils::catch_unwind(AssertUnwindSafe(|| {
        let trie = TokTrie::from(&info, &words);
        let trie = if ends.is_empty() { trie } else { trie.with_eos_tokens(&ends) };
        // Not canonical: which tokens spell a text is left to the model.
        Ok(Arc::new(ApproximateTokEnv::new(trie)) as TokEnv)
    }));
    built.map_err(|_| "the model's tokens are too many or too long".to_owned())
}

fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id);
    if tokenizer.is_special(id) || tokenizer.is_end(id) {
        let name = tokenizer.token(id).unwrap_or_default();
        return [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat();
    }
    // No text has a byte of this value; it is what marks special tokens.
    let taken = bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) || bytes.len() > LONGEST;
    if taken { Vec::new() } else { bytes.to_vec() }
}
