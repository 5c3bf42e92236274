//! Several tokens: each task decodes what it reads of the pages into f32 and multiplies a block of queries with it: scores of
//! the slots and the chunk, softmax of whole rows, sums of values.

use super::select::Selection;
use super::{Attend, floats, next, runs};
use crate::context::{Buffers, EMPTY, Partial, Sample};
use crate::head::{Head, Trace};
use crate::page::{PAGE, PAGE_STRIPS, Page};
use crate::profile::Stopwatch;
use sketchkv_kernels::attention::layout::STRIP;
use sketchkv_kernels::attention::{add_scaled, dense_scores, dense_values, exponentials, maximum};
use sketchkv_kernels::{for_each_mut, for_each_pair_mut};
use std::ops::Range;
use std::sync::Mutex;

/// Bytes of scores that one task keeps, so that they stay in the second-level cache.
const TASK_SCORES: usize = 512 << 10;

/// Buffers of this path.
#[derive(Default)]
pub(crate) struct ChunkScratch {
    /// Of each KV head, the keys of the chunk, `[strip][key_dim][16]`.
    keys: Vec<Vec<f32>>,
    selections: Vec<Selection>,
    tasks: Vec<BlockTask>,
    tiles: SpareTiles,
}

impl ChunkScratch {
    pub(crate) fn bytes(&self) -> usize {
        let keys: usize = self.keys.iter().map(|keys| floats(&[keys])).sum();
        let tasks: usize = self.tasks.iter().map(|task| floats(&[&task.out, &task.mass, &task.sample])).sum();
        let tiles = self.tiles.lock().map_or(0, |tiles| {
            tiles.iter().map(Tiles::bytes).sum::<usize>() + tiles.capacity() * size_of::<Tiles>()
        });
        let selections: usize = self.selections.iter().map(Selection::bytes).sum();
        let tables = self.keys.capacity() * size_of::<Vec<f32>>()
            + self.selections.capacity() * size_of::<Selection>()
            + self.tasks.capacity() * size_of::<BlockTask>();
        keys + selections + tasks + tiles + tables
    }
}

/// Some tokens of a chunk for one head: all their queries over what they read.
#[derive(Default)]
struct BlockTask {
    head: usize,
    /// Which slots are read.
    selection: usize,
    first: usize,
    tokens: usize,
    /// `[token][query][value_dim]`
    out: Vec<f32>,
    /// Attention weight per slot that is read, then per token of the chunk.
    mass: Vec<f32>,
    /// Of the queries that are taken into a [`Sample`], its rows.
    sample: Vec<f32>,
}

/// Large buffers of a running task.
#[derive(Default)]
pub(super) struct Tiles {
    /// Keys or values of as many slots as a page has, in f32.
    page: Vec<f32>,
    pub(super) scores: Vec<f32>,
    pub(super) scaled: Vec<f32>,
    turned: Vec<f32>,
    acc: Vec<f32>,
    partial: Partial,
    /// Of the tail, and of what chooses.
    pub(super) buffers: Buffers,
}

/// Tiles that serve one task after another.
pub(super) type SpareTiles = Mutex<Vec<Tiles>>;

impl Tiles {
    fn bytes(&self) -> usize {
        let Partial { max, sum, acc } = &self.partial;
        floats(&[&self.page, &self.scores, &self.scaled, &self.turned, &self.acc, max, sum, acc])
            + self.buffers.bytes()
    }

    /// Lends tiles to a task.
    pub(super) fn lend(spare: &SpareTiles, task: impl FnOnce(&mut Tiles)) {
        let mut mine = spare.lock().ok().and_then(|mut all| all.pop()).unwrap_or_default();
        task(&mut mine);
        if let Ok(mut all) = spare.lock() {
            all.push(mine);
        }
    }
}

