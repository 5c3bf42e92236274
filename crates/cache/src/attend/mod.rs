//! Attention of one layer over everything the cache remembers and the chunk itself. Nothing of the cache changes.

mod choose;
mod chunk;
mod select;
mod step;

pub(crate) use chunk::ChunkScratch;
pub(crate) use step::StepScratch;

use crate::LayerShape;
use crate::context::{GroupQueries, NewTokens, Softcap};
use crate::format::{Env, Format};
use crate::head::{Head, Trace};
use crate::page::{PAGE, PAGE_STRIPS, Page};
use crate::profile::{Part, Stopwatch};
use sketchkv_kernels::ThreadPool;
use sketchkv_kernels::attention::layout::STRIP;
use std::ops::Range;

/// The attention of one chunk of one sequence in one layer.
pub(crate) struct Attend<'a> {
    pub(crate) shape: &'a LayerShape,
    pub(crate) env: Env<'a>,
    pub(crate) pool: &'a ThreadPool,
    /// `[token][head][key_dim]`, rotated, unscaled.
    pub(crate) q: &'a [f32],
    /// `[token][kv_head][key_dim]`, rotated.
    pub(crate) keys: &'a [f32],
    /// `[token][kv_head][value_dim]`
    pub(crate) values: &'a [f32],
    /// How many tokens.
    pub(crate) tokens: usize,
    /// Position of the first.
    pub(crate) position: usize,
    /// How many slots a block of several tokens reads; `None` for all.
    pub(crate) prompt: Option<usize>,
}

/// Buffers of attention, of one path each; none of it lives beyond a call, so it is no part of a ledger.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) step: StepScratch,
    pub(crate) chunk: ChunkScratch,
}

impl Scratch {
    pub(crate) fn bytes(&self) -> usize {
        self.step.bytes() + self.chunk.bytes()
    }
}

impl<'a> Attend<'a> {
    fn format(&self) -> &'a Format {
        self.env.format
    }

    fn group(&self) -> usize {
        self.shape.group()
    }

    fn softcap(&self) -> Softcap {
        Softcap(self.shape.softcap)
    }

    /// The queries that a KV head answers.
    pub(crate) fn queries(&self, kv_head: usize) -> GroupQueries<'a> {
        let len = self.group() * self.shape.key_dim;
        GroupQueries::new(self.q, self.shape.kv_heads, kv_head, len, self.position)
    }

    /// The keys and values of the chunk that belong to a KV head.
    pub(crate) fn tokens(&self, kv_head: usize) -> NewTokens<'a> {
        let place = (self.shape.kv_heads, kv_head);
        NewTokens::new(self.keys, self.values, place, self.tokens, self.position)
    }

    /// Notes of the queries what admission will ask for.
    fn note(&self, h: usize, head: &Head, trace: &mut Trace) {
        let queries = self.queries(h);
        trace.digest.clear();
        head.keep.digest(&queries, &mut trace.digest);
        trace.squares.clear();
        if head.slots.grading.is_some() {
            trace.squares.resize(self.shape.key_dim, 0.0);
            for query in (0..queries.tokens()).flat_map(|t| queries.token(t).chunks_exact(self.shape.key_dim))
            {
                trace.squares.iter_mut().zip(query).for_each(|(square, q)| *square += q * q);
            }
        }
    }

    /// Writes the attention output, `[token][head][value_dim]`, and leaves of each head what admission will ask for.
    pub(crate) fn run(
        &self,
        heads: &[Head],
        scratch: &mut Scratch,
        traces: &mut [Trace],
        out: &mut [f32],
        watch: &mut Stopwatch,
    ) {
        if self.tokens == 1 {
            self.step(heads, &mut scratch.step, traces, out, watch);
        } else {
            self.chunk(heads, &mut scratch.chunk, traces, out, watch);
        }
        watch.lap(Part::Attention);
    }

    /// Adds `scale`·queries of one token to `scaled`, `[query][key_dim]`.
    fn scale(&self, kv_head: usize, token: usize, scaled: &mut Vec<f32>) {
        scaled.extend(self.queries(kv_head).token(token).iter().map(|q| q * self.shape.scale));
    }

    /// Turns scaled queries into the space of the key codes, `[query][dim]`.
    fn turn(&self, scaled: &[f32], turned: &mut Vec<f32>) {
        let keys = &self.format().keys;
        turned.resize(scaled.len() / keys.width * keys.dim, 0.0);
        for (q, turned) in scaled.chunks_exact(keys.width).zip(turned.chunks_exact_mut(keys.dim)) {
            keys.turn(q, turned);
        }
    }
}

/// Consecutive strips of one page.
#[derive(Clone, Copy)]
struct Run {
    page: u32,
    first: u8,
    end: u8,
}

impl Run {
    fn page<'h>(&self, head: &'h Head) -> &'h Page {
        &head.slots.pages()[self.page as usize]
    }

    /// Which strips of the page.
    fn strips(&self) -> Range<usize> {
        self.first as usize..self.end as usize
    }

    /// Which slots of the head.
    fn slots(&self) -> Range<usize> {
        let first = self.page as usize * PAGE;
        first + self.first as usize * STRIP..first + self.end as usize * STRIP
    }
}

/// The runs of some strips, which ascend.
fn runs(strips: &[u32]) -> impl Iterator<Item = Run> {
    let in_page = PAGE_STRIPS as u32;
    strips.chunk_by(move |a, b| a + 1 == *b && !b.is_multiple_of(in_page)).map(move |run| {
        let first = (run[0] % in_page) as u8;
        Run { page: run[0] / in_page, first, end: first + run.len() as u8 }
    })
}

/// The next of `count` tasks in use: one of an earlier call, whose buffers serve again, or a new one.
fn next<'t, T: Default>(tasks: &'t mut Vec<T>, count: &mut usize) -> &'t mut T {
    if tasks.len() == *count {
        tasks.push(T::default());
    }
    *count += 1;
    &mut tasks[*count - 1]
}

/// Heap bytes of buffers of floats.
fn floats(buffers: &[&Vec<f32>]) -> usize {
    buffers.iter().map(|buffer| buffer.capacity() * size_of::<f32>()).sum()
}
