//! How many tokens are worth guessing: what a guess costs and how often it is right are measured as the text goes on.

use super::{Confidence, MOST};
use std::time::Duration;

/// Of a measurement that is added to those before.
const NEW: f64 = 0.15;
/// How far what is out of use comes back, each time that it would have been used: confidence towards `TRIED`, cost towards
/// nothing.
const BACK: f64 = 0.005;
/// A guess this likely is tried again.
const TRIED: f64 = 0.5;

/// What is known of passes and of guesses.
pub(super) struct Pace {
    /// Seconds of a pass of one token; nothing is guessed before that is known.
    one: Option<f64>,
    /// Seconds of each guess more; as a part of `one` before it is known.
    more: Option<f64>,
    /// How likely a guess is right after others that were, by confidence.
    right: [f64; 3],
    /// Times that guesses were not made for what they cost.
    skipped: i32,
    /// Whether the drafter had nothing to catch up with, which would be taken for the cost of guesses.
    pub(super) caught_up: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { one: None, more: None, right: [0.4, 0.6, 0.8], skipped: 0, caught_up: true }
    }
}

impl Pace {
    /// Most guesses that could be worth it.
    pub(super) fn most(&self) -> usize {
        if self.one.is_some() { MOST } else { 0 }
    }

    /// How many guesses of this confidence bring the most tokens a second; none where they cost more than they bring.
    pub(super) fn count(&mut self, confidence: Confidence) -> usize {
        let Some(one) = self.one else { return 0 };
        // It may have been measured at a bad moment.
        let more = self.more.unwrap_or(0.15 * one) * (1.0 - BACK).powi(self.skipped);
        let right = &mut self.right[confidence as usize];
        let (mut best, mut count, mut tokens, mut likely) = (1.0 / one, 0, 1.0, 1.0);
        for guesses in 1..=MOST {
            likely *= *right;
            tokens += likely;
            let rate = tokens / (one + guesses as f64 * more);
            if rate > best {
                (best, count) = (rate, guesses);
            }
        }
        if count == 0 {
            *right += BACK * (TRIED - *right).max(0.0);
            self.skipped += 1;
        }
        count
    }

    /// A pass took so long; its first `right` guesses were right.
    pub(super) fn note(&mut self, confidence: Confidence, guesses: usize, right: usize, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        if guesses == 0 {
            mix(&mut self.one, seconds);
            return;
        }
        self.skipped = 0;
        if let Some(one) = self.one.filter(|_| self.caught_up) {
            mix(&mut self.more, ((seconds - one) / guesses as f64).max(0.01 * one));
        }
        // Those behind the first wrong one say nothing.
        let likely = &mut self.right[confidence as usize];
        for guess in 0..guesses.min(right + 1) {
            *likely += NEW * (f64::from(u8::from(guess < right)) - *likely);
        }
    }
}

/// Adds a measurement; what the machine did beside it makes some much longer than the others.
fn mix(mean: &mut Option<f64>, new: f64) {
    *mean = Some(mean.map_or(new, |mean| mean + NEW * (new.min(3.0 * mean) - mean)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pace: &mut Pace, rounds: usize, one: f64, more: f64, right: impl Fn(usize) -> usize) -> usize {
        let mut guessed = 0;
        for _ in 0..rounds {
            let count = pace.count(Confidence::Low);
            let seconds = Duration::from_secs_f64(one + count as f64 * more);
            pace.note(Confidence::Low, count, right(count), seconds);
            guessed += count;
        }
        guessed
    }

    #[test]
    fn guesses_grow_where_they_are_right_and_stop_where_they_are_not() {
        let mut pace = Pace::default();
        assert_eq!(pace.most(), 0, "nothing is known of a pass");
        pace.note(Confidence::Low, 0, 0, Duration::from_millis(10));
        run(&mut pace, 40, 0.01, 0.001, |count| count);
        assert_eq!(pace.count(Confidence::Low), MOST);
        let wrong = run(&mut pace, 400, 0.01, 0.003, |_| 0);
        assert!(wrong < 100, "{wrong} guesses of 400 rounds");
        // Tried again now and then, and taken up when it pays.
        let later = run(&mut pace, 2000, 0.01, 0.003, |_| 0);
        assert!((1..120).contains(&later), "{later} guesses of 2000 rounds");
        run(&mut pace, 400, 0.01, 0.001, |count| count);
        assert_eq!(pace.count(Confidence::Low), MOST);
    }

    #[test]
    fn guesses_that_cost_a_pass_each_are_not_made() {
        let mut pace = Pace::default();
        pace.note(Confidence::Low, 0, 0, Duration::from_millis(10));
        run(&mut pace, 40, 0.01, 0.011, |count| count);
        pace.skipped = 0;
        assert_eq!(pace.count(Confidence::Low), 0);
        assert_eq!(pace.count(Confidence::High), 0, "what a guess costs is the same for all");
    }

    #[test]
    fn catching_up_is_not_what_a_guess_costs() {
        let mut pace = Pace::default();
        pace.note(Confidence::High, 0, 0, Duration::from_millis(10));
        pace.caught_up = false;
        pace.note(Confidence::High, 4, 4, Duration::from_secs(9));
        assert!(pace.count(Confidence::High) > 4);
    }
}
