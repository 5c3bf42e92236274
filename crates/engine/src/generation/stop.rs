//! Stop texts over bytes that arrive in pieces.

/// Holds bytes back while they may be the beginning of a stop text.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopTexts {
    texts: Vec<String>,
    held: Vec<u8>,
}

impl StopTexts {
    /// Empty texts stop nothing.
    pub(crate) fn new(texts: &[String]) -> Self {
        let texts = texts.iter().filter(|text| !text.is_empty()).cloned().collect();
        StopTexts { texts, held: Vec::new() }
    }

    /// Appends to `certain` what is certain after `piece` arrived, and says whether a stop text follows it; from that on,
    /// what arrived is held back.
    pub(crate) fn push(&mut self, piece: &[u8], certain: &mut Vec<u8>) -> bool {
        if self.texts.is_empty() {
            certain.extend_from_slice(piece);
            return false;
        }
        self.held.extend_from_slice(piece);
        let first = self.texts.iter().filter_map(|text| find(&self.held, text.as_bytes())).min();
        let end = first.unwrap_or_else(|| self.unclaimed());
        certain.extend(self.held.drain(..end));
        first.is_some()
    }

    /// Bytes held back.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Bytes at the front of what is held that no stop text can claim any more.
    fn unclaimed(&self) -> usize {
        let may_begin = |at: &usize| {
            let rest = &self.held[*at..];
            self.texts.iter().any(|text| text.as_bytes().starts_with(rest))
        };
        (0..self.held.len()).find(may_begin).unwrap_or(self.held.len())
    }
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What each piece makes certain, what is held at the end, and whether a stop text came.
    fn feed(stops: &[&str], pieces: &[&str]) -> (Vec<String>, String, bool) {
        let mut stop = StopTexts::new(&stops.iter().map(|s| s.to_string()).collect::<Vec<_>>());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let mut out = vec![];
        let mut stopped = false;
        for piece in pieces {
            let mut certain = vec![];
            stopped = stop.push(piece.as_bytes(), &mut certain);
            out.push(text(certain));
            if stopped {
                break;
            }
        }
        assert_eq!(stop.held(), stop.held.len());
        (out, text(stop.held), stopped)
    }

    #[test]
    fn a_stop_text_is_found_across_pieces_and_never_shown() {
        let found = |pieces: &[&str], held: &str| {
            (pieces.iter().map(|p| p.to_string()).collect::<Vec<_>>(), held.to_owned(), true)
        };
        assert_eq!(feed(&["END"], &["a E", "N", "D b"]), found(&["a ", "", ""], "END b"));
        assert_eq!(feed(&["aab"], &["aa", "ab"]), found(&["", "a"], "aab"));
        assert_eq!(feed(&["\n\n", "."], &["x\n", "y."]), found(&["x", "\ny"], "."));
        let missed = |pieces: &[&str], held: &str| {
            (pieces.iter().map(|p| p.to_string()).collect::<Vec<_>>(), held.to_owned(), false)
        };
        assert_eq!(feed(&["END"], &["E", "NE", "x"]), missed(&["", "EN", "Ex"], ""));
        assert_eq!(feed(&["END"], &["an E"]), missed(&["an "], "E"));
        assert_eq!(feed(&[""], &["x"]), missed(&["x"], ""));
        assert_eq!(feed(&["né"], &["n", "e"]), missed(&["", "ne"], ""));
    }

    #[test]
    fn a_stop_text_is_found_where_characters_arrive_in_parts() {
        let mut stop = StopTexts::new(&["é!".to_owned()]);
        let mut certain = vec![];
        assert!(!stop.push(b"caf\xc3", &mut certain));
        assert_eq!((certain.as_slice(), stop.held()), (&b"caf"[..], 1));
        assert!(stop.push(b"\xa9!", &mut certain));
        assert_eq!((certain.as_slice(), stop.held()), (&b"caf"[..], 3));
    }

    proptest! {
        /// However the text is cut, what is shown is the text before the first stop text.
        #[test]
        fn cuts_do_not_matter(text in "[ab]{0,24}", stops in prop::collection::vec("[ab]{1,4}", 0..3), cut in 1usize..5) {
            let pieces: Vec<&str> = text.as_bytes().chunks(cut).map(|c| std::str::from_utf8(c).unwrap()).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (shown, held, stopped) = feed(&stops, &pieces);
            // The first stop text is the one that is complete first; of those, the one that begins first.
            let first = (1..=text.len()).find_map(|end| {
                stops.iter().filter_map(|s| text[..end].find(s)).min()
            });
            prop_assert_eq!(stopped, first.is_some());
            prop_assert!(text.starts_with(&(shown.concat() + &held)));
            if cut == 1 || first.is_none() {
                let shown = shown.concat() + if stopped { "" } else { &held };
                prop_assert_eq!(shown, &text[..first.unwrap_or(text.len())]);
            }
        }
    }
}
