//! Attention of one layer over everything the cache remembers and the chunk itself.

use crate::format::Format;
use crate::head::{Chunk, EMPTY, Env, GroupQueries, Head, Work};
use crate::page::{PAGE, PAGE_STRIPS, Page};
use crate::partial::{Partial, dot};
use crate::profile::{Part, Stopwatch};
use crate::read::{Estimate, View, choose, parts};
use sketchkv_kernels::attention::layout::STRIP;
use sketchkv_kernels::attention::{
    Queries, add_scaled, dense_scores, dense_values, exponentials, maximum, prefetch,
};
use sketchkv_kernels::{ThreadPool, for_each_mut, for_each_pair_mut};
use std::ops::Range;
use std::sync::Mutex;

/// The fewest strips that one task of a single-token step reads.
const TASK_STRIPS: usize = 8;
/// Tasks that the strips of a head are cut into, when there are enough of them: more share the work better, fewer have
/// less to put together.
const TASKS: usize = 12;
/// Parts that an index estimates a head in: more share the work better, each projects the queries again.
const ESTIMATES: usize = 2;
/// Bytes of scores that one task of a longer chunk keeps, so that they stay in the second-level cache.
const TASK_SCORES: usize = 512 << 10;

/// Buffers of a cache's attention, shared by all layers. None of it lives beyond a call, so it is no part of the
/// ledger.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) heads: Vec<HeadScratch>,
    estimates: Vec<EstimateTask>,
    runs: Vec<RunTask>,
    blocks: Vec<BlockTask>,
    tiles: Mutex<Vec<Tiles>>,
}

impl Scratch {
    /// The attention weights of one query of the single-token step that was just made: adds those of the slots to
    /// `slots` and returns the token's own.
    pub(crate) fn weights(&self, call: &Call<'_>, h: usize, query: usize, slots: &mut [f32]) -> f32 {
        let own = &self.heads[h];
        let (max, norm) = (own.partial.max[query], 1.0 / own.partial.sum[query]);
        let count = self.heads.iter().map(HeadScratch::tasks).sum();
        for task in self.runs[..count].iter().filter(|task| task.head == h) {
            task.add_mass(call.env, query, norm * (task.max[query] - max).exp(), slots);
        }
        let chunk = &call.chunks[h];
        let q = &own.scaled[query * chunk.head_dim..][..chunk.head_dim];
        norm * (dot(q, chunk.key(0)) - max).exp()
    }

    /// Adds to the slots that were not read, `[query][slot]`, what the read gave to the page that stands for them.
    pub(crate) fn add_rest(&self, call: &Call<'_>, h: usize, head: &Head, slots: &mut [Vec<f32>]) {
        let Some(read) = &head.read else { return };
        let (own, view) = (&self.heads[h], call.view(h, head));
        let all = 0..(head.slots() / STRIP) as u32;
        let mut alone = Partial::default();
        for (page, live) in head.live().iter().enumerate() {
            let of_page = |strip: u32| strip as usize / PAGE_STRIPS == page;
            let unread: Vec<usize> = all
                .clone()
                .filter(|&strip| of_page(strip) && !own.strips.contains(&strip))
                .flat_map(|strip| strip as usize * STRIP..(strip as usize + 1) * STRIP)
                .filter(|slot| live >> (slot % PAGE) & 1 == 1)
                .collect();
            // As if all but this page had been read.
            let others: Vec<u32> =
                all.clone().filter(|strip| !of_page(*strip) || own.strips.contains(strip)).collect();
            alone.reset(call.group, call.format().head_dim);
            read.rest(&own.scaled, &view, &others, &mut alone);
            for (query, slots) in slots.iter_mut().enumerate() {
                let mass = alone.sum[query] * (alone.max[query] - own.partial.max[query]).exp();
                let share = mass / own.partial.sum[query] / unread.len().max(1) as f32;
                unread.iter().for_each(|&slot| slots[slot] += share);
            }
        }
    }
}

