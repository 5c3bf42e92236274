//! Which strips of a head a single token reads.

use super::{Attend, next};
use crate::attend::step::StepHead;
use crate::head::Head;
use crate::read::{Estimate, View, choose, parts};
use sketchkv_kernels::attention::layout::STRIP;
use sketchkv_kernels::for_each_mut;
use std::ops::Range;

/// Parts that an index estimates a head in: more share the work better, each projects the queries again.
const ESTIMATES: usize = 2;

/// Some strips of one head, to be estimated by its index.
#[derive(Default)]
pub(super) struct EstimateTask {
    head: usize,
    strips: Range<usize>,
    estimate: Estimate,
}

impl EstimateTask {
    pub(super) fn bytes(&self) -> usize {
        self.estimate.bytes()
    }
}

impl<'a> Attend<'a> {
    pub(super) fn view<'h>(&self, head: &'h Head) -> View<'h> {
        View { positions: head.slots.positions(), live: head.slots.live(), position: self.position }
    }

    /// Chooses the strips to read by the indexes of the heads.
    pub(super) fn choose(&self, heads: &[Head], own: &mut [StepHead], tasks: &mut Vec<EstimateTask>) {
        let mut count = 0;
        for (h, head) in heads.iter().enumerate() {
            let Some(index) = &head.slots.index else { continue };
            for strips in parts(index.slots_read(), head.slots.len() / STRIP, ESTIMATES) {
                let task = next(tasks, &mut count);
                (task.head, task.strips) = (h, strips);
            }
        }
        let tasks = &mut tasks[..count];
        {
            let own = &*own;
            for_each_mut(self.pool, tasks, |_, EstimateTask { head: h, strips, estimate }| {
                let head = &heads[*h];
                if let Some(index) = &head.slots.index {
                    estimate.set(&**index, own[*h].scaled(), &self.view(head), strips.clone());
                }
            });
        }
        let tasks = &*tasks;
        for_each_mut(self.pool, own, |h, own| match &heads[h].slots.index {
            None => own.read_all(&heads[h]),
            Some(index) => {
                let estimates = tasks.iter().filter(|task| task.head == h).map(|task| &task.estimate);
                let (strips, buffers) = own.strips_mut();
                choose(index.slots_read(), estimates, &self.view(&heads[h]), strips, buffers);
            }
        });
    }
}
