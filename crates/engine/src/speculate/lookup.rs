//! Guesses from the text itself: what followed the last time that the newest tokens came (prompt look-up).

use super::{Confidence, Drafter};
use sketchkv_model::Model;
use std::collections::HashMap;

/// Tokens that must have come before.
const LEAST: usize = 2;
/// Longer agreement is not told apart.
const LONGEST: usize = 32;
/// Earlier places that are looked at for the longest agreement.
const PLACES: usize = 24;

/// Looks the newest tokens up in the text before them.
#[derive(Default)]
pub struct Lookup {
    text: Vec<u32>,
    /// Where each pair of tokens ended last: one behind it.
    newest: HashMap<[u32; LEAST], usize>,
    /// `[position]`: where the pair that ends before it ended the time before; 0 for never.
    before: Vec<usize>,
}

impl Lookup {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Learns `text`, of which it may know the beginning.
    fn learn(&mut self, text: &[u32]) {
        if !text.starts_with(&self.text) {
            *self = Lookup::new();
        }
        for &token in &text[self.text.len()..] {
            self.text.push(token);
            let end = self.text.len();
            let earlier = match self.text.last_chunk::<LEAST>() {
                Some(pair) => self.newest.insert(*pair, end).unwrap_or(0),
                None => 0,
            };
            self.before.push(earlier);
        }
    }

    /// The place with the longest agreement, the newest of equals, and how long that is.
    fn longest(&self) -> Option<(usize, usize)> {
        let end = self.text.len();
        let mut place = *self.before.last()?;
        let mut best: Option<(usize, usize)> = None;
        for _ in 0..PLACES {
            if place == 0 {
                break;
            }
            let pairs = self.text[..place].iter().rev().zip(self.text[..end].iter().rev());
            let agree = pairs.take(LONGEST).take_while(|(a, b)| a == b).count();
            if best.is_none_or(|(_, longest)| agree > longest) {
                best = Some((place, agree));
            }
            place = self.before[place - 1];
        }
        best
    }
}

impl Drafter for Lookup {
    fn draft(&mut self, _model: &Model, text: &[u32], most: usize, guesses: &mut Vec<u32>) -> Confidence {
        self.learn(text);
        let Some((place, agree)) = self.longest() else { return Confidence::Low };
        // What repeats itself goes on so.
        let period = self.text.len() - place;
        guesses.extend((0..most).map(|i| self.text[place + i % period]));
        match agree {
            0..4 => Confidence::Low,
            4..12 => Confidence::Middle,
            _ => Confidence::High,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(lookup: &mut Lookup, text: &[u32], most: usize) -> (Vec<u32>, Option<usize>) {
        lookup.learn(text);
        let Some((place, agree)) = lookup.longest() else { return (vec![], None) };
        let period = text.len() - place;
        ((0..most).map(|i| text[place + i % period]).collect(), Some(agree))
    }

    #[test]
    fn the_longest_agreement_is_gone_on_with() {
        let mut lookup = Lookup::new();
        //          1 2 3 → 4, later 2 3 → 9
        let text = [1, 2, 3, 4, 5, 2, 3, 9, 8, 1, 2, 3];
        assert_eq!(guess(&mut lookup, &text, 3), (vec![4, 5, 2], Some(3)));
        let text = [&text[..], &[7, 2, 3]].concat();
        assert_eq!(guess(&mut lookup, &text, 2).0, [7, 2], "the newest of equals");
        assert_eq!(guess(&mut lookup, &[&text[..], &[6]].concat(), 2), (vec![], None));
        // Another text: nothing of the first is remembered.
        assert_eq!(guess(&mut lookup, &[1, 2, 3, 1, 2], 4), (vec![3, 1, 2, 3], Some(2)));
        assert_eq!(guess(&mut lookup, &[5], 4), (vec![], None));
    }

    #[test]
    fn a_period_goes_round() {
        let mut lookup = Lookup::new();
        assert_eq!(guess(&mut lookup, &[4, 4, 4], 5).0, [4; 5]);
        assert_eq!(guess(&mut lookup, &[1, 2, 1, 2, 1], 5).0, [2, 1, 2, 1, 2]);
    }
}
