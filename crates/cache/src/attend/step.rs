//! One token: choose strips, score them as their codes lie, exponentials, sums of values; then what all tasks found, the
//! tail and the token itself are put together.

use super::choose::EstimateTask;
use super::{Attend, Run, floats, next, runs};
use crate::context::{Buffers, Partial, Sample, Softcap, dot};
use crate::format::Env;
use crate::head::{Head, Trace};
use crate::keep::Feedback;
use crate::page::{PAGE, PAGE_STRIPS};
use crate::profile::{Part, Stopwatch};
use sketchkv_kernels::attention::layout::STRIP;
use sketchkv_kernels::attention::{Queries, exponentials, maximum, prefetch};
use sketchkv_kernels::{for_each_mut, for_each_pair_mut};

/// The fewest strips that one task reads.
const TASK_STRIPS: usize = 8;
/// Tasks that the strips of a head are cut into, when there are enough of them: more share the work better, fewer have
/// less to put together.
const TASKS: usize = 12;

/// Buffers of this path.
#[derive(Default)]
pub(crate) struct StepScratch {
    heads: Vec<StepHead>,
    estimates: Vec<EstimateTask>,
    tasks: Vec<RunTask>,
}

/// What one KV head needs during a step.
#[derive(Default)]
pub(super) struct StepHead {
    /// Queries of the group, `[query][key_dim]`, scaled.
    scaled: Vec<f32>,
    /// The same, turned and padded.
    queries: Queries,
    turned: Vec<f32>,
    /// Strips to read, ascending.
    strips: Vec<u32>,
    partial: Partial,
    /// Output of the group, `[query][value_dim]`.
    out: Vec<f32>,
    /// Of the index and the tail.
    buffers: Buffers,
}

impl StepHead {
    pub(super) fn scaled(&self) -> &[f32] {
        &self.scaled
    }

    /// The strips to read, none yet, and what to choose them in.
    pub(super) fn strips_mut(&mut self) -> (&mut Vec<u32>, &mut Buffers) {
        self.strips.clear();
        (&mut self.strips, &mut self.buffers)
    }

    /// All strips are to be read.
    pub(super) fn read_all(&mut self, head: &Head) {
        self.strips_mut().0.extend(0..(head.slots.len() / STRIP) as u32);
    }

    /// Strips of a task, in whole pages.
    fn task_strips(&self) -> usize {
        self.strips.len().div_ceil(TASKS).next_multiple_of(PAGE_STRIPS).max(TASK_STRIPS)
    }

    /// How many tasks there are.
    fn tasks(&self) -> usize {
        self.strips.len().div_ceil(self.task_strips())
    }
}

/// Some strips of one head.
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

impl StepScratch {
    pub(crate) fn bytes(&self) -> usize {
        let heads = self.heads.iter().map(|own| {
            let Partial { max, sum, acc } = &own.partial;
            floats(&[&own.scaled, &own.turned, max, sum, acc, &own.out])
                + own.queries.bytes()
                + own.strips.capacity() * size_of::<u32>()
                + own.buffers.bytes()
        });
        let estimates = self.estimates.iter().map(EstimateTask::bytes);
        let tasks = self.tasks.iter().map(|task| {
            floats(&[&task.scores, &task.max, &task.sum, &task.acc]) + task.runs.capacity() * size_of::<Run>()
        });
        let tables = self.heads.capacity() * size_of::<StepHead>()
            + self.estimates.capacity() * size_of::<EstimateTask>()
            + self.tasks.capacity() * size_of::<RunTask>();
        heads.sum::<usize>() + estimates.sum::<usize>() + tasks.sum::<usize>() + tables
    }

    /// The attention weights of one query of the step that was just made: adds those of the slots to `slots` and returns
    /// the token's own.
    pub(crate) fn weights(&self, attend: &Attend<'_>, h: usize, query: usize, slots: &mut [f32]) -> f32 {
        let own = &self.heads[h];
        let (max, norm) = (own.partial.max[query], 1.0 / own.partial.sum[query]);
        let count = self.heads[..attend.shape.kv_heads].iter().map(StepHead::tasks).sum();
        for task in self.tasks[..count].iter().filter(|task| task.head == h) {
            let factor = norm * (task.max[query] - max).exp();
            task.take_mass(attend.env, Feedback::Sum(0.0), query, factor, slots);
        }
        norm * (attend.own_logit(h, query, own) - max).exp()
    }

