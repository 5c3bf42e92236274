//! The bytes each token stands for, in one flat table: decoding is a copy, and a stream can tell exactly which
//! bytes are still missing from a character.

use serde_json::Value;
use std::collections::HashMap;

/// How a vocabulary spells bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// GPT-2's: each byte is a printable character.
    ByteLevel,
    /// SentencePiece's: `▁` is a space, `<0x0A>` is a byte.
    SentencePiece { strips_first_space: bool },
}

pub(super) struct TokenBytes {
    spelling: Spelling,
    bytes: Vec<u8>,
    /// Token id to the end of its bytes; they start where the last token's end.
    ends: Vec<u32>,
}

impl TokenBytes {
    pub(super) fn new(inner: &tokenizers::Tokenizer) -> Result<TokenBytes, String> {
        let spelling = spelling(inner)?;
        let alphabet = byte_level_alphabet();
        let vocabulary = inner.get_vocab(false);
        let added = inner.get_added_tokens_decoder();
        // A stray id far beyond the others would make the table huge.
        let limit = (vocabulary.len() + added.len()) * 2 + 65_536;
        let tokens = vocabulary.values().chain(added.keys()).max().map_or(0, |id| *id as usize + 1);
        if tokens > limit {
            return Err(format!(
                "a token id of {} in a vocabulary of {} is impossible",
                tokens - 1,
                vocabulary.len()
            ));
        }
        let mut spelled: Vec<&str> = vec![""; tokens];
        vocabulary.iter().for_each(|(token, id)| spelled[*id as usize] = token);
        let mut table = TokenBytes { spelling, bytes: vec![], ends: Vec::with_capacity(tokens) };
        for (id, token) in spelled.iter().enumerate() {
            match added.get(&(id as u32)) {
                Some(added) => table.bytes.extend_from_slice(added.content.as_bytes()),
                None => spell(spelling, &alphabet, token, &mut table.bytes),
            }
            table.ends.push(table.bytes.len() as u32);
        }
        Ok(table)
    }

    /// The bytes of a token, none for ids that are no token.
    pub(super) fn of(&self, id: u32) -> &[u8] {
        let Some(&end) = self.ends.get(id as usize) else { return &[] };
        let start = (id as usize).checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..end as usize]
    }

    pub(super) fn tokens(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn strips_first_space(&self) -> bool {
        self.spelling == Spelling::SentencePiece { strips_first_space: true }
    }
}

fn spell(spelling: Spelling, alphabet: &HashMap<char, u8>, token: &str, out: &mut Vec<u8>) {
    match spelling {
        Spelling::ByteLevel => {
            let start = out.len();
            for c in token.chars() {
                match alphabet.get(&c) {
                    Some(byte) => out.push(*byte),
                    None => {
                        // Not spelled in bytes at all: the token is its own text.
                        out.truncate(start);
                        out.extend_from_slice(token.as_bytes());
                        return;
                    }
                }
            }
        }
        Spelling::SentencePiece { .. } => match byte_token(token) {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(token.replace('▁', " ").as_bytes()),
        },
    }
}

/// The byte of a token such as `<0x0A>`.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// GPT-2's printable character of each byte, inverted: printable Latin-1 bytes stand for themselves, the rest for
/// the characters from U+0100 on, in order.
fn byte_level_alphabet() -> HashMap<char, u8> {
    let is_printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..=255u8).filter(|byte| !is_printable(byte));
    let own = (0..=255u8).filter(is_printable).map(|byte| (char::from(byte), byte));
    own.chain(('\u{100}'..).zip(others)).collect()
}

/// Reads off the decoder how the vocabulary spells bytes.
fn spelling(inner: &tokenizers::Tokenizer) -> Result<Spelling, String> {
    let decoder = serde_json::to_value(inner.get_decoder()).map_err(|e| e.to_string())?;
    let steps = match decoder.get("decoders").and_then(Value::as_array) {
        Some(steps) => steps.clone(),
        None => vec![decoder],
    };
    let is = |step: &Value, kind: &str| step.get("type").and_then(Value::as_str) == Some(kind);
    if steps.iter().any(|step| is(step, "ByteLevel")) {
        return Ok(Spelling::ByteLevel);
    }
    let metaspace = steps.iter().find(|step| is(step, "Metaspace"));
    let replaces = steps.iter().any(|step| is(step, "Replace") && step["content"] == " ");
    if metaspace.is_none() && !replaces {
        return Err("the tokenizer spells its tokens in a way that is not supported; byte-level BPE and \
                    SentencePiece are"
            .into());
    }
    let never = |step: &Value| step.get("prepend_scheme").and_then(Value::as_str) == Some("never");
    let strips = steps.iter().any(|step| is(step, "Strip")) || metaspace.is_some_and(|step| !never(step));
    Ok(Spelling::SentencePiece { strips_first_space: strips })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_gpt2s() {
        let alphabet = byte_level_alphabet();
        assert_eq!(alphabet.len(), 256);
        assert_eq!(alphabet[&'Ġ'], b' ');
        assert_eq!(alphabet[&'Ċ'], b'\n');
        assert_eq!(alphabet[&'A'], b'A');
        assert_eq!(alphabet[&'Ń'], 0xad);
    }

    #[test]
    fn byte_tokens_are_two_hex_digits() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xff>"), Some(255));
        for no in ["<0x0>", "<0x+A>", "0x0A", "<0x0AB>"] {
            assert_eq!(byte_token(no), None, "{no}");
        }
    }
}
