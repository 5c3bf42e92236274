//! What the heads of a layer cost: the same for all of them.

use crate::format::Format;
use crate::head::Head;
use crate::page::{PAGE, PAGE_STRIPS};
use crate::read::Read;
use crate::slots::{Slots, open_strips};
use sketchkv_kernels::attention::layout::STRIP;

/// Bytes of a head by its slots.
pub(crate) struct HeadCost {
    /// What does not grow with the slots.
    fixed: usize,
    /// Of a sealed strip, on each rung.
    strips: Box<[usize]>,
    /// What codes lose, on each rung, relative to those of two bits.
    losses: Box<[f64]>,
    /// Of an open strip; none where there are none.
    open: Option<usize>,
    /// Strips at the front that are open however many there are.
    front: usize,
    /// Of a page without its strips.
    page: usize,
    /// Pages more than the strips fill: where heads compete they fill their last pages unevenly.
    ragged: usize,
    index: Option<Box<dyn Read>>,
}

impl HeadCost {
    /// Of heads like `head`; `ragged` where the heads of a layer compete.
    pub(crate) fn new(head: &Head, format: &Format, ragged: bool) -> Self {
        let words = head.keep.words();
        HeadCost {
            fixed: head.fixed_bytes(),
            strips: (0..format.rungs()).map(|rung| Slots::strip_cost(format, rung, words)).collect(),
            losses: (0..format.rungs()).map(|rung| format.loss_on(rung)).collect(),
            open: format.opens().then(|| Slots::open_strip_cost(format, words)),
            front: usize::from(format.keeps_front()),
            page: Slots::page_cost(format),
            ragged: usize::from(ragged),
            index: head.slots.index.as_ref().map(|index| index.clone_box()),
        }
    }

    /// Strips at the end that stay open. Heads that compete give whole strips back all the time: they count on one.
    fn open_strips(&self, strips: usize) -> usize {
        if self.ragged > 0 { 1 } else { open_strips(strips) }
    }

    /// How many rungs there are.
    pub(crate) fn rungs(&self) -> usize {
        self.strips.len()
    }

    /// The bytes that a head with `slots` slots has a use for: all its pages are on the first rung.
    pub(crate) fn of_finest(&self, slots: usize) -> usize {
        self.all_on(0, slots)
    }

    /// The bytes that a head with `slots` slots has a use for while no page is on a finer rung than this.
    pub(crate) fn all_on(&self, rung: usize, slots: usize) -> usize {
        let strip = self.strips[rung.min(self.rungs() - 1)];
        self.of(slots) + slots.div_ceil(STRIP) * (strip - self.last_strip())
    }

    /// Bytes of a head with `slots` slots, all on the last rung.
    pub(crate) fn of(&self, slots: usize) -> usize {
        self.on(self.rungs() - 1, slots)
    }

    /// Bytes of a head with `slots` slots, all on this rung.
    pub(crate) fn on(&self, rung: usize, slots: usize) -> usize {
        self.with_open(self.open_strips(slots.div_ceil(STRIP)), rung, slots)
    }

    /// The most bytes of such a head that has no limit of bytes: its last page is open until it is full.
    pub(crate) fn on_unlimited(&self, rung: usize, slots: usize) -> usize {
        self.with_open(PAGE_STRIPS, rung, slots)
    }

    /// Bytes of such a head with `open` open strips at the end.
    fn with_open(&self, open: usize, rung: usize, slots: usize) -> usize {
        let (strips, strip) = (slots.div_ceil(STRIP), self.strips[rung]);
        let open = strips.min(self.front + open);
        let more = self.open.map_or(0, |bytes| bytes.saturating_sub(strip));
        self.fixed
            + open * more
            + strips * strip
            + (strips.div_ceil(PAGE_STRIPS) + self.ragged) * self.page
            + self.index.as_ref().map_or(0, |index| index.bytes(strips * STRIP))
    }

    /// Bytes of a slot on a rung, its part of the page included.
    pub(crate) fn slot_on(&self, rung: usize) -> f64 {
        (PAGE_STRIPS * self.strips[rung] + self.page) as f64 / PAGE as f64
    }

    /// What codes lose on a rung, relative to those of two bits.
    pub(crate) fn loss_on(&self, rung: usize) -> f64 {
        self.losses[rung]
    }

    fn last_strip(&self) -> usize {
        self.strips[self.rungs() - 1]
    }

    /// Bytes that a slot more costs in the mean, on the last rung, its part of the page included.
    pub(crate) fn of_slot(&self) -> usize {
        let index = self.index.as_ref().map_or(0, |index| index.bytes(2 * PAGE) - index.bytes(PAGE));
        (PAGE_STRIPS * self.last_strip() + self.page + index).div_ceil(PAGE)
    }

    /// How many of `slots` slots, the newest, are open; those of the last page where no limit of bytes is.
    pub(crate) fn open_slots(&self, slots: usize, unlimited: bool) -> usize {
        let strips = slots.div_ceil(STRIP);
        let open = if unlimited { PAGE_STRIPS } else { self.open_strips(strips) };
        if self.open.is_some() { (strips.min(open) * STRIP).min(slots) } else { 0 }
    }

    /// About so many slots, but no fewer than `least`: in whole pages where the last one is to stay open, else in whole strips.
    pub(crate) fn whole(&self, slots: usize, least: usize) -> usize {
        let strips = slots.div_ceil(STRIP);
        if self.open.is_none() || self.open_strips(strips) < PAGE_STRIPS {
            return strips * STRIP;
        }
        let nearest = (slots + PAGE / 2) / PAGE * PAGE;
        if nearest < least { nearest + PAGE } else { nearest }
    }

    /// The most slots, in whole strips, of a head of `bytes` bytes on this rung; in whole pages where the last one is to stay open.
    pub(crate) fn slots_within(&self, rung: usize, bytes: usize) -> usize {
        let (mut low, mut high) = (0, 1 + bytes / self.strips[rung]);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if self.on(rung, middle * STRIP) <= bytes { low = middle } else { high = middle - 1 }
        }
        let whole = if self.open.is_some() && self.open_strips(low) == PAGE_STRIPS { PAGE_STRIPS } else { 1 };
        low / whole * whole * STRIP
    }
}