/// What one KV head needs during a call.
#[derive(Default)]
pub(crate) struct HeadScratch {
    /// Queries of the group, `[query][head_dim]`, scaled.
    scaled: Vec<f32>,
    /// The same, turned and padded.
    queries: Queries,
    turned: Vec<f32>,
    /// Strips to read, ascending.
    strips: Vec<u32>,
    /// Keys of the chunk, `[strip][dim][16]`.
    chunk_keys: Vec<f32>,
    partial: Partial,
    /// Output of the group, `[token][query][head_dim]`.
    out: Vec<f32>,
    pub(crate) work: Work,
}

impl HeadScratch {
    /// All strips are to be read.
    fn read_all(&mut self, head: &Head) {
        self.strips.clear();
        self.strips.extend(0..(head.slots() / STRIP) as u32);
    }

    /// Strips of a task of a single-token step, in whole pages.
    fn task_strips(&self) -> usize {
        self.strips.len().div_ceil(TASKS).next_multiple_of(PAGE_STRIPS).max(TASK_STRIPS)
    }

    /// Tasks of a single-token step.
    fn tasks(&self) -> usize {
        self.strips.len().div_ceil(self.task_strips())
    }
}

/// The next of `count` tasks in use: one of an earlier call, whose buffers serve again, or a new one.
fn next<'t, T: Default>(tasks: &'t mut Vec<T>, count: &mut usize) -> &'t mut T {
    if tasks.len() == *count {
        tasks.push(T::default());
    }
    *count += 1;
    &mut tasks[*count - 1]
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
        &head.pages()[self.page as usize]
    }

    fn strips(&self) -> Range<usize> {
        self.first as usize..self.end as usize
    }
}

/// Some strips of one head, to be estimated by its index.
#[derive(Default)]
struct EstimateTask {
    head: usize,
    strips: Range<usize>,
    estimate: Estimate,
}

/// Some strips of one head, for the queries of a single-token step.
#[derive(Default)]
struct RunTask {
    head: usize,
    /// Which of the head's tasks it is.
    number: usize,
    runs: Vec<Run>,
    /// How many runs ahead memory is asked for: about a page's worth of strips.
    distance: usize,
    /// Exponentials of the scores, `[query][strip][16]`.
    scores: Vec<f32>,
    max: Vec<f32>,
    sum: Vec<f32>,
    /// `[query][dim]`
    acc: Vec<f32>,
}

/// Some tokens of a chunk for one head: all their queries over everything.
#[derive(Default)]
struct BlockTask {
    head: usize,
    first: usize,
    tokens: usize,
    /// `[token][query][head_dim]`
    out: Vec<f32>,
    /// Attention weight per slot, then per token of the chunk.
    mass: Vec<f32>,
}

/// Large buffers of a running [`BlockTask`].
#[derive(Default)]
struct Tiles {
    /// A page's keys or values in f32.
    page: Vec<f32>,
    scores: Vec<f32>,
    scaled: Vec<f32>,
    turned: Vec<f32>,
    acc: Vec<f32>,
    partial: Partial,
}

/// One call of attention.
pub(crate) struct Call<'a> {
    pub(crate) env: Env<'a>,
    pub(crate) pool: &'a ThreadPool,
    /// Query heads that share a KV head.
    pub(crate) group: usize,
    /// `[token][head][head_dim]`
    pub(crate) q: &'a [f32],
    /// Of each KV head.
    pub(crate) chunks: &'a [Chunk<'a>],
}

