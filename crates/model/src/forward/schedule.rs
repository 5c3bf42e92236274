//! How a batch is cut into passes through the layers.

use super::Logits;
use std::ops::Range;

/// Consecutive tokens of one sequence that run in one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    /// Index of the sequence in the batch.
    pub(super) sequence: usize,
    /// Which of the sequence's tokens.
    pub(super) tokens: Range<usize>,
    /// Position of the first of them.
    pub(super) position: usize,
    /// How many tokens the sequence has at the end of the call.
    pub(super) end: usize,
    /// Rows of the batch's logits that it gives, from its last tokens.
    pub(super) logits: Range<usize>,
}

impl Span {
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }
}

/// A sequence on its way through the passes.
#[derive(Debug, Clone)]
struct Progress {
    /// Position of the first token of the call.
    position: usize,
    /// Tokens still to run.
    left: Range<usize>,
    /// Its rows of the logits.
    logits: Range<usize>,
}

/// What is left to run of the sequences of a batch.
///
/// A sequence is cut on its own grid: every `chunk` tokens from the first of the call, whatever the others do. So a call
/// of at most `chunk` tokens is one pass, a longer one is what calls of `chunk` tokens would be, and neighbours change
/// nothing. A pass takes the whole next spans of sequences, in order, while they are at most `chunk` tokens together;
/// those that do not fit wait for the next pass.
#[derive(Default)]
pub(super) struct Schedule {
    sequences: Vec<Progress>,
}

impl Schedule {
    /// Begins a batch of sequences, each given by the position of its first token and the number of its tokens.
    pub(super) fn begin(&mut self, sequences: impl Iterator<Item = (usize, usize)>, want: Logits) {
        self.sequences.clear();
        let mut row = 0;
        for (position, length) in sequences {
            let rows = match want {
                Logits::None => 0,
                Logits::Last => 1,
                Logits::All => length,
            };
            self.sequences.push(Progress { position, left: 0..length, logits: row..row + rows });
            row += rows;
        }
    }

    /// Rows of the logits of all sequences.
    pub(super) fn rows(&self) -> usize {
        self.sequences.last().map_or(0, |sequence| sequence.logits.end)
    }

    /// Rows of the logits of one sequence.
    pub(super) fn rows_of(&self, sequence: usize) -> Range<usize> {
        self.sequences[sequence].logits.clone()
    }

    /// Leaves out what is left of a sequence.
    pub(super) fn give_up(&mut self, sequence: usize) {
        self.sequences[sequence].left = 0..0;
    }

    /// Fills `spans` with the next pass, at most one span a sequence, in the order of the batch; false when nothing is
    /// left.
    pub(super) fn next(&mut self, chunk: usize, spans: &mut Vec<Span>) -> bool {
        spans.clear();
        let mut room = chunk;
        for (sequence, Progress { position, left, logits }) in self.sequences.iter_mut().enumerate() {
            let length = left.len().min(chunk);
            if length == 0 || length > room {
                continue;
            }
            room -= length;
            let tokens = left.start..left.start + length;
            left.start = tokens.end;
            // The last row is that of the last token; tokens that have no row lie before the first.
            let row = |token: usize| logits.end - (left.end - token).min(logits.len());
            let logits = row(tokens.start)..row(tokens.end);
            let (position, end) = (*position + tokens.start, *position + left.end);
            spans.push(Span { sequence, position, end, tokens, logits });
        }
        !spans.is_empty()
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.sequences.capacity() * size_of::<Progress>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The passes of sequences of so many tokens, the first of each at position 100 · its index.
    fn passes(lengths: &[usize], chunk: usize, want: Logits) -> Vec<Vec<Span>> {
        let mut schedule = Schedule::default();
        schedule.begin(lengths.iter().enumerate().map(|(i, length)| (100 * i, *length)), want);
        let (mut passes, mut spans) = (vec![], vec![]);
        while schedule.next(chunk, &mut spans) {
            passes.push(spans.clone());
        }
        passes
    }

    proptest! {
        #[test]
        fn every_sequence_is_cut_as_if_it_were_alone(
            lengths in prop::collection::vec(0_usize..40, 0..8),
            chunk in 1_usize..20,
        ) {
            let passes = passes(&lengths, chunk, Logits::All);
            for (sequence, length) in lengths.iter().enumerate() {
                let own = passes.iter().flatten().filter(|span| span.sequence == sequence);
                let found: Vec<_> = own.map(|span| (span.tokens.clone(), span.position)).collect();
                let starts = (0..*length).step_by(chunk);
                let alone: Vec<_> =
                    starts.map(|at| (at..(at + chunk).min(*length), 100 * sequence + at)).collect();
                prop_assert_eq!(found, alone);
            }
            for pass in &passes {
                prop_assert!(pass.iter().map(Span::len).sum::<usize>() <= chunk);
                prop_assert!(pass.is_sorted_by_key(|span| span.sequence));
            }
        }

        #[test]
        fn every_row_of_logits_comes_from_one_token(
            lengths in prop::collection::vec(1_usize..40, 1..8),
            chunk in 1_usize..20,
        ) {
            for (want, rows) in
                [(Logits::None, 0), (Logits::Last, lengths.len()), (Logits::All, lengths.iter().sum())]
            {
                let mut found: Vec<usize> =
                    passes(&lengths, chunk, want).into_iter().flatten().flat_map(|span| span.logits).collect();
                found.sort_unstable();
                prop_assert_eq!(found, (0..rows).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_pass_takes_who_fits() {
        let span = |sequence, tokens: Range<usize>, logits| Span {
            sequence,
            position: 100 * sequence + tokens.start,
            end: 100 * sequence + [5, 9, 2][sequence],
            tokens,
            logits,
        };
        let expected = vec![
            vec![span(0, 0..5, 0..1), span(2, 0..2, 2..3)],
            vec![span(1, 0..8, 1..1)],
            vec![span(1, 8..9, 1..2)],
        ];
        assert_eq!(passes(&[5, 9, 2], 8, Logits::Last), expected);
    }

    #[test]
    fn who_gives_up_runs_no_more() {
        let (mut schedule, mut spans) = (Schedule::default(), vec![]);
        schedule.begin([(0, 9), (0, 1)].into_iter(), Logits::None);
        assert!(schedule.next(4, &mut spans));
        schedule.give_up(0);
        assert!(schedule.next(4, &mut spans));
        assert_eq!((spans.len(), spans[0].sequence), (1, 1));
        assert!(!schedule.next(4, &mut spans));
    }
}
