use sketchkv_model::Tokenizer;
use std::cmp::Reverse;

/// Tokens that stand for exactly these bytes, the longest first; bytes that no token stands for are left out.
///
/// An encoder would write a text as its normaliser thinks best: with a space before it, composed, or not at all if it
/// begins within a character. A piece of a token must stay what it is.
pub(crate) fn spell(tokenizer: &Tokenizer, bytes: &[u8]) -> Vec<u32> {
    let (mut tokens, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let fits = |id: &u32| {
            let text = tokenizer.token_bytes(*id);
            !text.is_empty() && rest.starts_with(text) && !tokenizer.is_special(*id)
        };
        let ids = 0..tokenizer.vocabulary() as u32;
        let longest = ids.filter(fits).max_by_key(|&id| (tokenizer.token_bytes(id).len(), Reverse(id)));
        let length = longest.map_or(1, |id| tokenizer.token_bytes(id).len());
        tokens.extend(longest);
        rest = &rest[length..];
    }
    tokens
}
