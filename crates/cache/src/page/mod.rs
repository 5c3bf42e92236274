//! Pages: up to 64 slots of one KV head, the unit of sharing and of per-channel scales.

mod channels;
mod grid;
mod sealing;

use crate::format::{Format, SideFormat};
use grid::with_floats;
use half::f16;
use sketchkv_kernels::attention::graded::Grades;
use sketchkv_kernels::attention::layout::STRIP;
use sketchkv_kernels::attention::{
    Queries, Stream, Strips, decode_keys, decode_values, key_scores, value_sums,
};
use sketchkv_kernels::cpu::Level;
use std::ops::Range;
use std::sync::Arc;

/// Slots in a page.
pub(crate) const PAGE: usize = 64;
/// Strips in a page.
pub(crate) const PAGE_STRIPS: usize = PAGE / STRIP;

/// Keys and values of up to 64 slots.
///
/// Coarse codes are not for the newest tokens: a page of such codes grows in open strips, of f16 or 8 bits, which are sealed from
/// the first on. The open strips are the last ones; where a format keeps its front, the first page's first strip is never
/// sealed, nor counted among them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page {
    keys: Strips,
    values: Strips,
    strips: usize,
    /// Whether the first strip is never sealed.
    front: bool,
    /// How many of the strips are open.
    open: usize,
    /// `[2][dim]` scales, then zeros, of per-channel codes; empty while no strip is sealed.
    grid: Box<[f16]>,
    /// Bits of the channels, where they are the channels' own; none while no strip is sealed.
    grades: Option<Arc<Grades>>,
    /// What sealed strips are sealed on.
    rung: u8,
}

impl Page {
    /// A page without strips, to be sealed on a rung; of the `first` of a head the format may keep the front open.
    pub(crate) fn empty(format: &Format, first: bool, rung: usize) -> Self {
        Page { front: first && format.keeps_front(), rung: rung as u8, ..Page::default() }
    }

    /// As this one, but of zeros, with `strips` strips of which the last `open` are open. `grades` are those of its sealed
    /// strips, where the format has such.
    pub(crate) fn zeros(
        &self,
        format: &Format,
        strips: usize,
        open: usize,
        grades: Option<&Arc<Grades>>,
    ) -> Self {
        let mut page = Page { front: self.front, rung: self.rung, open, ..Page::default() };
        page.set_strips(format, strips);
        if page.sealed() > 0 {
            page.grid = vec![f16::ZERO; format.grid_bytes() / 2].into();
            page.grades = grades.cloned();
        }
        page
    }

    /// What its strips are sealed on.
    pub(crate) fn rung(&self) -> usize {
        self.rung.into()
    }

    /// Chooses what strips will be sealed on, while none is.
    pub(crate) fn set_rung(&mut self, rung: usize) {
        debug_assert!(self.sealed() == 0, "a page is coded on its rung already");
        self.rung = rung as u8;
    }