impl Attend<'_> {
    /// See the module.
    pub(super) fn chunk(
        &self,
        heads: &[Head],
        scratch: &mut ChunkScratch,
        traces: &mut [Trace],
        out: &mut [f32],
        watch: &mut Stopwatch,
    ) {
        let ChunkScratch { keys, selections, tasks, tiles } = scratch;
        let tiles = &*tiles;
        if keys.len() < heads.len() {
            keys.resize_with(heads.len(), Vec::new);
        }
        for_each_pair_mut(self.pool, &mut keys[..heads.len()], traces, |h, keys, trace| {
            self.transpose(h, keys);
            self.note(h, &heads[h], trace);
        });
        let selections = &*self.select(heads, selections, tiles, watch);
        let mut count = 0;
        for (number, selection) in selections.iter().enumerate() {
            let row = 4 * (selection.slots() + self.tokens.next_multiple_of(STRIP));
            let block = (TASK_SCORES / row / self.group()).clamp(4, 32);
            for first in selection.tokens.clone().step_by(block) {
                let task = next(tasks, &mut count);
                (task.head, task.selection) = (selection.head, number);
                (task.first, task.tokens) = (first, block.min(selection.tokens.end - first));
            }
        }
        let tasks = &mut tasks[..count];
        {
            let keys = &*keys;
            for_each_mut(self.pool, tasks, |_, task| {
                let (head, selection) = (&heads[task.head], &selections[task.selection]);
                Tiles::lend(tiles, |tiles| self.block(task, head, selection, &keys[task.head], tiles));
            });
        }
        let tasks = &*tasks;
        for_each_mut(self.pool, traces, |h, trace| {
            trace.mass.clear();
            trace.sample.clear();
            let (feedback, slots) = (heads[h].feedback(self.tokens), heads[h].slots.len());
            for task in tasks.iter().filter(|task| task.head == h) {
                trace.sample.extend_from_slice(&task.sample);
                if let Some(feedback) = feedback {
                    trace.mass.resize(slots + self.tokens, 0.0);
                    let (of_slots, own) = task.mass.split_at(task.mass.len() - self.tokens);
                    let mut take = |at: usize, mass: &[f32]| {
                        feedback.take(self.env.level, &mut trace.mass[at..][..mass.len()], 1.0, mass);
                    };
                    let mut at = 0;
                    for run in runs(&selections[task.selection].strips) {
                        let slots = run.slots();
                        take(slots.start, &of_slots[at..at + slots.len()]);
                        at += slots.len();
                    }
                    take(slots, own);
                }
            }
        });
        let group = self.group() * self.shape.value_dim;
        for task in tasks {
            for (token, own) in task.out.chunks_exact(group).enumerate() {
                let at = (task.first + token) * heads.len() + task.head;
                out[at * group..][..group].copy_from_slice(own);
            }
        }
    }

    /// The chunk's own keys, dimension-major.
    fn transpose(&self, h: usize, keys: &mut Vec<f32>) {
        let (chunk, d) = (self.tokens(h), self.shape.key_dim);
        keys.clear();
        keys.resize(chunk.count.div_ceil(STRIP) * d * STRIP, 0.0);
        for token in 0..chunk.count {
            let strip = &mut keys[token / STRIP * d * STRIP..][..d * STRIP];
            for (dim, &x) in chunk.key(token).iter().enumerate() {
                strip[dim * STRIP + token % STRIP] = x;
            }
        }
    }

    fn block(
        &self,
        task: &mut BlockTask,
        head: &Head,
        selection: &Selection,
        chunk_keys: &[f32],
        tiles: &mut Tiles,
    ) {
        let rows = task.tokens * self.group();
        let stride = selection.slots() + self.tokens.next_multiple_of(STRIP);
        self.scores(task, head, selection, chunk_keys, tiles, stride);
        // The tail enters as further tokens would: a maximum, a sum and a weighted sum of values.
        tiles.partial.reset(rows, self.shape.value_dim);
        if let Some(tail) = &head.tail {
            tail.attend(&tiles.scaled, &mut tiles.partial, &mut tiles.buffers);
        }
        self.softmax(task, head, selection, tiles, stride);
        self.values(task, head, selection, tiles, stride);
    }

    /// Scores of the task's queries: slots, then the chunk up to each token itself, `[row][stride]`.
    fn scores(
        &self,
        task: &BlockTask,
        head: &Head,
        selection: &Selection,
        chunk_keys: &[f32],
        tiles: &mut Tiles,
        stride: usize,
    ) {
        tiles.scaled.clear();
        (task.first..task.first + task.tokens).for_each(|t| self.scale(task.head, t, &mut tiles.scaled));
        self.slot_scores(head, &selection.strips, tiles, stride);
        // Keys of the chunk beyond the last token of this block are not visible to it.
        let (d, visible) = (self.shape.key_dim, (task.first + task.tokens).next_multiple_of(STRIP));
        let out = &mut tiles.scores[selection.slots()..];
        dense_scores(self.env.level, d, &tiles.scaled, &chunk_keys[..visible * d], out, stride);
    }

    /// Scores of the scaled queries in the tiles over some strips, `[query][stride]`.
    pub(super) fn slot_scores(&self, head: &Head, strips: &[u32], tiles: &mut Tiles, stride: usize) {
        let (level, format) = (self.env.level, self.format());
        let dim = format.keys.dim;
        let Tiles { page: tile, scores, scaled, turned, .. } = tiles;
        self.turn(scaled, turned);
        scores.resize(turned.len() / dim * stride, 0.0);
        tile.resize(PAGE * dim.max(format.values.dim), 0.0);
        for (index, strips) in strips.chunks(PAGE_STRIPS).enumerate() {
            let decode = |page: &Page, strips, out: &mut [f32]| page.decode_keys(level, format, strips, out);
            let keys = decoded(head, strips, dim, tile, decode);
            dense_scores(level, dim, turned, keys, &mut scores[index * PAGE..], stride);
        }
    }

    /// Softmax of each row over what its token sees; the weights that the keep asks for go into the task's mass.
    fn softmax(
        &self,
        task: &mut BlockTask,
        head: &Head,
        selection: &Selection,
        tiles: &mut Tiles,
        stride: usize,
    ) {
        let (level, slots, group) = (self.env.level, selection.slots(), self.group());
        let Tiles { scores, scaled, partial, .. } = tiles;
        let d = self.shape.value_dim;
        let (feedback, samples) = (head.feedback(self.tokens), head.samples());
        task.sample.clear();
        task.mass.clear();
        if feedback.is_some() {
            task.mass.resize(slots + self.tokens, 0.0);
        }
        for (row, scores) in scores.chunks_exact_mut(stride).take(task.tokens * group).enumerate() {
            let token = task.first + row / group;
            let seen = slots + token + 1;
            self.softcap().apply(&mut scores[..seen]);
            self.hide(token, &selection.positions, &mut scores[..seen]);
            let max = maximum(level, &scores[..seen]).max(partial.max[row]);
            let sum = exponentials(level, &mut scores[..seen], max);
            scores[seen..].fill(0.0);
            let scale = (partial.max[row] - max).exp();
            let total = sum + partial.sum[row] * scale;
            if Sample::takes(task.first * group + row, self.tokens * group, samples) {
                task.sample.push(max + total.ln());
                task.sample.extend_from_slice(&scaled[row * self.shape.key_dim..][..self.shape.key_dim]);
            }
            let norm = 1.0 / total;
            scores[..seen].iter_mut().for_each(|p| *p *= norm);
            partial.acc[row * d..][..d].iter_mut().for_each(|x| *x *= scale * norm);
            if let Some(feedback) = feedback {
                let weight = feedback.weight(self.tokens - 1 - token, group);
                if weight > 0.0 {
                    let told = slots + feedback.own(token);
                    feedback.take(level, &mut task.mass[..told], weight, &scores[..told]);
                }
            }
        }
    }

    /// Takes out what a token of the chunk does not see: slots without a token, and what its window has left behind.
    fn hide(&self, token: usize, positions: &[u32], scores: &mut [f32]) {
        let (old, new) = scores.split_at_mut(positions.len());
        let Some(window) = self.shape.window else {
            return hide_if(old, positions, |position| position == EMPTY);
        };
        let first = (self.position + token + 1).saturating_sub(window);
        new[..first.saturating_sub(self.position)].fill(f32::NEG_INFINITY);
        // Positions are below `EMPTY`, so is the first that is seen.
        let first = first as u32;
        hide_if(old, positions, |position| position == EMPTY || position < first);
    }

    /// Sums of values: slots in the space of their codes, turned back; then the chunk and the tail.
    fn values(
        &self,
        task: &mut BlockTask,
        head: &Head,
        selection: &Selection,
        tiles: &mut Tiles,
        stride: usize,
    ) {
        let (level, format, slots) = (self.env.level, self.format(), selection.slots());
        let values = &format.values;
        let (d, dim) = (values.width, values.dim);
        let Tiles { page: tile, scores, acc, partial, .. } = tiles;
        acc.clear();
        acc.resize(task.tokens * self.group() * dim, 0.0);
        for (index, strips) in selection.strips.chunks(PAGE_STRIPS).enumerate() {
            let decode =
                |page: &Page, strips, out: &mut [f32]| page.decode_values(level, format, strips, out);
            let rows = decoded(head, strips, dim, tile, decode);
            dense_values(level, dim, &scores[index * PAGE..], stride, rows, dim, rows.len() / dim, acc);
        }
        for acc in acc.chunks_exact_mut(dim) {
            values.turn_back(acc);
        }
        task.out.clear();
        for (acc, tail) in acc.chunks_exact(dim).zip(partial.acc.chunks_exact(d)) {
            task.out.extend(acc.iter().zip(tail).map(|(a, t)| a + t));
        }
        let chunk = self.tokens(task.head);
        let (rows, value_stride) = chunk.values_strided();
        let seen = task.first + task.tokens;
        if d.is_multiple_of(16) {
            dense_values(level, d, &scores[slots..], stride, rows, value_stride, seen, &mut task.out);
        } else {
            for (row, out) in task.out.chunks_exact_mut(d).enumerate() {
                for (token, weight) in scores[row * stride + slots..][..seen].iter().enumerate() {
                    add_scaled(level, out, *weight, chunk.value(token));
                }
            }
        }
    }
}

/// Decodes some strips of one side, of `dim` numbers a slot, into the front of `tile`, one after the other.
fn decoded<'t>(
    head: &Head,
    strips: &[u32],
    dim: usize,
    tile: &'t mut [f32],
    decode: impl Fn(&Page, Range<usize>, &mut [f32]),
) -> &'t [f32] {
    let mut at = 0;
    for run in runs(strips) {
        let end = at + run.strips().len() * STRIP * dim;
        decode(run.page(head), run.strips(), &mut tile[at..end]);
        at = end;
    }
    &tile[..at]
}

/// Takes out the scores whose slot's position is one to hide.
pub(super) fn hide_if(scores: &mut [f32], positions: &[u32], hidden: impl Fn(u32) -> bool) {
    for (score, &position) in scores.iter_mut().zip(positions) {
        *score = if hidden(position) { f32::NEG_INFINITY } else { *score };
    }
}
