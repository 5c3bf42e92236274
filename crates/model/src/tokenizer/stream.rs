/// Text of bytes that arrive in pieces: gives whole characters only.
///
/// ```
/// use sketchkv_model::TextStream;
/// let (mut stream, mut text) = (TextStream::default(), String::new());
/// stream.push(b"caf\xc3", &mut text);
/// assert_eq!(text, "caf");
/// stream.push(b"\xa9", &mut text);
/// assert_eq!(text, "café");
/// ```
#[derive(Debug, Clone, Default)]
pub struct TextStream {
    /// Bytes that wait for the rest of their character: at most three.
    waiting: Vec<u8>,
}

impl TextStream {
    /// Appends to `text` the characters that `bytes` complete; bytes that can become none are U+FFFD, those of an
    /// unfinished character wait.
    pub fn push(&mut self, bytes: &[u8], text: &mut String) {
        self.waiting.extend_from_slice(bytes);
        let mut rest: &[u8] = &self.waiting;
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
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
        let done = self.waiting.len() - rest.len();
        self.waiting.drain(..done);
    }

    /// Appends what is left when no more bytes come: U+FFFD for an unfinished character.
    pub fn finish(&mut self, text: &mut String) {
        text.push_str(&String::from_utf8_lossy(&self.waiting));
        self.waiting.clear();
    }

    /// The bytes of the unfinished character.
    pub fn waiting(&self) -> &[u8] {
        &self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_unfinished_character_waits() {
        let mut stream = TextStream::default();
        let mut push = |bytes: &[u8]| {
            let mut text = String::new();
            stream.push(bytes, &mut text);
            text
        };
        assert_eq!(push(b"a\xf0\x9f"), "a");
        assert_eq!(push(b"\x99"), "");
        assert_eq!(push(b"\x82b"), "🙂b");
        assert_eq!(push(b"\xe2\x82"), "");
        assert_eq!(stream.waiting(), b"\xe2\x82");
        let mut text = String::new();
        stream.finish(&mut text);
        stream.finish(&mut text);
        assert_eq!(text, "\u{fffd}");
    }

    proptest! {
        /// However the bytes are cut, the stream says what the whole would.
        #[test]
        fn cuts_do_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..64), cut in 1usize..5) {
            let (mut stream, mut text) = (TextStream::default(), String::new());
            bytes.chunks(cut).for_each(|piece| stream.push(piece, &mut text));
            stream.finish(&mut text);
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
