use super::Tokenizer;

/// A streaming detokenizer: gives whole characters only.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    show_special: bool,
    pending: Utf8Buffer,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, show_special: bool) -> Self {
        TextStream { tokenizer, show_special, pending: Utf8Buffer::default() }
    }

    /// The text that `token` completes, often empty within a character of several bytes.
    pub fn push(&mut self, token: u32) -> String {
        let hidden = !self.show_special && self.tokenizer.is_special(token);
        self.pending.push(if hidden { &[] } else { self.tokenizer.token_bytes(token) })
    }

    /// What is left when no more tokens come: U+FFFD for an unfinished character.
    pub fn finish(&mut self) -> String {
        self.pending.finish()
    }
}

/// Bytes that wait for the rest of their character: at most three.
#[derive(Default)]
struct Utf8Buffer {
    bytes: Vec<u8>,
}

impl Utf8Buffer {
    /// All whole characters; bytes that can become none are U+FFFD, an unfinished character stays.
    fn push(&mut self, bytes: &[u8]) -> String {
        self.bytes.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest: &[u8] = &self.bytes;
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    // No length means that the bytes only break off, and may still become a character.
                    let Some(length) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[length..];
                }
            }
        }
        self.bytes = rest.to_vec();
        text
    }

    fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        self.bytes.clear();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_unfinished_character_waits() {
        let mut buffer = Utf8Buffer::default();
        assert_eq!(buffer.push(b"a\xf0\x9f"), "a");
        assert_eq!(buffer.push(b"\x99"), "");
        assert_eq!(buffer.push(b"\x82b"), "🙂b");
        assert_eq!(buffer.push(b"\xe2\x82"), "");
        assert_eq!(buffer.finish(), "\u{fffd}");
        assert_eq!(buffer.finish(), "");
    }

    proptest! {
        /// However the bytes are cut, the stream says what the whole would.
        #[test]
        fn cuts_do_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..64), cut in 1usize..5) {
            let mut buffer = Utf8Buffer::default();
            let mut text: String = bytes.chunks(cut).map(|piece| buffer.push(piece)).collect();
            text.push_str(&buffer.finish());
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
