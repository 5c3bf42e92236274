//! Which kept slots a query looks at.

mod all;

use crate::keep::Context;
use crate::method::{Call, Method};
use crate::state::{Reader, StateError, Writer};

/// One KV head's index of its slots.
///
/// An index chooses strips of 16 slots, because the keys of a strip share their cache lines: once a strip is touched,
/// the exact scores of all its slots come for free. It is asked at every single-token step; chunks of several tokens
/// read all slots.
pub trait Read: Send + Sync {
    /// A copy with all its state.
    fn clone_box(&self) -> Box<dyn Read>;

    /// Heap bytes for `slots` slots, a multiple of 16.
    fn bytes(&self, slots: usize) -> usize;

    /// Makes room for `slots` slots, a multiple of 16, or gives room back.
    fn resize(&mut self, slots: usize);

    /// A key `[head_dim]` was written to a slot.
    fn write(&mut self, slot: usize, key: &[f32]);

    /// A slot was moved.
    fn relocate(&mut self, from: usize, to: usize);

    /// Chooses the strips to read for `queries`, `[query][head_dim]`, scaled; pushes their indexes in ascending order.
    fn select(&mut self, queries: &[f32], view: &View<'_>, chosen: &mut Vec<u32>);

    /// Writes all state.
    fn save(&self, out: &mut Writer);

    /// Reads what [`Read::save`] wrote.
    ///
    /// # Errors
    /// When the bytes are not what it writes.
    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError>;
}

/// The slots an index chooses from.
pub struct View<'a> {
    /// Positions of the slots, `[slot]`.
    pub positions: &'a [u32],
    /// One bit per slot of each page of 64: whether it holds a token.
    pub live: &'a [u64],
    /// Position of the query.
    pub position: usize,
}

impl View<'_> {
    /// Which of the 16 slots of a strip hold a token.
    pub fn live_in(&self, strip: usize) -> u16 {
        (self.live[strip / 4] >> (strip % 4 * 16)) as u16
    }
}

/// Builds an index from its call; `None` to read everything.
pub type Build = fn(&Call, &Context<'_>) -> Option<Box<dyn Read>>;

/// All reads.
pub static READS: &[(&Method, Build)] = &[(&all::METHOD, all::build)];