    /// Strips that are open.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    pub(crate) fn strips(&self) -> usize {
        self.strips
    }

    /// Strips at the front that are never sealed: one or none.
    fn front(&self) -> usize {
        usize::from(self.front).min(self.strips)
    }

    /// Strips that are sealed.
    pub(crate) fn sealed(&self) -> usize {
        self.strips - self.front() - self.open
    }

    /// Bytes of the allocations of this page: keys, values and grid.
    pub(crate) fn bytes(&self) -> usize {
        self.keys.allocated() + self.values.allocated() + self.grid_bytes()
    }

    /// Bytes of its keys and values but those of the front; together they may take less than strip by strip.
    pub(crate) fn strips_bytes(&self, format: &Format) -> usize {
        (self.bytes() - self.grid_bytes()).saturating_sub(self.front() * format.open_strip_bytes())
    }

    /// Bytes of the grid.
    fn grid_bytes(&self) -> usize {
        2 * self.grid.len()
    }

    fn set_strips(&mut self, format: &Format, strips: usize) {
        self.strips = strips;
        self.keys.resize(self.span(&format.keys, 0..strips).end);
        self.values.resize(self.span(&format.values, 0..strips).end);
    }

    /// Adds an empty strip, open where the format has open strips.
    pub(crate) fn push_strip(&mut self, format: &Format) {
        let front = self.front && self.strips == 0;
        self.open += usize::from(format.opens() && !front);
        self.set_strips(format, self.strips + 1);
    }

    /// Removes the last strip.
    pub(crate) fn pop_strip(&mut self, format: &Format) {
        self.open = self.open.saturating_sub(1);
        self.set_strips(format, self.strips - 1);
    }

    /// Keys, values and grid as they lie in memory.
    pub(crate) fn parts(&self) -> (&[u8], &[u8], &[f16]) {
        (&self.keys, &self.values, &self.grid)
    }

    /// The same, to be written.
    pub(crate) fn parts_mut(&mut self) -> (&mut [u8], &mut [u8], &mut [f16]) {
        (&mut self.keys, &mut self.values, &mut self.grid)
    }

    /// One bit for each slot of these strips.
    fn slots(strips: Range<usize>) -> u64 {
        let below = |strip: usize| !u64::MAX.checked_shl((strip * STRIP) as u32).unwrap_or(0);
        below(strips.end) & !below(strips.start)
    }

    /// One bit per slot that is sealed.
    fn sealed_slots(&self) -> u64 {
        Self::slots(self.sealed_strips())
    }

    /// How many of the slots in `live` are sealed.
    pub(crate) fn sealed_tokens(&self, live: u64) -> u32 {
        (live & self.sealed_slots()).count_ones()
    }

    /// The strips that are sealed.
    fn sealed_strips(&self) -> Range<usize> {
        self.front()..self.strips - self.open
    }

    /// Some strips in runs of those that are encoded alike, each with the rung it is sealed on, if it is.
    fn sections(&self, strips: Range<usize>) -> impl Iterator<Item = (Option<usize>, Range<usize>)> + use<> {
        let Range { start, end } = self.sealed_strips();
        [(None, 0..start), (Some(self.rung()), start..end), (None, end..self.strips)].into_iter().filter_map(
            move |(sealed, section)| {
                let within = strips.start.max(section.start)..strips.end.min(section.end);
                (!within.is_empty()).then_some((sealed, within))
            },
        )
    }

    /// Where some strips lie in the bytes of a side.
    fn span(&self, side: &SideFormat, strips: Range<usize>) -> Range<usize> {
        let Range { start, end } = self.sealed_strips();
        let (layout, open) = (side.layout(Some(self.rung())), side.layout(None));
        let at = |strip: usize| {
            let sealed = strip.clamp(start, end) - start;
            sealed * layout.strip_bytes() + (strip - sealed) * open.strip_bytes()
        };
        at(strips.start)..at(strips.end)
    }

    /// The strip that a slot lies in: the rung it is sealed on, if it is, and its number as a range.
    fn strip_of(&self, slot: usize) -> (Option<usize>, Range<usize>) {
        let strip = slot / STRIP;
        (self.sealed_strips().contains(&strip).then_some(self.rung()), strip..strip + 1)
    }

    /// Adds to a ledger what the slots in `live` and the grid take.
    pub(crate) fn enter(&self, format: &Format, live: u64, ledger: &mut crate::Ledger) {
        for (sealed, strips) in self.sections(0..self.strips) {
            let (keys, values) = (format.keys.layout(sealed), format.values.layout(sealed));
            let slots = strips.start * STRIP..strips.end * STRIP;
            let live = slots.filter(|slot| live >> slot & 1 == 1).count();
            ledger.keys += live * keys.code_bytes() / STRIP;
            ledger.values += live * values.code_bytes() / STRIP;
            ledger.scales += live * (keys.scale_bytes() + values.scale_bytes()) / STRIP;
        }
        ledger.scales += self.grid_bytes();
    }

    /// Writes one slot; `key` and `value` are turned and padded, `live` the other slots of this page that count.
    pub(crate) fn write(&mut self, format: &Format, slot: usize, key: &[f32], value: &[f32], live: u64) {
        self.set_key(format, slot, key, live);
        self.set_value(format, slot, value);
    }

    fn set_key(&mut self, format: &Format, slot: usize, key: &[f32], live: u64) {
        let (sealed, strip) = self.strip_of(slot);
        if sealed.is_some() && !self.grid.is_empty() {
            self.write_on_grid(format, slot, key, live);
        } else {
            let span = self.span(&format.keys, strip);
            format.keys.write(sealed, &mut self.keys[span], slot % STRIP, key);
        }
    }

    /// Copies a slot from another page, bit for bit where the code allows it; `live` are the other slots of this page
    /// that count.
    pub(crate) fn copy(&mut self, format: &Format, slot: usize, from: &Page, from_slot: usize, live: u64) {
        self.copy_key(format, slot, from, from_slot, live);
        self.copy_value(format, slot, from, from_slot);
    }

    fn copy_key(&mut self, format: &Format, slot: usize, from: &Page, from_slot: usize, live: u64) {
        let keys = &format.keys;
        let ((sealed, strip), (from_sealed, from_strip)) = (self.strip_of(slot), from.strip_of(from_slot));
        if keys.layout(sealed) != keys.layout(from_sealed)
            || keys.has_grid() && sealed.is_some() && !self.has_grid_of(from)
        {
            return with_floats(keys.dim, |key| {
                from.key(format, from_slot, key);
                self.set_key(format, slot, key, live);
            });
        }
        let (to, source) = (self.span(keys, strip), from.span(keys, from_strip));
        let (to, source) = (&mut self.keys[to], &from.keys[source]);
        keys.layout(sealed).copy(source, from_slot % STRIP, to, slot % STRIP);
    }

    fn copy_value(&mut self, format: &Format, slot: usize, from: &Page, from_slot: usize) {
        let values = &format.values;
        let ((sealed, strip), (from_sealed, from_strip)) = (self.strip_of(slot), from.strip_of(from_slot));
        if values.layout(sealed) != values.layout(from_sealed) {
            return with_floats(values.dim, |value| {
                from.value(format, from_slot, value);
                self.set_value(format, slot, value);
            });
        }
        let (to, source) = (self.span(values, strip), from.span(values, from_strip));
        let (to, source) = (&mut self.values[to], &from.values[source]);
        values.layout(sealed).copy(source, from_slot % STRIP, to, slot % STRIP);
    }

    /// As [`Page::copy`] from another strip of this page.
    pub(crate) fn copy_within(&mut self, format: &Format, slot: usize, from_slot: usize, live: u64) {
        let Format { keys, values } = format;
        let ((sealed, strip), (from_sealed, from_strip)) = (self.strip_of(slot), self.strip_of(from_slot));
        let spans = |side: &SideFormat| [self.span(side, from_strip.clone()), self.span(side, strip.clone())];
        let (key_spans, value_spans) = (spans(keys), spans(values));
        let other = "tokens move to other strips";
        if keys.layout(sealed) == keys.layout(from_sealed) {
            let [from, to] = self.keys.get_disjoint_mut(key_spans).expect(other);
            keys.layout(sealed).copy(from, from_slot % STRIP, to, slot % STRIP);
        } else {
            with_floats(keys.dim, |key| {
                self.key(format, from_slot, key);
                self.set_key(format, slot, key, live);
            });
        }
        if values.layout(sealed) == values.layout(from_sealed) {
            let [from, to] = self.values.get_disjoint_mut(value_spans).expect(other);
            values.layout(sealed).copy(from, from_slot % STRIP, to, slot % STRIP);
        } else {
            with_floats(values.dim, |value| {
                self.value(format, from_slot, value);
                self.set_value(format, slot, value);
            });
        }
    }

    /// Decodes a key, still turned and padded, `[dim]`.
    pub(crate) fn key(&self, format: &Format, slot: usize, out: &mut [f32]) {
        let (sealed, strip) = self.strip_of(slot);
        let (layout, strip) = (format.keys.layout(sealed), &self.keys[self.span(&format.keys, strip)]);
        self.with_grid(sealed, format.keys.dim, |grid| layout.get(strip, slot % STRIP, grid, out));
    }

    /// Decodes a value, still turned and padded, `[dim]`.
    pub(crate) fn value(&self, format: &Format, slot: usize, out: &mut [f32]) {
        let (sealed, strip) = self.strip_of(slot);
        let strip = &self.values[self.span(&format.values, strip)];
        format.values.layout(sealed).get(strip, slot % STRIP, None, out);
    }

    /// Replaces a value; `value` is turned and padded.
    pub(crate) fn set_value(&mut self, format: &Format, slot: usize, value: &[f32]) {
        let (sealed, strip) = self.strip_of(slot);
        let span = self.span(&format.values, strip);
        format.values.write(sealed, &mut self.values[span], slot % STRIP, value);
    }

    /// The keys of some strips as they lie in memory.
    pub(crate) fn keys_of(&self, format: &Format, strips: Range<usize>) -> &[u8] {
        &self.keys[self.span(&format.keys, strips)]
    }

    /// The values of some strips as they lie in memory.
    pub(crate) fn values_of(&self, format: &Format, strips: Range<usize>) -> &[u8] {
        &self.values[self.span(&format.values, strips)]
    }

    /// Scores of some strips: `out[query · stride + slot]`, from the first of these strips on. `ahead` will be read next.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn scores(
        &self,
        level: Level,
        format: &Format,
        queries: &Queries,
        strips: Range<usize>,
        ahead: &[u8],
        out: &mut [f32],
        stride: usize,
    ) {
        for (sealed, within) in self.sections(strips.clone()) {
            let out = &mut out[(within.start - strips.start) * STRIP..];
            let keys = Stream { strips: self.keys_of(format, within), ahead };
            self.with_grid(sealed, format.keys.dim, |grid| {
                key_scores(level, format.keys.layout(sealed), grid, queries, keys, out, stride);
            });
        }
    }

    /// Adds the weighted values of some strips to `out[query][dim]`. `ahead` will be read next.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn add_values(
        &self,
        level: Level,
        format: &Format,
        weights: &[f32],
        stride: usize,
        strips: Range<usize>,
        ahead: &[u8],
        out: &mut [f32],
    ) {
        for (sealed, within) in self.sections(strips.clone()) {
            let weights = &weights[(within.start - strips.start) * STRIP..];
            let values = Stream { strips: self.values_of(format, within), ahead };
            value_sums(level, format.values.layout(sealed), weights, stride, values, out);
        }
    }

    /// The keys of some strips, `[strip][dim][16]`.
    pub(crate) fn decode_keys(&self, level: Level, format: &Format, strips: Range<usize>, out: &mut [f32]) {
        for (sealed, within) in self.sections(strips.clone()) {
            let at = |strip: usize| (strip - strips.start) * STRIP * format.keys.dim;
            let out = &mut out[at(within.start)..at(within.end)];
            let (layout, keys) = (format.keys.layout(sealed), self.keys_of(format, within));
            self.with_grid(sealed, format.keys.dim, |grid| decode_keys(level, layout, grid, keys, out));
        }
    }

    /// The values of some strips, `[slot][dim]`.
    pub(crate) fn decode_values(&self, level: Level, format: &Format, strips: Range<usize>, out: &mut [f32]) {
        for (sealed, within) in self.sections(strips.clone()) {
            let at = |strip: usize| (strip - strips.start) * STRIP * format.values.dim;
            let out = &mut out[at(within.start)..at(within.end)];
            decode_values(level, format.values.layout(sealed), self.values_of(format, within), out);
        }
    }
}
