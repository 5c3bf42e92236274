//! Stop texts over text that arrives in pieces.

/// Holds text back while it may be the beginning of a stop text.
#[derive(Debug, Clone)]
pub(crate) struct StopTexts {
    texts: Vec<String>,
    held: String,
}

impl StopTexts {
    /// Empty texts stop nothing.
    pub(crate) fn new(mut texts: Vec<String>) -> Self {
        texts.retain(|text| !text.is_empty());
        StopTexts { texts, held: String::new() }
    }

    /// Text that is certain after `piece` arrived, and whether a stop text followed it.
    pub(crate) fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        if let Some(at) = self.texts.iter().filter_map(|text| self.held.find(text)).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let rest = self.held.split_off(self.certain());
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The text held back, when no more comes.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the front of what is held that no stop text can claim any more.
    fn certain(&self) -> usize {
        let held = &self.held;
        let may_begin = |at: &usize| self.texts.iter().any(|text| text.starts_with(&held[*at..]));
        held.char_indices().map(|(at, _)| at).find(may_begin).unwrap_or(held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feed(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut stop = StopTexts::new(stops.iter().map(|s| s.to_string()).collect());
        let mut out = vec![];
        for piece in pieces {
            let (text, stopped) = stop.push(piece);
            out.push(text);
            if stopped {
                return (out, true);
            }
        }
        out.push(stop.finish());
        (out, false)
    }

    #[test]
    fn a_stop_text_is_found_across_pieces_and_never_shown() {
        assert_eq!(feed(&["END"], &["a E", "N", "D b"]), (vec!["a ".into(), "".into(), "".into()], true));
        assert_eq!(
            feed(&["END"], &["E", "NE", "x"]),
            (vec!["".into(), "EN".into(), "Ex".into(), "".into()], false)
        );
        assert_eq!(feed(&["aab"], &["aa", "ab"]), (vec!["".into(), "a".into()], true));
        assert_eq!(feed(&["\n\n", "."], &["x\n", "y."]), (vec!["x".into(), "\ny".into()], true));
        assert_eq!(feed(&[""], &["x"]), (vec!["x".into(), "".into()], false));
        assert_eq!(feed(&["né"], &["n", "e"]), (vec!["".into(), "ne".into(), "".into()], false));
    }

    proptest! {
        /// However the text is cut, what is shown is the text before the first stop text.
        #[test]
        fn cuts_do_not_matter(text in "[ab]{0,24}", stops in prop::collection::vec("[ab]{1,4}", 0..3), cut in 1usize..5) {
            let pieces: Vec<&str> = text.as_bytes().chunks(cut).map(|c| std::str::from_utf8(c).unwrap()).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (shown, stopped) = feed(&stops, &pieces);
            // The first stop text is the one that is complete first; of those, the one that begins first.
            let first = (1..=text.len()).find_map(|end| {
                stops.iter().filter_map(|s| text[..end].find(s)).min()
            });
            prop_assert_eq!(stopped, first.is_some());
            if cut == 1 || first.is_none() {
                prop_assert_eq!(shown.concat(), &text[..first.unwrap_or(text.len())]);
            } else {
                prop_assert!(text.starts_with(&shown.concat()));
            }
        }
    }
}
