//! Pages: up to 64 slots of one KV head, the unit of sharing and of per-channel scales.

use crate::format::Format;
use crate::store::to_f16;
use half::f16;
use sketchkv_kernels::attention::layout::{Codes, Encoding, Grid, STRIP, StripLayout, nearest};
use sketchkv_kernels::attention::{
    Queries, Stream, Strips, decode_keys, decode_values, key_scores, value_sums,
};
use sketchkv_kernels::cpu::Level;
use std::ops::Range;

/// Slots in a page.
pub(crate) const PAGE: usize = 64;
/// Strips in a page.
pub(crate) const PAGE_STRIPS: usize = PAGE / STRIP;

/// Keys and values of up to 64 slots.
///
/// Coarse codes are not for the newest tokens: a page of such codes grows in f16, in open strips, which are sealed from
/// the first on. The open strips are the last ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page {
    keys: Strips,
    values: Strips,
    strips: usize,
    /// How many of the strips are open.
    open: usize,
    /// `[2][dim]` scales, then zeros, of per-channel codes; empty while no strip is sealed.
    grid: Box<[f16]>,
}

/// Consecutive strips of a page that are encoded alike.
struct Section<'a> {
    strips: Range<usize>,
    keys: &'a StripLayout,
    values: &'a StripLayout,
    /// Where the part begins in the page's keys and values.
    starts: [usize; 2],
    sealed: bool,
}

impl Section<'_> {
    fn keys(&self, strips: Range<usize>) -> Range<usize> {
        self.bytes(strips, self.starts[0], self.keys.strip_bytes())
    }

    fn values(&self, strips: Range<usize>) -> Range<usize> {
        self.bytes(strips, self.starts[1], self.values.strip_bytes())
    }

    fn bytes(&self, strips: Range<usize>, start: usize, strip_bytes: usize) -> Range<usize> {
        let at = |strip: usize| start + (strip - self.strips.start) * strip_bytes;
        at(strips.start)..at(strips.end)
    }
}

impl Page {
    /// A page of zeros, of which the last `open` strips are open.
    pub(crate) fn new(format: &Format, strips: usize, open: usize) -> Self {
        let mut page = Page { open, ..Page::default() };
        page.set_strips(format, strips);
        if strips > open {
            page.grid = vec![f16::ZERO; format.grid_bytes() / 2].into();
        }
        page
    }

