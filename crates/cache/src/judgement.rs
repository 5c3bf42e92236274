//! What is decided about the tokens of one head when those of a chunk come in.

use crate::context::NewTokens;
use std::mem::size_of;

/// What a head's keep says of its slots and of the new tokens.
#[derive(Default)]
pub(crate) struct Judgement {
    /// State of the new tokens, `[token][words]`.
    pub(crate) state: Vec<u32>,
    /// Positions of the new tokens.
    pub(crate) positions: Vec<u32>,
    /// Importance of each slot, then of each new token; empty when none has to go.
    pub(crate) importance: Vec<f32>,
}

impl Judgement {
    /// Makes room for the state of new tokens, of which nothing is known yet.
    pub(crate) fn begin(&mut self, tokens: &NewTokens<'_>, words: usize) {
        self.state.clear();
        self.state.resize(words * tokens.count, 0);
        self.positions.clear();
        self.positions.extend(tokens.position as u32..tokens.end() as u32);
        self.importance.clear();
    }

    pub(crate) fn bytes(&self) -> usize {
        (self.state.capacity() + self.positions.capacity() + self.importance.capacity()) * size_of::<u32>()
    }
}

/// The tokens of one head that go.
#[derive(Default)]
pub(crate) struct Departures {
    /// Slots, in the order of their positions: tails must not depend on how a selection went.
    pub(crate) slots: Vec<u32>,
    /// New tokens that do not come in, ascending.
    pub(crate) tokens: Vec<u32>,
}

impl Departures {
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.tokens.clear();
    }

    /// For all of so many slots and new tokens.
    pub(crate) fn make_room(&mut self, slots: usize, tokens: usize) {
        self.slots.reserve_exact(slots);
        self.tokens.reserve_exact(tokens);
    }

    /// How many go.
    pub(crate) fn count(&self) -> usize {
        self.slots.len() + self.tokens.len()
    }

    /// Takes a candidate of a head of `slots` slots.
    pub(crate) fn push(&mut self, candidate: u32, slots: usize) {
        match candidate.checked_sub(slots as u32) {
            None => self.slots.push(candidate),
            Some(token) => self.tokens.push(token),
        }
    }

    /// Puts them in order, `positions` being those of the slots.
    pub(crate) fn sort(&mut self, positions: &[u32]) {
        self.slots.sort_unstable_by_key(|&slot| positions[slot as usize]);
        self.tokens.sort_unstable();
    }

    pub(crate) fn bytes(&self) -> usize {
        (self.slots.capacity() + self.tokens.capacity()) * size_of::<u32>()
    }
}