impl Call<'_> {
    fn format(&self) -> &Format {
        self.env.format
    }

    /// The queries of one token and KV head, `[query][head_dim]`.
    fn queries(&self, token: usize, head: usize) -> &[f32] {
        self.group_queries(head).token(token)
    }

    /// The queries that a KV head answers.
    pub(crate) fn group_queries(&self, head: usize) -> GroupQueries<'_> {
        let len = self.group * self.format().head_dim;
        GroupQueries { q: self.q, stride: self.chunks.len() * len, offset: head * len, len }
    }

    /// Writes the attention output, `[token][head][head_dim]`, and leaves the attention weights in each head's `work`.
    pub(crate) fn attend(
        &self,
        heads: &mut [Head],
        scratch: &mut Scratch,
        out: &mut [f32],
        watch: &mut Stopwatch,
    ) {
        scratch.heads.resize_with(heads.len(), HeadScratch::default);
        if self.chunks[0].tokens == 1 {
            self.step(heads, scratch, watch)
        } else {
            self.chunk(heads, scratch)
        }
        let group = self.group * self.format().head_dim;
        for (token, row) in out.chunks_exact_mut(heads.len() * group).enumerate() {
            for (row, head) in row.chunks_exact_mut(group).zip(&scratch.heads) {
                row.copy_from_slice(&head.out[token * group..][..group]);
            }
        }
        watch.lap(Part::Attention);
    }

    fn scale(&self) -> f32 {
        1.0 / (self.format().head_dim as f32).sqrt()
    }

    /// One token: each task multiplies the codes of some strips as they lie.
    fn step(&self, heads: &mut [Head], scratch: &mut Scratch, watch: &mut Stopwatch) {
        let Scratch { heads: own, estimates, runs: tasks, .. } = scratch;
        for (head, own) in own.iter_mut().enumerate() {
            self.prepare(head, own);
        }
        if heads.iter().any(|head| head.read.is_some()) {
            watch.lap(Part::Attention);
            self.select(heads, own, estimates);
            watch.lap(Part::Read);
        } else {
            heads.iter().zip(own.iter_mut()).for_each(|(head, own)| own.read_all(head));
        }
        let mut count = 0;
        for (head, own) in own.iter().enumerate() {
            for number in 0..own.tasks() {
                let task = next(tasks, &mut count);
                (task.head, task.number) = (head, number);
            }
        }
        let tasks = &mut tasks[..count];
        {
            let (heads, own) = (&*heads, &*own);
            for_each_mut(self.pool, tasks, |_, task| {
                let (head, own) = (&heads[task.head], &own[task.head]);
                task.set(own);
                task.attend(self.env, head, &own.queries);
            });
        }
        let tasks = &*tasks;
        for_each_pair_mut(self.pool, heads, own, |h, head, own| self.merge(h, head, own, tasks));
    }

    /// Scales and turns the queries of a single token.
    fn prepare(&self, head: usize, own: &mut HeadScratch) {
        let format = self.format();
        own.scaled.clear();
        own.scaled.extend(self.queries(0, head).iter().map(|q| q * self.scale()));
        own.turned.resize(self.group * format.dim, 0.0);
        let rows = own.scaled.chunks_exact(format.head_dim);
        for (q, turned) in rows.zip(own.turned.chunks_exact_mut(format.dim)) {
            format.keys.turn(q, turned);
        }
        own.queries.set(&own.turned, format.dim);
    }

    fn view<'h>(&self, h: usize, head: &'h Head) -> View<'h> {
        View { positions: head.positions(), live: head.live(), position: self.chunks[h].position }
    }

    /// Chooses the strips to read.
    fn select(&self, heads: &mut [Head], own: &mut [HeadScratch], tasks: &mut Vec<EstimateTask>) {
        let mut count = 0;
        for (h, head) in heads.iter().enumerate() {
            let Some(read) = &head.read else { continue };
            for strips in parts(&**read, head.slots() / STRIP, ESTIMATES) {
                let task = next(tasks, &mut count);
                (task.head, task.strips) = (h, strips);
            }
        }
        let tasks = &mut tasks[..count];
        {
            let (heads, own) = (&*heads, &*own);
            for_each_mut(self.pool, tasks, |_, EstimateTask { head: h, strips, estimate }| {
                let (head, queries) = (&heads[*h], &own[*h].scaled);
                if let Some(read) = &head.read {
                    estimate.set(&**read, queries, &self.view(*h, head), strips.clone());
                }
            });
        }
        let tasks = &*tasks;
        for_each_pair_mut(self.pool, heads, own, |h, head, own| match &head.read {
            None => own.read_all(head),
            Some(read) => {
                own.strips.clear();
                let estimates = tasks.iter().filter(|task| task.head == h).map(|task| &task.estimate);
                choose(&**read, estimates, &self.view(h, head), &mut own.strips);
            }
        });
    }

    /// Puts together what the tasks found, the tail and the token itself.
    fn merge(&self, h: usize, head: &mut Head, own: &mut HeadScratch, tasks: &[RunTask]) {
        let (format, chunk) = (self.format(), &self.chunks[h]);
        let (d, dim) = (format.head_dim, format.dim);
        let HeadScratch { partial, out, scaled, strips, work, .. } = own;
        let tasks = || tasks.iter().filter(|task| task.head == h);
        // The sums over slots are in the space of the value codes: put together there, then turned back.
        partial.reset(self.group, dim);
        for task in tasks() {
            for g in 0..self.group {
                partial.add(g, task.max[g], task.sum[g], &task.acc[g * dim..][..dim]);
            }
        }
        for acc in partial.acc.chunks_exact_mut(dim) {
            format.values.turn_back(acc);
        }
        partial.narrow(dim, d);
        if let Some(read) = &head.read {
            read.rest(scaled, &self.view(h, head), strips, partial);
        }
        if let Some(tail) = &head.tail {
            tail.attend(scaled, partial);
        }
        out.resize(self.group * d, 0.0);
        work.mass.clear();
        let feedback = head.feedback().is_some();
        if feedback {
            work.mass.resize(head.slots() + 1, 0.0);
        }
        for (g, (q, out)) in scaled.chunks_exact(d).zip(out.chunks_exact_mut(d)).enumerate() {
            let logit = dot(q, chunk.key(0));
            partial.add(g, logit, 1.0, chunk.value(0));
            let norm = 1.0 / partial.sum[g];
            out.iter_mut().zip(&partial.acc[g * d..]).for_each(|(out, x)| *out = x * norm);
            if feedback {
                let share = norm / self.group as f32;
                for task in tasks() {
                    task.add_mass(self.env, g, share * (task.max[g] - partial.max[g]).exp(), &mut work.mass);
                }
                let last = work.mass.len() - 1;
                work.mass[last] += share * (logit - partial.max[g]).exp();
            }
        }
    }

    /// Several tokens: each task decodes the pages into f32 and multiplies a block of queries with them.
    fn chunk(&self, heads: &mut [Head], scratch: &mut Scratch) {
        let Scratch { heads: own, blocks, tiles, .. } = scratch;
        let tiles = &*tiles;
        let tokens = self.chunks[0].tokens;
        for_each_mut(self.pool, own, |h, own| self.transpose(h, own));
        let mut count = 0;
        for (h, head) in heads.iter().enumerate() {
            let row = 4 * (head.slots() + tokens.next_multiple_of(STRIP));
            let block = (TASK_SCORES / row / self.group).clamp(4, 32);
            for first in (0..tokens).step_by(block) {
                let task = next(blocks, &mut count);
                (task.head, task.first, task.tokens) = (h, first, block.min(tokens - first));
            }
        }
        let blocks = &mut blocks[..count];
        {
            let (heads, own) = (&*heads, &*own);
            for_each_mut(self.pool, blocks, |_, task| {
                let mut mine = tiles.lock().ok().and_then(|mut all| all.pop()).unwrap_or_default();
                self.block(task, &heads[task.head], &own[task.head], &mut mine);
                if let Ok(mut all) = tiles.lock() {
                    all.push(mine);
                }
            });
        }
        let blocks = &*blocks;
        for_each_mut(self.pool, own, |h, own| {
            own.out.clear();
            own.work.mass.clear();
            for task in blocks.iter().filter(|task| task.head == h) {
                own.out.extend_from_slice(&task.out);
                if own.work.mass.is_empty() {
                    own.work.mass.extend_from_slice(&task.mass);
                } else {
                    add_scaled(self.env.level, &mut own.work.mass, 1.0, &task.mass);
                }
            }
        });
    }

    /// The chunk's own keys, dimension-major.
    fn transpose(&self, h: usize, own: &mut HeadScratch) {
        let (chunk, d) = (&self.chunks[h], self.format().head_dim);
        let strips = chunk.tokens.div_ceil(STRIP);
        own.chunk_keys.clear();
        own.chunk_keys.resize(strips * d * STRIP, 0.0);
        for token in 0..chunk.tokens {
            let strip = &mut own.chunk_keys[token / STRIP * d * STRIP..][..d * STRIP];
            for (dim, &x) in chunk.key(token).iter().enumerate() {
                strip[dim * STRIP + token % STRIP] = x;
            }
        }
    }

    fn block(&self, task: &mut BlockTask, head: &Head, own: &HeadScratch, tiles: &mut Tiles) {
        let (env, format, chunk) = (self.env, self.format(), &self.chunks[task.head]);
        let (d, dim, slots) = (format.head_dim, format.dim, head.slots());
        let rows = task.tokens * self.group;
        let stride = slots + chunk.tokens.next_multiple_of(STRIP);
        let Tiles { page: tile, scores, scaled, turned, acc, partial } = tiles;

        scaled.clear();
        turned.resize(rows * dim, 0.0);
        for token in 0..task.tokens {
            scaled.extend(self.queries(task.first + token, task.head).iter().map(|q| q * self.scale()));
        }
        for (q, turned) in scaled.chunks_exact(d).zip(turned.chunks_exact_mut(dim)) {
            format.keys.turn(q, turned);
        }

        // Scores: pages, then the chunk up to each token itself.
        scores.resize(rows * stride, 0.0);
        tile.resize(PAGE * dim, 0.0);
        for (index, page) in head.pages().iter().enumerate() {
            page.decode_keys(env.level, format, tile);
            let keys = &tile[..page.strips() * dim * STRIP];
            dense_scores(env.level, dim, turned, keys, &mut scores[index * PAGE..], stride);
        }
        // Keys of the chunk beyond the last token of this block are not visible to it.
        let visible = (task.first + task.tokens).next_multiple_of(STRIP);
        let chunk_keys = &own.chunk_keys[..visible * d];
        dense_scores(env.level, d, scaled, chunk_keys, &mut scores[slots..], stride);

        // The tail enters as further tokens would: a maximum, a sum and a weighted sum of values.
        partial.reset(rows, d);
        if let Some(tail) = &head.tail {
            tail.attend(scaled, partial);
        }
        let feedback = head.feedback();
        task.mass.clear();
        if feedback.is_some() {
            task.mass.resize(slots + chunk.tokens, 0.0);
        }
        for (row, scores) in scores.chunks_exact_mut(stride).take(rows).enumerate() {
            for (scores, &position) in scores.iter_mut().zip(head.positions()) {
                if position == EMPTY {
                    *scores = f32::NEG_INFINITY;
                }
            }
            let token = task.first + row / self.group;
            let seen = slots + token + 1;
            let max = maximum(env.level, &scores[..seen]).max(partial.max[row]);
            let sum = exponentials(env.level, &mut scores[..seen], max);
            scores[seen..].fill(0.0);
            let scale = (partial.max[row] - max).exp();
            let norm = 1.0 / (sum + partial.sum[row] * scale);
            scores[..seen].iter_mut().for_each(|p| *p *= norm);
            partial.acc[row * d..][..d].iter_mut().for_each(|x| *x *= scale * norm);
            if let Some(decay) = feedback {
                // 0 to the power 0 is 1: with no memory, the newest query alone counts.
                let weight = decay.powi((chunk.tokens - 1 - token) as i32) / self.group as f32;
                if weight > 0.0 {
                    let seen = &scores[..slots + chunk.tokens];
                    add_scaled(env.level, &mut task.mass, weight, seen);
                }
            }
        }

        // Values: pages in the space of their codes, turned back; then the chunk and the tail.
        acc.clear();
        acc.resize(rows * dim, 0.0);
        for (index, page) in head.pages().iter().enumerate() {
            page.decode_values(env.level, format, tile);
            let slots = page.strips() * STRIP;
            dense_values(env.level, dim, &scores[index * PAGE..], stride, tile, dim, slots, acc);
        }
        for acc in acc.chunks_exact_mut(dim) {
            format.values.turn_back(acc);
        }
        task.out.clear();
        for (acc, tail) in acc.chunks_exact(dim).zip(partial.acc.chunks_exact(d)) {
            task.out.extend(acc.iter().zip(tail).map(|(a, t)| a + t));
        }
        let (values, value_stride) = chunk.values_strided();
        let seen = task.first + task.tokens;
        if d.is_multiple_of(16) {
            dense_values(env.level, d, &scores[slots..], stride, values, value_stride, seen, &mut task.out);
        } else {
            for (row, out) in task.out.chunks_exact_mut(d).enumerate() {
                for (token, weight) in scores[row * stride + slots..][..seen].iter().enumerate() {
                    add_scaled(env.level, out, *weight, chunk.value(token));
                }
            }
        }
    }
}

