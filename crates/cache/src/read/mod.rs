//! Which kept slots a query looks at.

mod all;
mod quest;
mod topk;

use crate::keep::Context;
use crate::method::{Call, Kind, Method, Parameter};
use crate::partial::Partial;
use crate::state::{Reader, StateError, Writer};
use sketchkv_kernels::attention::layout::STRIP;

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

    /// Makes room for `slots` slots, a multiple of 16, or gives room back; with none, forgets everything.
    fn resize(&mut self, slots: usize);

    /// A token was written to a slot, in place of the one that was there or of none.
    fn write(&mut self, token: &Written<'_>);

    /// Chooses the strips to read for `queries`, `[query][head_dim]`, scaled; pushes their indexes in ascending order.
    /// What `scratch` holds does not matter.
    fn select(&self, queries: &[f32], view: &View<'_>, scratch: &mut Vec<f32>, chosen: &mut Vec<u32>);

    /// Adds what the slots outside the chosen strips contribute by estimate to the attention of `queries`.
    fn rest(&self, _queries: &[f32], _view: &View<'_>, _chosen: &[u32], _partial: &mut Partial) {}

    /// Writes all state.
    fn save(&self, out: &mut Writer);

    /// Reads what [`Read::save`] wrote.
    ///
    /// # Errors
    /// When the bytes are not what it writes.
    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError>;
}

/// A token that came into a slot.
pub struct Written<'a> {
    /// Where.
    pub slot: usize,
    /// Key, `[head_dim]`, rotated.
    pub key: &'a [f32],
    /// Value, `[head_dim]`.
    pub value: &'a [f32],
    /// The other slots of its page of 64 that hold a token, one bit each.
    pub others: u64,
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
pub static READS: &[(&Method, Build)] =
    &[(&all::METHOD, all::build), (&topk::METHOD, topk::build), (&quest::METHOD, quest::build)];

/// The first positions, which attention parks on: always read.
const SINKS: u32 = 4;
/// The newest positions, always read.
const RECENT: u32 = 32;

/// How many slots are read.
const K: Parameter = Parameter {
    name: "k",
    kind: Kind::Integer(16, 1 << 24),
    default: "512",
    help: "slots to read, in strips of 16, beside the first 4 positions and the newest 32",
};

/// Chooses the strips of the first and the newest positions, and of the others the `k / 16` of most mass.
fn choose(k: usize, masses: &[f32], view: &View<'_>, chosen: &mut Vec<u32>) {
    let recent = (view.position as u32).saturating_sub(RECENT);
    let mut others: Vec<(f32, u32)> = Vec::with_capacity(masses.len());
    for (strip, (positions, &mass)) in view.positions.chunks_exact(STRIP).zip(masses).enumerate() {
        // The difference is large for older positions, and for that of an empty slot.
        let must = |&p: &u32| (p < SINKS) | (p.wrapping_sub(recent) <= RECENT);
        if positions.iter().fold(false, |any, p| any | must(p)) {
            chosen.push(strip as u32);
        } else if view.live_in(strip) != 0 {
            others.push((mass, strip as u32));
        }
    }
    let count = k.div_ceil(STRIP);
    if others.len() > count {
        others.select_nth_unstable_by(count, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        others.truncate(count);
    }
    chosen.extend(others.iter().map(|&(_, strip)| strip));
    chosen.sort_unstable();
}
