//! Which kept slots a query looks at.

mod all;
mod quest;
mod topk;

use crate::context::{Buffers, Context, Partial};
use crate::method::{Call, Kind, Method, Parameter};
use crate::state::{Reader, StateError, Writer};
use sketchkv_kernels::attention::codes::CodeQueries;
use sketchkv_kernels::attention::layout::STRIP;
use sketchkv_kernels::attention::{maximum, strip_exponentials};
use sketchkv_kernels::cpu::Level;
use std::ops::Range;

/// One KV head's index of its slots.
///
/// An index chooses strips of 16 slots, because the keys of a strip share their cache lines: once a strip is touched,
/// the exact scores of all its slots come for free. It is asked at every single-token step. Chunks of several tokens ask none:
/// they read all slots, or with `prompt` those that a quarter of their queries look at most.
pub trait Read: Send + Sync {
    /// A copy with all its state.
    fn clone_box(&self) -> Box<dyn Read>;

    /// Heap bytes for `slots` slots, a multiple of 16.
    fn bytes(&self, slots: usize) -> usize;

    /// Makes room for `slots` slots, a multiple of 16, or gives room back; with none, forgets everything.
    fn resize(&mut self, slots: usize);

    /// A token was written to a slot, in place of the one that was there or of none.
    fn write(&mut self, token: &Written<'_>, buffers: &mut Buffers);

    /// How many slots a step reads, beside those that are always read.
    fn slots_read(&self) -> usize;

    /// Estimates the attention of `queries`, `[query][head_dim]`, scaled, to some strips, as [`parts`] cuts them.
    /// Fills `out`, whose buffers may hold anything.
    fn estimate(&self, queries: &[f32], view: &View<'_>, strips: Range<usize>, out: &mut Estimate);

    /// Adds what the slots outside the chosen strips contribute by estimate to the attention of `queries`.
    fn rest(
        &self,
        _queries: &[f32],
        _view: &View<'_>,
        _chosen: &[u32],
        _partial: &mut Partial,
        _buffers: &mut Buffers,
    ) {
    }

    /// Writes all state.
    fn save(&self, out: &mut Writer);

    /// Reads what [`Read::save`] wrote.
    ///
    /// # Errors
    /// When the bytes are not what it writes.
    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError>;
}

/// What an index expects of some strips.
#[derive(Default)]
pub struct Estimate {
    strips: Range<usize>,
    /// Of each query and strip the sum of e^(logit − max), up to a factor that is the same for all strips.
    masses: Vec<f32>,
    /// The largest logit of each query.
    max: Vec<f32>,
    /// Of each query, what the masses are shares of.
    sum: Vec<f32>,
    /// Strips that are read whatever they promise, ascending.
    always: Vec<u32>,
    /// Scratch.
    logits: Vec<f32>,
    coded: CodeQueries,
    buffers: Buffers,
}

impl Estimate {
    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        let Estimate { masses, max, sum, logits, .. } = self;
        let floats: usize = [masses, max, sum, logits].iter().map(|floats| floats.capacity()).sum();
        floats * size_of::<f32>()
            + self.always.capacity() * size_of::<u32>()
            + self.coded.bytes()
            + self.buffers.bytes()
    }

    /// Estimates the attention of `queries`, `[query][head_dim]`, scaled, to some strips, as [`parts`] cuts them.
    pub fn set(&mut self, read: &dyn Read, queries: &[f32], view: &View<'_>, strips: Range<usize>) {
        self.begin(view, strips.clone());
        read.estimate(queries, view, strips, self);
    }

    /// Takes the attention of queries to all strips as it is, from logits, `[query][slot]`.
    pub(crate) fn set_exact(&mut self, level: Level, logits: &[f32], view: &View<'_>) {
        let slots = view.positions.len();
        self.begin(view, 0..slots / STRIP);
        self.masses.resize(logits.len() / STRIP, 0.0);
        let masses = self.masses.chunks_exact_mut(slots / STRIP);
        for (logits, masses) in logits.chunks_exact(slots).zip(masses) {
            let max = maximum(level, logits);
            self.max.push(max);
            self.sum.push(strip_exponentials(level, logits, max, masses));
        }
    }

    /// Nothing of some strips yet, but which are read whatever they promise.
    fn begin(&mut self, view: &View<'_>, strips: Range<usize>) {
        self.max.clear();
        self.sum.clear();
        self.always.clear();
        self.strips = strips.clone();
        let recent = (view.position as u32).saturating_sub(RECENT);
        // The difference is large for older positions, and for that of an empty slot.
        let must = |&p: &u32| (p < SINKS) | (p.wrapping_sub(recent) <= RECENT);
        let positions = &view.positions[strips.start * STRIP..strips.end * STRIP];
        for (strip, positions) in strips.zip(positions.chunks_exact(STRIP)) {
            if positions.iter().fold(false, |any, p| any | must(p)) {
                self.always.push(strip as u32);
            }
        }
    }
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
pub(crate) static READS: &[(&Method, Build)] =
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

/// How many slots a prompt reads.
const PROMPT: Parameter = Parameter {
    name: "prompt",
    kind: Kind::Integer(0, 1 << 24),
    default: "0",
    help: "slots that 32 tokens of a prompt read beside the first 4 positions and the newest 32, chosen by every fourth token's attention; 0 for all",
};

/// Strips that an estimate begins and ends at: a whole number of everything that an index has of several slots.
const PART: usize = 64;

/// Cuts strips into at most `parts` parts to be estimated, none where all are among the `slots` slots that will be read.
pub fn parts(slots: usize, strips: usize, parts: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let all = if strips <= slots / STRIP { 0 } else { strips };
    let part = all.div_ceil(parts).next_multiple_of(PART).max(PART);
    (0..all).step_by(part).map(move |first| first..(first + part).min(all))
}

/// Chooses the strips to read from the estimates of all parts: those of the first and the newest positions, and of the
/// others the `slots / 16` of most mass; pushes their indexes in ascending order.
pub fn choose<'a>(
    slots: usize,
    estimates: impl Iterator<Item = &'a Estimate> + Clone,
    view: &View<'_>,
    chosen: &mut Vec<u32>,
    buffers: &mut Buffers,
) {
    let strips = view.positions.len() / STRIP;
    let Some(first) = estimates.clone().next() else {
        chosen.extend((0..strips as u32).filter(|&strip| view.live_in(strip as usize) != 0));
        return;
    };
    let mut masses = buffers.floats(strips);
    for query in 0..first.max.len() {
        let max = estimates.clone().map(|e| e.max[query]).fold(f32::NEG_INFINITY, f32::max);
        let scale = |e: &Estimate| (e.max[query] - max).exp();
        let sum: f32 = estimates.clone().map(|e| e.sum[query] * scale(e)).sum();
        for e in estimates.clone() {
            let share = scale(e) / sum;
            let own = &e.masses[query * e.strips.len()..];
            masses[e.strips.clone()].iter_mut().zip(own).for_each(|(mass, own)| *mass += share * own);
        }
    }
    // The bits of masses, none of which is negative, are in the order of the masses: most mass first, then the older strip.
    let mut others = buffers.words();
    let mut always = estimates.flat_map(|e| &e.always).copied().peekable();
    for (strip, mass) in masses.iter().enumerate() {
        if always.next_if_eq(&(strip as u32)).is_some() {
            chosen.push(strip as u32);
        } else if view.live_in(strip) != 0 {
            others.push(u64::from(!mass.to_bits()) << 32 | strip as u64);
        }
    }
    let count = slots.div_ceil(STRIP);
    if others.len() > count {
        others.select_nth_unstable(count);
        others.truncate(count);
    }
    chosen.extend(others.iter().map(|&other| other as u32));
    chosen.sort_unstable();
    buffers.give_floats([masses]);
    buffers.give_words(others);
}
