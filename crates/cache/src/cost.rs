//! What the heads of a layer cost: the same for all of them.

use crate::format::Format;
use crate::head::Head;
use crate::page::PAGE_STRIPS;
use crate::read::Read;
use crate::slots::{Slots, open_strips};
use sketchkv_kernels::attention::layout::STRIP;

/// Bytes of a head by its slots.
pub(crate) struct HeadCost {
    /// What does not grow with the slots.
    fixed: usize,
    /// Of a sealed strip, on the last rung.
    strip: usize,
    /// What a strip takes more on the first rung.
    finer: usize,
    /// What an open strip takes more; 0 where there are none.
    open: usize,
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
        let [first, strip] = [0, format.rungs() - 1].map(|rung| Slots::strip_cost(format, rung, words));
        let open = Slots::open_strip_cost(format, words);
        HeadCost {
            fixed: head.fixed_bytes(),
            strip,
            finer: first - strip,
            open: if format.opens() { open - strip } else { 0 },
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

    /// The bytes that a head with `slots` slots has a use for: all its pages are on the first rung.
    pub(crate) fn of_finest(&self, slots: usize) -> usize {
        self.of(slots) + slots.div_ceil(STRIP) * self.finer
    }

    /// Bytes of a head with `slots` slots, all on the last rung.
    pub(crate) fn of(&self, slots: usize) -> usize {
        let strips = slots.div_ceil(STRIP);
        self.fixed
            + strips.min(self.front + self.open_strips(strips)) * self.open
            + strips * self.strip
            + (strips.div_ceil(PAGE_STRIPS) + self.ragged) * self.page
            + self.index.as_ref().map_or(0, |index| index.bytes(strips * STRIP))
    }

    /// Bytes of a slot, on the last rung.
    pub(crate) fn of_slot(&self) -> usize {
        self.strip.div_ceil(STRIP)
    }

    /// The most slots, in whole strips, of a head of `bytes` bytes; in whole pages where the last one is to stay open.
    pub(crate) fn slots_within(&self, bytes: usize) -> usize {
        let (mut low, mut high) = (0, 1 + bytes / self.strip);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if self.of(middle * STRIP) <= bytes { low = middle } else { high = middle - 1 }
        }
        let whole = if self.open > 0 && self.open_strips(low) == PAGE_STRIPS { PAGE_STRIPS } else { 1 };
        low / whole * whole * STRIP
    }
}