    /// Adds to the slots that were not read, `[query][slot]`, what the read gave to the page that stands for them.
    pub(crate) fn add_rest(&self, attend: &Attend<'_>, h: usize, head: &Head, slots: &mut [Vec<f32>]) {
        let Some(index) = &head.slots.index else { return };
        let (own, view) = (&self.heads[h], attend.view(head));
        let all = 0..(head.slots.len() / STRIP) as u32;
        let mut alone = Partial::default();
        for (page, live) in head.slots.live().iter().enumerate() {
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
            alone.reset(attend.group(), attend.shape.value_dim);
            index.rest(&own.scaled, &view, &others, &mut alone, &mut Buffers::default());
            for (query, slots) in slots.iter_mut().enumerate() {
                let mass = alone.sum[query] * (alone.max[query] - own.partial.max[query]).exp();
                let share = mass / own.partial.sum[query] / unread.len().max(1) as f32;
                unread.iter().for_each(|&slot| slots[slot] += share);
            }
        }
    }
}

impl Attend<'_> {
    /// See the module.
    pub(super) fn step(
        &self,
        heads: &[Head],
        scratch: &mut StepScratch,
        traces: &mut [Trace],
        out: &mut [f32],
        watch: &mut Stopwatch,
    ) {
        let StepScratch { heads: own, estimates, tasks } = scratch;
        if own.len() < heads.len() {
            own.resize_with(heads.len(), StepHead::default);
        }
        let own = &mut own[..heads.len()];
        for (h, own) in own.iter_mut().enumerate() {
            self.prepare(h, own);
        }
        if heads.iter().any(|head| head.slots.index.is_some()) {
            watch.lap(Part::Attention);
            self.choose(heads, own, estimates);
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
            let own = &*own;
            for_each_mut(self.pool, tasks, |_, task| {
                let (head, own) = (&heads[task.head], &own[task.head]);
                task.set(own);
                task.attend(self.env, head, &own.queries, self.softcap());
            });
        }
        let tasks = &*tasks;
        for_each_pair_mut(self.pool, own, traces, |h, own, trace| {
            self.merge(h, &heads[h], own, tasks, trace);
        });
        let width = self.group() * self.shape.value_dim;
        for (out, own) in out.chunks_exact_mut(width).zip(own) {
            out.copy_from_slice(&own.out);
        }
    }

    /// Scales and turns the queries.
    fn prepare(&self, h: usize, own: &mut StepHead) {
        own.scaled.clear();
        self.scale(h, 0, &mut own.scaled);
        self.turn(&own.scaled, &mut own.turned);
        own.queries.set(&own.turned, self.format().keys.dim);
    }

    /// What a query of the token makes of the token's own key.
    fn own_logit(&self, h: usize, query: usize, own: &StepHead) -> f32 {
        let d = self.shape.key_dim;
        self.softcap().of(dot(&own.scaled[query * d..][..d], self.tokens(h).key(0)))
    }

    /// Puts together what the tasks found, the tail and the token itself.
    fn merge(&self, h: usize, head: &Head, own: &mut StepHead, tasks: &[RunTask], trace: &mut Trace) {
        let values = &self.format().values;
        let (d, dim, group) = (values.width, values.dim, self.group());
        let tasks = || tasks.iter().filter(|task| task.head == h);
        // The sums over slots are in the space of the value codes: put together there, then turned back.
        own.partial.reset(group, dim);
        for task in tasks() {
            for g in 0..group {
                own.partial.add(g, task.max[g], task.sum[g], &task.acc[g * dim..][..dim]);
            }
        }
        for acc in own.partial.acc.chunks_exact_mut(dim) {
            values.turn_back(acc);
        }
        own.partial.cut(dim, d);
        if let Some(index) = &head.slots.index {
            index.rest(&own.scaled, &self.view(head), &own.strips, &mut own.partial, &mut own.buffers);
        }
        if let Some(tail) = &head.tail {
            tail.attend(&own.scaled, &mut own.partial, &mut own.buffers);
        }
        own.out.resize(group * d, 0.0);
        trace.mass.clear();
        trace.sample.clear();
        let (feedback, samples) = (head.feedback(1), head.samples());
        if feedback.is_some() {
            trace.mass.resize(head.slots.len() + 1, 0.0);
        }
        for g in 0..group {
            let logit = self.own_logit(h, g, own);
            let partial = &mut own.partial;
            partial.add(g, logit, 1.0, self.tokens(h).value(0));
            if Sample::takes(g, group, samples) {
                let key_dim = self.shape.key_dim;
                trace.sample.push(partial.max[g] + partial.sum[g].ln());
                trace.sample.extend_from_slice(&own.scaled[g * key_dim..][..key_dim]);
            }
            let norm = 1.0 / partial.sum[g];
            let out = own.out[g * d..][..d].iter_mut();
            out.zip(&partial.acc[g * d..]).for_each(|(out, x)| *out = x * norm);
            if let Some(feedback) = feedback {
                let share = norm * feedback.weight(0, group);
                for task in tasks() {
                    let factor = share * (task.max[g] - partial.max[g]).exp();
                    task.take_mass(self.env, feedback, g, factor, &mut trace.mass);
                }
                if feedback.own(0) > 0 {
                    let last = trace.mass.len() - 1;
                    let own = (logit - partial.max[g]).exp();
                    feedback.take(self.env.level, &mut trace.mass[last..], share, &[own]);
                }
            }
        }
        self.note(h, head, trace);
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
    fn set(&mut self, own: &StepHead) {
        self.runs.clear();
        let strips = own.strips.chunks(own.task_strips()).nth(self.number).unwrap_or_default();
        self.runs.extend(runs(strips));
        self.distance = (PAGE_STRIPS * self.runs.len()).div_ceil(strips.len().max(1));
    }

    fn attend(&mut self, env: Env<'_>, head: &Head, queries: &Queries, softcap: Softcap) {
        let (group, dim) = (queries.count(), env.format.values.dim);
        let stride = self.runs.iter().map(|run| run.strips().len()).sum::<usize>() * STRIP;
        self.scores.resize(group * stride, 0.0);
        // Nothing has asked for the first ones yet.
        let fetch_grid = |index: usize| {
            if let Some(run) = self.runs.get(index) {
                prefetch(run.page(head).grid());
            }
        };
        for index in 0..self.distance {
            prefetch(read(&self.runs, env, head, index));
            fetch_grid(index);
        }
        let mut at = 0;
        for (index, run) in self.runs.iter().enumerate() {
            if let Some(after) = self.runs.get(index + 2 * self.distance) {
                prefetch(after.page(head));
            }
            fetch_grid(index + self.distance);
            let ahead = read(&self.runs, env, head, index + self.distance);
            let scores = &mut self.scores[at..];
            run.page(head).scores(env.level, env.format, queries, run.strips(), ahead, scores, stride);
            at += run.strips().len() * STRIP;
        }
        softcap.apply(&mut self.scores);
        self.hide_empty(head, group, stride);
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

    /// Slots that hold no token draw nothing.
    fn hide_empty(&mut self, head: &Head, group: usize, stride: usize) {
        let mut at = 0;
        for run in &self.runs {
            for strip in run.strips() {
                let mut dead = !(head.slots.live()[run.page as usize] >> (strip * STRIP)) as u16;
                while dead != 0 {
                    let lane = dead.trailing_zeros() as usize;
                    (0..group).for_each(|g| self.scores[g * stride + at + lane] = f32::NEG_INFINITY);
                    dead &= dead - 1;
                }
                at += STRIP;
            }
        }
    }

    /// Takes the weights of one query, times `factor`, into those of the slots they belong to.
    fn take_mass(&self, env: Env<'_>, feedback: Feedback, query: usize, factor: f32, mass: &mut [f32]) {
        let stride = self.scores.len() / self.max.len();
        let mut at = query * stride;
        for run in &self.runs {
            let slots = run.slots();
            let weights = &self.scores[at..][..slots.len()];
            at += slots.len();
            feedback.take(env.level, &mut mass[slots], factor, weights);
        }
    }
}
