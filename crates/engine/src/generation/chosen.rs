//! The newest tokens of a text: chosen, but not yet in the cache for good.

use std::collections::VecDeque;

/// Tokens from the first that is not yet in the cache, or may have to be taken out of it again, to the last chosen.
///
/// Each is in turn *read* (its text goes past the stop texts), *run* (the cache sees it) and *shown* (all of its text is
/// certain), in this order except that showing may take until later ones are read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chosen {
    tokens: VecDeque<u32>,
    read: usize,
    ran: usize,
    shown: usize,
    /// Bytes that are shown of the first token that is not shown whole.
    partial: usize,
    /// Where the texts of the tokens that are read and not shown whole end, in bytes from where the first begins.
    ends: VecDeque<usize>,
}

impl Chosen {
    /// Tokens that another run chose, of which the first `shown` and `partial` bytes of the next were shown.
    pub(crate) fn resume(tokens: impl IntoIterator<Item = u32>, shown: usize, partial: usize) -> Self {
        Chosen { tokens: tokens.into_iter().collect(), shown, partial, ..Chosen::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = u32> + '_ {
        self.tokens.iter().copied()
    }

    /// How many are shown whole.
    pub(crate) fn shown(&self) -> usize {
        self.shown
    }

    /// Bytes that are shown of the first token that is not shown whole.
    pub(crate) fn partial(&self) -> usize {
        self.partial
    }

    /// Adds a token, to be read next but for those that wait.
    pub(crate) fn push(&mut self, token: u32) {
        self.tokens.push_back(token);
    }

    /// The next token to be read.
    pub(crate) fn unread(&self) -> Option<u32> {
        self.tokens.get(self.read).copied()
    }

    /// What of the text of the next token to be read was not shown before.
    pub(crate) fn unseen<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        match self.read.cmp(&self.shown) {
            std::cmp::Ordering::Less => &[],
            std::cmp::Ordering::Equal => text.get(self.partial..).unwrap_or_default(),
            std::cmp::Ordering::Greater => text,
        }
    }

    /// The next token is read: it has a text of `bytes`, and the last `held` bytes of the text so far are uncertain.
    pub(crate) fn read(&mut self, bytes: usize, held: usize) {
        if self.read >= self.shown {
            let end = self.ends.back().copied().unwrap_or(0) + bytes;
            self.ends.push_back(end);
            self.show(end - held);
        }
        self.read += 1;
    }

    /// Everything before `certain`, in bytes from where the first token begins that is not shown whole, is certain.
    fn show(&mut self, mut certain: usize) {
        while let Some(end) = self.ends.front().copied().filter(|&end| end <= certain) {
            self.ends.pop_front();
            self.ends.iter_mut().for_each(|later| *later -= end);
            self.shown += 1;
            certain -= end;
        }
        self.partial = certain;
    }

    /// Everything is certain.
    pub(crate) fn show_all(&mut self) {
        self.shown = self.tokens.len();
        self.partial = 0;
        self.ends.clear();
    }

    /// The next token to be run; it must have been read.
    pub(crate) fn next(&self) -> Option<&u32> {
        self.tokens.get(self.ran)
    }

    /// Whether the next token to be run is the last chosen.
    pub(crate) fn is_last(&self) -> bool {
        self.ran + 1 == self.tokens.len()
    }

    /// Whether running the next token puts one into the cache that may have to be taken out again.
    pub(crate) fn risks(&self) -> bool {
        self.ran >= self.shown
    }

    /// The next token is run.
    pub(crate) fn run(&mut self) {
        self.ran += 1;
    }

    /// Whether the cache holds tokens that may have to be taken out of it again.
    pub(crate) fn is_ahead(&self) -> bool {
        self.ran > self.shown
    }

    /// Lets go of what is run, if all of it is shown; says whether it did.
    pub(crate) fn settle(&mut self) -> bool {
        if self.ran == 0 || self.is_ahead() {
            return false;
        }
        self.tokens.drain(..self.ran);
        self.read -= self.ran;
        self.shown -= self.ran;
        self.ran = 0;
        true
    }

    /// The cache is back to before the first token: all are to be read and run again.
    pub(crate) fn rewind(&mut self) {
        (self.read, self.ran) = (0, 0);
        self.ends.clear();
    }

    /// Drops what was not shown; gives the token that was shown in part, and how many bytes of it. To be used rewound.
    pub(crate) fn cut(&mut self) -> Option<(u32, usize)> {
        let parted = self.tokens.get(self.shown).copied().filter(|_| self.partial > 0);
        let cut = parted.map(|token| (token, self.partial));
        self.tokens.truncate(self.shown);
        self.partial = 0;
        cut
    }

    /// Takes the last token off. To be used rewound and cut.
    pub(crate) fn pop(&mut self) -> Option<u32> {
        let token = self.tokens.pop_back();
        self.shown = self.shown.min(self.tokens.len());
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads tokens of these lengths, each leaving so many bytes uncertain.
    fn read(chosen: &mut Chosen, tokens: &[(usize, usize)]) {
        for &(bytes, held) in tokens {
            chosen.push(7);
            chosen.read(bytes, held);
        }
    }

    #[test]
    fn tokens_are_shown_when_their_last_byte_is_certain() {
        let mut chosen = Chosen::default();
        read(&mut chosen, &[(3, 0)]);
        assert_eq!((chosen.shown(), chosen.partial()), (1, 0));
        chosen.run();
        assert!(chosen.settle() && chosen.is_empty());
        // "a na", "m", "es": the stop text "named" holds "na", then "nam", then nothing.
        read(&mut chosen, &[(4, 2)]);
        assert_eq!((chosen.shown(), chosen.partial()), (0, 2));
        assert!(chosen.risks());
        chosen.run();
        read(&mut chosen, &[(1, 3)]);
        assert_eq!((chosen.shown(), chosen.partial()), (0, 2));
        assert!(chosen.is_ahead() && !chosen.settle());
        chosen.run();
        read(&mut chosen, &[(2, 0)]);
        assert_eq!((chosen.shown(), chosen.partial()), (3, 0));
        assert!(chosen.settle());
        assert_eq!(chosen.len(), 1, "the last is not run");
        assert!(!chosen.risks());
    }

    #[test]
    fn what_was_not_shown_is_cut() {
        let mut chosen = Chosen::default();
        read(&mut chosen, &[(4, 2), (3, 4), (2, 6)]);
        assert_eq!((chosen.shown(), chosen.partial()), (0, 3));
        let mut whole = chosen.clone();
        chosen.rewind();
        assert_eq!(chosen.cut(), Some((7, 3)));
        assert!(chosen.is_empty() && chosen.cut().is_none());
        // Read again, nothing is shown twice.
        whole.rewind();
        assert_eq!(whole.unseen(b"abcd"), b"d");
        whole.read(4, 1);
        assert_eq!((whole.shown(), whole.partial()), (0, 3));
        assert_eq!(whole.unseen(b"efg"), b"efg");
        whole.read(3, 0);
        assert_eq!((whole.shown(), whole.partial()), (2, 0));
        whole.show_all();
        whole.rewind();
        assert_eq!(whole.unseen(b"abcd"), b"");
        assert_eq!(whole.pop(), Some(7));
        assert_eq!((whole.len(), whole.shown()), (2, 2));
    }
}
