//! Which slots the tokens of a chunk read: all, or by blocks of tokens the strips that every fourth of them looks at most.

use super::chunk::{SpareTiles, Tiles, hide_if};
use super::{Attend, next};
use crate::context::EMPTY;
use crate::head::Head;
use crate::profile::{Part, Stopwatch};
use crate::read::{Estimate, choose};
use sketchkv_kernels::attention::layout::STRIP;
use sketchkv_kernels::for_each_mut;
use std::ops::Range;

/// Tokens that choose together.
const BLOCK: usize = 32;
/// Of so many tokens the last one's queries choose. Mean queries are no substitute: what single tokens look at is lost in
/// them.
const SAMPLE: usize = 4;

/// What some tokens of a chunk read for one head.
#[derive(Default)]
pub(super) struct Selection {
    pub(super) head: usize,
    pub(super) tokens: Range<usize>,
    /// Strips, ascending.
    pub(super) strips: Vec<u32>,
    /// Positions of their slots.
    pub(super) positions: Vec<u32>,
    estimate: Estimate,
}

impl Selection {
    /// How many slots are read.
    pub(super) fn slots(&self) -> usize {
        self.strips.len() * STRIP
    }

    pub(super) fn bytes(&self) -> usize {
        (self.strips.capacity() + self.positions.capacity()) * size_of::<u32>() + self.estimate.bytes()
    }
}

impl Attend<'_> {
    /// Selections of all heads, each of some tokens, together of all tokens.
    pub(super) fn select<'s>(
        &self,
        heads: &[Head],
        selections: &'s mut Vec<Selection>,
        tiles: &SpareTiles,
        watch: &mut Stopwatch,
    ) -> &'s mut [Selection] {
        // A window that slides is short.
        let prompt = self.prompt.filter(|_| self.shape.window.is_none());
        let some = |head: &Head| prompt.filter(|&slots| slots < head.slots.len());
        let mut count = 0;
        for (h, head) in heads.iter().enumerate() {
            let block = if some(head).is_some() { BLOCK } else { self.tokens };
            for first in (0..self.tokens).step_by(block) {
                let selection = next(selections, &mut count);
                selection.head = h;
                selection.tokens = first..self.tokens.min(first + block);
            }
        }
        let selections = &mut selections[..count];
        let chooses = heads.iter().any(|head| some(head).is_some());
        if chooses {
            watch.lap(Part::Attention);
        }
        for_each_mut(self.pool, selections, |_, selection| {
            let head = &heads[selection.head];
            selection.strips.clear();
            match some(head) {
                Some(slots) => Tiles::lend(tiles, |tiles| self.choose_for(selection, head, slots, tiles)),
                None => selection.strips.extend(0..(head.slots.len() / STRIP) as u32),
            }
            selection.positions.clear();
            let positions = head.slots.positions();
            for &strip in &selection.strips {
                selection.positions.extend_from_slice(&positions[strip as usize * STRIP..][..STRIP]);
            }
        });
        if chooses {
            watch.lap(Part::Read);
        }
        selections
    }

    /// Chooses the strips that the queries of some tokens look at most.
    fn choose_for(&self, selection: &mut Selection, head: &Head, slots: usize, tiles: &mut Tiles) {
        let (all, h) = (head.slots.len(), selection.head);
        tiles.scaled.clear();
        let last = selection.tokens.end - 1;
        for token in selection.tokens.clone().filter(|token| (last - token).is_multiple_of(SAMPLE)) {
            self.scale(h, token, &mut tiles.scaled);
        }
        let strips = &mut selection.strips;
        strips.extend(0..(all / STRIP) as u32);
        self.slot_scores(head, strips, tiles, all);
        strips.clear();
        let queries = tiles.scaled.len() / self.shape.key_dim;
        let logits = &mut tiles.scores[..queries * all];
        self.softcap().apply(logits);
        for logits in logits.chunks_exact_mut(all) {
            hide_if(logits, head.slots.positions(), |position| position == EMPTY);
        }
        let (view, Selection { strips, estimate, .. }) = (self.view(head), selection);
        estimate.set_exact(self.env.level, logits, &view);
        choose(slots, [&*estimate].into_iter(), &view, strips, &mut tiles.buffers);
    }
}
