use super::{Arrival, Context, Feedback, Keep, MOST_RECENT, RECENT, SINKS, Step, interval};
use crate::context::{Candidates, EMPTY};
use crate::method::{Call, Choice, Method};
use crate::state::{Reader, StateError, Writer};

pub(super) static METHOD: Method = Method {
    name: "kvzip",
    choice: Choice::Keep,
    summary: "the tokens that are looked at when the model repeats the text: for documents read once and asked often",
    formula: "s_i = max a_i over the queries that repeat the text, and the group; after that over all that come; evict argmin s",
    state: "4 B a slot",
    paper: "KVzip, arXiv 2505.23416",
    differs: "A text that is not a document, never repeated, is judged by the greatest attention that later passes have paid; \
              a token that nobody has seen yet counts as the mean of the others.",
    parameters: &[interval("64"), SINKS, RECENT],
};

pub(super) fn build(call: &Call, _: &Context<'_>) -> Box<dyn Keep> {
    Box::new(KvZip { interval: call.count("interval"), mean: 0.0 })
}

/// The state of a slot is s.
#[derive(Clone)]
struct KvZip {
    interval: usize,
    /// Of s, over the slots.
    mean: f32,
}

impl Keep for KvZip {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(self.clone())
    }

    fn words(&self) -> usize {
        1
    }

    fn feedback(&self, _tokens: usize) -> Option<Feedback> {
        Some(Feedback::Greatest)
    }

    fn is_comparable(&self) -> bool {
        true
    }

    fn batch(&self) -> usize {
        self.interval
    }

    fn most_recent(&self) -> usize {
        MOST_RECENT
    }

    fn observe(&mut self, step: &Step<'_>, state: &mut [u32]) {
        let (mut sum, mut count) = (0.0, 0);
        for ((score, &mass), &position) in state.iter_mut().zip(step.mass).zip(step.positions) {
            let most = f32::from_bits(*score).max(mass);
            *score = most.to_bits();
            if position != EMPTY {
                (sum, count) = (sum + f64::from(most), count + 1);
            }
        }
        self.mean = (sum / f64::from(count.max(1))) as f32;
    }

    fn arrive(&mut self, _: &Arrival<'_>, state: &mut [u32]) {
        state[0] = self.mean.to_bits();
    }

    fn importance(&mut self, candidates: &Candidates<'_>, out: &mut [f32]) {
        for (out, &score) in out.iter_mut().zip(&*candidates.state) {
            *out = f32::from_bits(score);
        }
    }

    fn asks_for_repetition(&self) -> bool {
        true
    }

    fn restart(&mut self, state: &mut [u32]) {
        state.fill(0);
        self.mean = 0.0;
    }

    fn save(&self, out: &mut Writer) {
        out.floats(&[self.mean]);
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.mean = from.floats(1)?[0];
        Ok(())
    }
}
