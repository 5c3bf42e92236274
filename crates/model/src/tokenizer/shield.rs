//! Special tokens that users write are taken as plain text.

use std::borrow::Cow;

/// Breaks the spelling of a special token. A noncharacter, which Unicode leaves to the inside of programs: it is in no
/// text that is exchanged, and taken out before text is split into words.
pub(super) const MARK: char = '\u{fdd0}';

/// `text` with a mark within every one of the `special` tokens.
pub(super) fn shield(text: &str, special: impl Iterator<Item = String>) -> Cow<'_, str> {
    let mut shielded = Cow::Borrowed(text);
    for token in special.filter(|token| !token.is_empty()) {
        if shielded.contains(&token) {
            let first = token.chars().next().map_or(0, char::len_utf8);
            let (head, tail) = token.split_at(first);
            shielded = Cow::Owned(shielded.replace(&token, &format!("{head}{MARK}{tail}")));
        }
    }
    shielded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_token_is_broken() {
        let special = || ["<|end|>", "<|", "é"].iter().map(|token| (*token).to_owned());
        let plain = "a<|end|>é<b";
        let shielded = shield(plain, special());
        assert!(
            special().all(|token| !shielded.contains(&token) || token.chars().count() == 1),
            "{shielded}"
        );
        assert_eq!(shielded.replace(MARK, ""), plain);
        assert!(matches!(shield("nothing", special()), Cow::Borrowed("nothing")));
    }
}