/// What is read as number `index`: the keys of all runs, then their values.
fn read<'h>(runs: &[Run], env: Env<'_>, head: &'h Head, index: usize) -> &'h [u8] {
    match (runs.get(index), runs.get(index.wrapping_sub(runs.len()))) {
        (Some(run), _) => run.page(head).keys_of(env.format, run.strips()),
        (None, Some(run)) => run.page(head).values_of(env.format, run.strips()),
        (None, None) => &[],
    }
}

impl RunTask {
    /// Takes its part of a head's strips.
    fn set(&mut self, own: &HeadScratch) {
        self.runs.clear();
        let strips = own.strips.chunks(own.task_strips()).nth(self.number).unwrap_or_default();
        for &strip in strips {
            let (page, strip) = (strip / PAGE_STRIPS as u32, (strip % PAGE_STRIPS as u32) as u8);
            match self.runs.last_mut() {
                Some(run) if run.page == page && run.end == strip => run.end += 1,
                _ => self.runs.push(Run { page, first: strip, end: strip + 1 }),
            }
        }
        self.distance = (PAGE_STRIPS * self.runs.len()).div_ceil(strips.len().max(1));
    }

    fn attend(&mut self, env: Env<'_>, head: &Head, queries: &Queries) {
        let (group, dim) = (queries.count(), env.format.dim);
        let stride = self.runs.iter().map(|run| run.strips().len()).sum::<usize>() * STRIP;
        self.scores.resize(group * stride, 0.0);
        // Nothing has asked for the first ones yet.
        (0..self.distance).for_each(|index| prefetch(read(&self.runs, env, head, index)));
        let mut at = 0;
        for (index, run) in self.runs.iter().enumerate() {
            if let Some(after) = self.runs.get(index + 2 * self.distance) {
                prefetch(after.page(head));
            }
            let ahead = read(&self.runs, env, head, index + self.distance);
            let scores = &mut self.scores[at..];
            run.page(head).scores(env.level, env.format, queries, run.strips(), ahead, scores, stride);
            for strip in run.strips() {
                let mut dead = !(head.live()[run.page as usize] >> (strip * STRIP)) as u16;
                while dead != 0 {
                    let lane = dead.trailing_zeros() as usize;
                    (0..group).for_each(|g| self.scores[g * stride + at + lane] = f32::NEG_INFINITY);
                    dead &= dead - 1;
                }
                at += STRIP;
            }
        }
        self.max.clear();
        self.sum.clear();
        for scores in self.scores.chunks_exact_mut(stride) {
            let max = maximum(env.level, scores);
            self.max.push(max);
            self.sum.push(exponentials(env.level, scores, max));
        }
        self.acc.clear();
        self.acc.resize(group * dim, 0.0);
        let mut at = 0;
        for (index, run) in self.runs.iter().enumerate() {
            let (weights, strips) = (&self.scores[at..], run.strips());
            let ahead = read(&self.runs, env, head, self.runs.len() + index + self.distance);
            run.page(head).add_values(env.level, env.format, weights, stride, strips, ahead, &mut self.acc);
            at += run.strips().len() * STRIP;
        }
    }

    /// Adds the weights of one query, times `factor`, to those of the slots they belong to.
    fn add_mass(&self, env: Env<'_>, query: usize, factor: f32, mass: &mut [f32]) {
        let stride = self.scores.len() / self.max.len();
        let mut at = query * stride;
        for run in &self.runs {
            let slots = run.strips().len() * STRIP;
            let first = run.page as usize * PAGE + run.first as usize * STRIP;
            add_scaled(env.level, &mut mass[first..][..slots], factor, &self.scores[at..][..slots]);
            at += slots;
        }
    }
}
