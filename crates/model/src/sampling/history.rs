use super::Sampling;
use std::collections::VecDeque;

/// Tokens that are remembered at least, so that a text can go on under a wider window, or a penalty, than it was begun
/// with.
const REMEMBERED: usize = 1024;

/// The newest tokens of a text, and which of them the model chose.
#[derive(Debug, Clone)]
pub(super) struct History {
    /// Oldest first.
    tokens: VecDeque<u32>,
    /// How many of the last the model chose, one after the other.
    generated: usize,
    /// Room for tokens in order.
    sorted: Vec<u32>,
}

impl History {
    /// `tokens`, oldest first, of which the model chose the last `generated`.
    pub(super) fn new(tokens: Vec<u32>, generated: usize) -> Self {
        let generated = generated.min(tokens.len());
        History { tokens: tokens.into(), generated, sorted: Vec::new() }
    }

    /// As [`History::new`], of tokens of which those are remembered that `window` and the least ask for.
    pub(super) fn recall(tokens: impl IntoIterator<Item = u32>, generated: usize, window: usize) -> Self {
        let mut history = History::new(Vec::new(), 0);
        tokens.into_iter().for_each(|token| history.push(token, false, window));
        history.generated = generated.min(history.tokens.len());
        history
    }

    /// The next token of the text. What came before one that the model did not choose is prompt from then on.
    pub(super) fn push(&mut self, token: u32, generated: bool, window: usize) {
        if self.tokens.len() >= window.max(REMEMBERED) {
            self.tokens.pop_front();
        }
        self.tokens.push_back(token);
        self.generated = if generated { (self.generated + 1).min(self.tokens.len()) } else { 0 };
    }

    pub(super) fn tokens(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.tokens.iter().copied()
    }

    pub(super) fn generated(&self) -> usize {
        self.generated
    }

    /// Whether the penalties of `sampling` change any logit.
    pub(super) fn penalises(&self, sampling: &Sampling) -> bool {
        let repetition = sampling.repetition_penalty != 1.0 && !self.tokens.is_empty();
        let own = sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0;
        repetition || own && self.generated > 0
    }

    /// Takes the penalties of `sampling` from the logits.
    pub(super) fn penalise(&mut self, sampling: &Sampling, logits: &mut [f32]) {
        let window = sampling.repetition_window;
        if sampling.repetition_penalty != 1.0 {
            let penalty = sampling.repetition_penalty;
            self.each_of_last(window, |token, _| {
                if let Some(logit) = logits.get_mut(token as usize) {
                    let penalised = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
                    *logit = penalised.clamp(f32::MIN, f32::MAX);
                }
            });
        }
        if sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0 {
            self.each_of_last(window.min(self.generated), |token, count| {
                if let Some(logit) = logits.get_mut(token as usize) {
                    let penalty = count as f32 * sampling.frequency_penalty + sampling.presence_penalty;
                    *logit = (*logit - penalty).clamp(f32::MIN, f32::MAX);
                }
            });
        }
    }

    /// Each token among the last `window`, once, and how often it is there.
    fn each_of_last(&mut self, window: usize, mut each: impl FnMut(u32, usize)) {
        self.sorted.clear();
        self.sorted.extend(self.tokens.iter().rev().take(window));
        self.sorted.sort_unstable();
        self.sorted.chunk_by(|a, b| a == b).for_each(|same| each(same[0], same.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_follows_a_prompt_is_counted_anew() {
        let mut history = History::new(vec![1, 2], 7);
        assert_eq!(history.generated(), 2, "no more than there are");
        history.push(3, true, 8);
        assert_eq!(history.generated(), 3);
        history.push(4, false, 8);
        history.push(5, true, 8);
        assert_eq!(history.generated(), 1);
        (0..2 * REMEMBERED as u32).for_each(|token| history.push(token, true, 8));
        assert_eq!((history.generated(), history.tokens().count()), (REMEMBERED, REMEMBERED));
    }

    proptest! {
        /// Against the definitions, token by token.
        #[test]
        fn the_definitions(
            text in prop::collection::vec((0u32..12, any::<bool>()), 0..40),
            window in 0usize..30,
            repetition_penalty in prop_oneof![Just(1.0f32), 0.5f32..2.0],
            presence_penalty in prop_oneof![Just(0.0f32), -2.0f32..2.0],
            frequency_penalty in prop_oneof![Just(0.0f32), -2.0f32..2.0],
            logits in prop::collection::vec(-9f32..9.0, 10),
        ) {
            let sampling = Sampling {
                repetition_penalty,
                presence_penalty,
                frequency_penalty,
                repetition_window: window,
                ..Sampling::greedy()
            };
            let mut history = History::new(vec![], 0);
            text.iter().for_each(|&(token, generated)| history.push(token, generated, window));
            let mut penalised = logits.clone();
            history.penalise(&sampling, &mut penalised);
            let last = &text[text.len().saturating_sub(window)..];
            let own = last.iter().rev().take_while(|(_, generated)| *generated).count();
            for (token, (&before, &after)) in logits.iter().zip(&penalised).enumerate() {
                let mut expected = before;
                if last.iter().any(|(seen, _)| *seen as usize == token) {
                    let factor = if before > 0.0 { 1.0 / repetition_penalty } else { repetition_penalty };
                    expected *= factor;
                }
                let count = last[last.len() - own..].iter().filter(|(seen, _)| *seen as usize == token).count();
                expected -= count as f32 * frequency_penalty;
                expected -= if count > 0 { presence_penalty } else { 0.0 };
                prop_assert!((expected - after).abs() < 1e-4, "{token}: {expected} {after}");
            }
            prop_assert!(history.penalises(&sampling) || penalised == logits);
        }
    }
}
