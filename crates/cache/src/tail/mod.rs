//! What is remembered of tokens no longer kept.

mod buckets;
mod countsketch;
mod fitted;
mod merge;
mod none;
mod race;

pub use countsketch::countsketch_cosine;

use crate::context::{Buffers, Context, Neighbours, Partial, Sample};
use crate::method::{Call, Method};
use crate::state::{Reader, StateError, Writer};

/// One KV head's memory of evicted tokens, of fixed size.
pub trait Tail: Send + Sync {
    /// A copy with all its state.
    fn clone_box(&self) -> Box<dyn Tail>;

    /// Heap bytes; fixed from the start.
    fn bytes(&self) -> usize;

    /// Whether it must know how much attention a token draws when it is evicted.
    fn watches(&self) -> bool {
        false
    }

    /// Of how many queries of a pass it wants to know; see [`Tail::settle`].
    fn samples(&self) -> usize {
        0
    }

    /// Takes in an evicted token; `neighbours` are the slots that stay.
    fn absorb(&mut self, token: &Evicted<'_>, neighbours: &mut dyn Neighbours, buffers: &mut Buffers);

    /// Ends the evictions of a pass, of which `sample` are some queries, [`Tail::samples`] at most; none where only the cap has
    /// changed.
    fn settle(&mut self, _sample: &Sample<'_>, _buffers: &mut Buffers) {}

    /// Adds what the evicted tokens contribute to the attention of `queries`, `[query][key_dim]`, scaled.
    fn attend(&self, queries: &[f32], partial: &mut Partial, buffers: &mut Buffers);

    /// Writes all state.
    fn save(&self, out: &mut Writer);

    /// Reads what [`Tail::save`] wrote.
    ///
    /// # Errors
    /// When the bytes are not what it writes.
    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError>;
}

/// A token on its way out.
pub struct Evicted<'a> {
    /// Key as it was stored, `[key_dim]`, rotated.
    pub key: &'a [f32],
    /// Value as it was stored, `[value_dim]`.
    pub value: &'a [f32],
    /// Position in the sequence.
    pub position: usize,
    /// Its importance to the keep that evicted it.
    pub importance: f32,
    /// Attention it drew in this step relative to the mean over all tokens, where the keep or the tail watches.
    pub relative_mass: f32,
}

/// Builds a tail from its call; `None` for no tail.
pub type Build = fn(&Call, &Context<'_>) -> Option<Box<dyn Tail>>;

/// All tails.
pub(crate) static TAILS: &[(&Method, Build)] = &[
    (&none::METHOD, none::build),
    (&buckets::METHOD, buckets::build),
    (&race::METHOD, race::build),
    (&countsketch::METHOD, countsketch::build),
    (&merge::METHOD, merge::build),
    (&fitted::METHOD, fitted::build),
];