    /// Strips that are open.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    pub(crate) fn strips(&self) -> usize {
        self.strips
    }

    /// Bytes of the allocations of this page: keys, values and grid.
    pub(crate) fn bytes(&self) -> usize {
        self.keys.allocated() + self.values.allocated() + self.grid_bytes()
    }

    /// Bytes of the grid.
    fn grid_bytes(&self) -> usize {
        2 * self.grid.len()
    }

    fn set_strips(&mut self, format: &Format, strips: usize) {
        self.strips = strips;
        let bytes = |sealed: &StripLayout, open: &StripLayout| {
            (strips - self.open) * sealed.strip_bytes() + self.open * open.strip_bytes()
        };
        let keys = bytes(&format.keys.layout, &format.keys.open);
        let values = bytes(&format.values.layout, &format.values.open);
        self.keys.resize(keys);
        self.values.resize(values);
    }

    /// Adds an empty strip, open where the format has open strips.
    pub(crate) fn push_strip(&mut self, format: &Format) {
        self.open += usize::from(format.opens());
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

    /// One bit per slot that is sealed.
    fn sealed_slots(&self) -> u64 {
        u64::MAX.checked_shr((PAGE - (self.strips - self.open) * STRIP) as u32).unwrap_or(0)
    }

    fn sealed_part<'f>(&self, format: &'f Format) -> Section<'f> {
        let (keys, values) = (&format.keys.layout, &format.values.layout);
        Section { strips: 0..self.strips - self.open, keys, values, starts: [0, 0], sealed: true }
    }

    fn open_part<'f>(&self, format: &'f Format) -> Section<'f> {
        let sealed = self.sealed_part(format);
        Section {
            strips: sealed.strips.end..self.strips,
            keys: &format.keys.open,
            values: &format.values.open,
            starts: [sealed.keys(sealed.strips.clone()).end, sealed.values(sealed.strips.clone()).end],
            sealed: false,
        }
    }

    /// What is sealed, then what is open; either may be empty.
    fn all_parts<'f>(&self, format: &'f Format) -> [Section<'f>; 2] {
        [self.sealed_part(format), self.open_part(format)]
    }

    /// The parts of some strips that are not empty, each with those of the strips that lie in it.
    fn parts_of<'f>(
        &self,
        format: &'f Format,
        strips: Range<usize>,
    ) -> impl Iterator<Item = (Section<'f>, Range<usize>)> + use<'f> {
        self.all_parts(format).into_iter().filter_map(move |part| {
            let within = strips.start.max(part.strips.start)..strips.end.min(part.strips.end);
            (!within.is_empty()).then_some((part, within))
        })
    }

    /// The part that a strip lies in.
    fn part<'f>(&self, format: &'f Format, strip: usize) -> Section<'f> {
        if strip < self.strips - self.open { self.sealed_part(format) } else { self.open_part(format) }
    }

    /// Adds to a ledger what the slots in `live` and the grid take.
    pub(crate) fn enter(&self, format: &Format, live: u64, ledger: &mut crate::Ledger) {
        for (part, strips) in self.parts_of(format, 0..self.strips) {
            let slots = strips.start * STRIP..strips.end * STRIP;
            let live = slots.filter(|slot| live >> slot & 1 == 1).count();
            ledger.keys += live * part.keys.code_bytes() / STRIP;
            ledger.values += live * part.values.code_bytes() / STRIP;
            ledger.scales += live * (part.keys.scale_bytes() + part.values.scale_bytes()) / STRIP;
        }
        ledger.scales += self.grid_bytes();
    }

    /// The grid of a part in f32: scales and zeros.
    fn with_grid<R>(&self, part: &Section<'_>, dim: usize, f: impl FnOnce(Option<Grid<'_>>) -> R) -> R {
        if !part.sealed || self.grid.is_empty() {
            return f(None);
        }
        let mut wide = [0.0f32; 1024];
        sketchkv_kernels::half::f16_to_f32(&self.grid, &mut wide[..2 * dim]);
        let (scale, zero) = wide[..2 * dim].split_at(dim);
        f(Some(Grid { scale, zero }))
    }

    /// Writes one slot; `key` and `value` are turned and padded, `live` the other slots of this page that count.
    pub(crate) fn write(&mut self, format: &Format, slot: usize, key: &[f32], value: &[f32], live: u64) {
        let (strip, lane) = (slot / STRIP, slot % STRIP);
        let part = self.part(format, strip);
        if part.sealed && !self.grid.is_empty() {
            self.write_on_grid(format, slot, key, live);
        } else {
            format.keys.write(part.keys, &mut self.keys[part.keys(strip..strip + 1)], lane, key);
        }
        self.set_value(format, slot, value);
    }

    /// Encodes a key on the page's grid. A channel whose range the key leaves is widened to hold it: the other
    /// slots of that channel are decoded and encoded once more. Ranges only grow, so this happens ever more rarely.
    fn write_on_grid(&mut self, format: &Format, slot: usize, key: &[f32], live: u64) {
        let layout = &format.keys.layout;
        let Encoding::Codes(codes) = layout.encoding() else { unreachable!("a grid belongs to codes") };
        let bytes = layout.strip_bytes();
        let live = live & self.sealed_slots() & !(1 << slot);
        for (channel, &x) in key.iter().enumerate() {
            let (mut scale, mut zero) = self.grid_at(channel, format.keys.dim);
            let (low, high) = range(&codes, scale, zero);
            // Half a step beyond the last level still rounds to it.
            let empty = live == 0;
            if empty || x < low - scale / 2.0 || x > high + scale / 2.0 {
                let others: Vec<(usize, f32)> = (0..PAGE)
                    .filter(|other| live >> other & 1 == 1)
                    .map(|other| {
                        let strip = &self.keys[other / STRIP * bytes..][..bytes];
                        (other, zero + scale * codes.level(layout.code(strip, other % STRIP, channel)))
                    })
                    .collect();
                // A first key spans nothing by itself; the next ones widen. Beyond that, a little more room on the
                // side that was left spares the next widening.
                let (low, high) = if empty {
                    (x, x)
                } else if x < low {
                    (x - 0.05 * (high - x), high)
                } else {
                    (low, x + 0.05 * (x - low))
                };
                (scale, zero) = fit(&codes, low, high);
                self.set_grid(channel, format.keys.dim, scale, zero);
                for (other, value) in others {
                    let strip = &mut self.keys[other / STRIP * bytes..][..bytes];
                    layout.put_code(strip, other % STRIP, channel, encode(&codes, scale, zero, value));
                }
            }
            let strip = &mut self.keys[slot / STRIP * bytes..][..bytes];
            layout.put_code(strip, slot % STRIP, channel, encode(&codes, scale, zero, x));
        }
    }

    fn grid_at(&self, channel: usize, dim: usize) -> (f32, f32) {
        (self.grid[channel].to_f32(), self.grid[dim + channel].to_f32())
    }

    fn set_grid(&mut self, channel: usize, dim: usize, scale: f32, zero: f32) {
        self.grid[channel] = f16::from_f32(scale);
        self.grid[dim + channel] = f16::from_f32(zero);
    }

    /// The page with `open` open strips instead: strips are sealed, or opened again.
    ///
    /// The grid of a first sealed strip is chosen from all slots in `live`, for the next ones will come upon it.
    pub(crate) fn reopened(&self, format: &Format, open: usize, live: u64) -> Page {
        let mut page = Page::new(format, self.strips, open);
        let fresh = live & self.sealed_slots() == 0;
        if page.grid.len() == self.grid.len() && !fresh {
            page.grid.copy_from_slice(&self.grid);
        } else if let (false, Encoding::Codes(codes)) = (page.grid.is_empty(), format.keys.layout.encoding())
        {
            let mut key = vec![0.0; format.keys.dim];
            let mut ranges = vec![(f32::INFINITY, f32::NEG_INFINITY); format.keys.dim];
            for slot in (0..PAGE).filter(|slot| live >> slot & 1 == 1) {
                self.key(format, slot, &mut key);
                for ((low, high), &x) in ranges.iter_mut().zip(&key) {
                    (*low, *high) = (low.min(x), high.max(x));
                }
            }
            for (channel, (low, high)) in ranges.into_iter().enumerate().filter(|(_, (l, h))| l <= h) {
                let (scale, zero) = fit(&codes, low, high);
                page.set_grid(channel, format.keys.dim, scale, zero);
            }
        }
        // Codes that stay as they are come first: a widened grid encodes them once more.
        let sealed = page.strips - open;
        let mut written = 0u64;
        for strips in [0..sealed.min(self.strips - self.open), 0..self.strips] {
            for slot in (strips.start * STRIP..strips.end * STRIP).filter(|slot| live >> slot & 1 == 1) {
                if written >> slot & 1 == 0 {
                    // A fresh grid holds all: nothing will be widened.
                    page.copy(format, slot, self, slot, if fresh { live } else { written });
                    written |= 1 << slot;
                }
            }
        }
        page
    }

    /// Copies a slot from another page, bit for bit where the code allows it; `live` are the other slots of this page
    /// that count.
    pub(crate) fn copy(&mut self, format: &Format, slot: usize, from: &Page, from_slot: usize, live: u64) {
        let (strip, from_strip) = (slot / STRIP, from_slot / STRIP);
        let (to_part, from_part) = (self.part(format, strip), from.part(format, from_strip));
        let alike = to_part.sealed == from_part.sealed && (!to_part.sealed || self.grid == from.grid);
        if !alike {
            let (mut key, mut value) = (vec![0.0; format.keys.dim], vec![0.0; format.values.dim]);
            from.key(format, from_slot, &mut key);
            from.value(format, from_slot, &mut value);
            self.write(format, slot, &key, &value, live);
            return;
        }
        let (to, from_strips) = (strip..strip + 1, from_strip..from_strip + 1);
        to_part.keys.copy(
            &from.keys[from_part.keys(from_strips.clone())],
            from_slot % STRIP,
            &mut self.keys[to_part.keys(to.clone())],
            slot % STRIP,
        );
        to_part.values.copy(
            &from.values[from_part.values(from_strips)],
            from_slot % STRIP,
            &mut self.values[to_part.values(to)],
            slot % STRIP,
        );
    }

    /// Decodes a key, still turned and padded, `[dim]`.
    pub(crate) fn key(&self, format: &Format, slot: usize, out: &mut [f32]) {
        let strip = slot / STRIP;
        let part = self.part(format, strip);
        let bytes = &self.keys[part.keys(strip..strip + 1)];
        self.with_grid(&part, format.keys.dim, |grid| part.keys.get(bytes, slot % STRIP, grid, out));
    }

    /// Decodes a value, still turned and padded, `[dim]`.
    pub(crate) fn value(&self, format: &Format, slot: usize, out: &mut [f32]) {
        let strip = slot / STRIP;
        let part = self.part(format, strip);
        part.values.get(&self.values[part.values(strip..strip + 1)], slot % STRIP, None, out);
    }

    /// Replaces a value; `value` is turned and padded.
    pub(crate) fn set_value(&mut self, format: &Format, slot: usize, value: &[f32]) {
        let strip = slot / STRIP;
        let part = self.part(format, strip);
        let bytes = &mut self.values[part.values(strip..strip + 1)];
        format.values.write(part.values, bytes, slot % STRIP, value);
    }

    /// The keys of some strips as they lie in memory.
    pub(crate) fn keys_of(&self, format: &Format, strips: Range<usize>) -> &[u8] {
        let at = |strip: usize| {
            let part = self.part(format, strip.min(self.strips - 1));
            part.starts[0] + (strip - part.strips.start) * part.keys.strip_bytes()
        };
        &self.keys[at(strips.start)..at(strips.end)]
    }

    /// The values of some strips as they lie in memory.
    pub(crate) fn values_of(&self, format: &Format, strips: Range<usize>) -> &[u8] {
        let at = |strip: usize| {
            let part = self.part(format, strip.min(self.strips - 1));
            part.starts[1] + (strip - part.strips.start) * part.values.strip_bytes()
        };
        &self.values[at(strips.start)..at(strips.end)]
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
        for (part, within) in self.parts_of(format, strips.clone()) {
            let out = &mut out[(within.start - strips.start) * STRIP..];
            let keys = Stream { strips: &self.keys[part.keys(within)], ahead };
            self.with_grid(&part, format.keys.dim, |grid| {
                key_scores(level, part.keys, grid, queries, keys, out, stride);
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
        for (part, within) in self.parts_of(format, strips.clone()) {
            let weights = &weights[(within.start - strips.start) * STRIP..];
            let values = Stream { strips: &self.values[part.values(within)], ahead };
            value_sums(level, part.values, weights, stride, values, out);
        }
    }

    /// All keys, `[strip][dim][16]`.
    pub(crate) fn decode_keys(&self, level: Level, format: &Format, out: &mut [f32]) {
        for (part, strips) in self.parts_of(format, 0..self.strips) {
            let out = &mut out[strips.start * STRIP * format.keys.dim..strips.end * STRIP * format.keys.dim];
            let keys = &self.keys[part.keys(strips)];
            self.with_grid(&part, format.keys.dim, |grid| decode_keys(level, part.keys, grid, keys, out));
        }
    }

    /// All values, `[slot][dim]`.
    pub(crate) fn decode_values(&self, level: Level, format: &Format, out: &mut [f32]) {
        for (part, strips) in self.parts_of(format, 0..self.strips) {
            let out =
                &mut out[strips.start * STRIP * format.values.dim..strips.end * STRIP * format.values.dim];
            decode_values(level, part.values, &self.values[part.values(strips)], out);
        }
    }
}

/// The smallest and the largest value on a grid.
fn range(codes: &Codes, scale: f32, zero: f32) -> (f32, f32) {
    (zero + scale * codes.level(0), zero + scale * codes.level(codes.max_code()))
}

/// Scale and zero, as f16 will hold them, of a grid from `low` to `high`.
fn fit(codes: &Codes, low: f32, high: f32) -> (f32, f32) {
    let scale = to_f16((high - low) / codes.max_code() as f32);
    (scale, to_f16(low - scale * codes.level(0)))
}

fn encode(codes: &Codes, scale: f32, zero: f32, x: f32) -> u8 {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    nearest(((x - zero) * inverse - codes.level(0)).clamp(0.0, codes.max_code() as f32)) as u8
}
