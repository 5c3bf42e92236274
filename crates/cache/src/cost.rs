//! What the heads of a layer cost: the same for all of them.

use crate::format::Format;
use crate::head::Head;
use crate::page::PAGE_STRIPS;
use crate::read::Read;
use crate::slots::Slots;
use sketchkv_kernels::attention::layout::STRIP;

/// Bytes of a head by its slots.
pub(crate) struct HeadCost {
    /// What does not grow with the slots.
    fixed: usize,
    /// Of a sealed strip.
    strip: usize,
    /// What an open strip takes more; 0 where there are none.
    open: usize,
    /// Strips that are open however many there are: the last, and the first where it is kept open.
    open_strips: usize,
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
        let (strip, open) = (Slots::strip_cost(format, words), Slots::open_strip_cost(format, words));
        HeadCost {
            fixed: head.fixed_bytes(),
            strip,
            open: if format.opens() { open - strip } else { 0 },
            open_strips: 1 + usize::from(format.keeps_front()),
            page: Slots::page_cost(format),
            ragged: usize::from(ragged),
            index: head.slots.index.as_ref().map(|index| index.clone_box()),
        }
    }

    /// Bytes of a head with `slots` slots.
    pub(crate) fn of(&self, slots: usize) -> usize {
        let strips = slots.div_ceil(STRIP);
        self.fixed
            + strips.min(self.open_strips) * self.open
            + strips * self.strip
            + (strips.div_ceil(PAGE_STRIPS) + self.ragged) * self.page
            + self.index.as_ref().map_or(0, |index| index.bytes(strips * STRIP))
    }

    /// The most slots, in whole strips, of a head of `bytes` bytes.
    pub(crate) fn slots_within(&self, bytes: usize) -> usize {
        let (mut low, mut high) = (0, 1 + bytes / self.strip);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if self.of(middle * STRIP) <= bytes { low = middle } else { high = middle - 1 }
        }
        low * STRIP
    }
}
