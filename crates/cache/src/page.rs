//! Pages: up to 64 slots of one KV head, the unit of sharing and of per-channel scales.

use crate::format::{Format, SideFormat};
use crate::grading::{Grading, best_ends, range, reach};
use crate::store::to_f16;
use half::f16;
use sketchkv_kernels::attention::graded::Grades;
use sketchkv_kernels::attention::layout::{Codes, Encoding, Grid, STRIP, StripLayout, nearest};
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
/// Coarse codes are not for the newest tokens: a page of such codes grows in f16, in open strips, which are sealed from
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
}

/// The codes of sealed keys on a grid.
enum Channels<'a> {
    Alike(&'a StripLayout, Codes),
    Graded(&'a Grades),
}

impl Channels<'_> {
    /// The largest code.
    fn most(&self, channel: usize) -> u8 {
        match self {
            Channels::Alike(_, codes) => codes.max_code(),
            Channels::Graded(grades) => ((1u32 << grades.bits(channel)) - 1) as u8,
        }
    }

    /// What the code 0 stands for before it is scaled.
    fn lowest(&self) -> f32 {
        match self {
            Channels::Alike(_, codes) => codes.level(0),
            Channels::Graded(_) => 0.0,
        }
    }

    fn code(&self, strip: &[u8], lane: usize, channel: usize) -> u8 {
        match self {
            Channels::Alike(layout, _) => layout.code(strip, lane, channel),
            Channels::Graded(grades) => grades.code(strip, lane, channel),
        }
    }

    fn put(&self, strip: &mut [u8], lane: usize, channel: usize, code: u8) {
        match self {
            Channels::Alike(layout, _) => layout.put_code(strip, lane, channel, code),
            Channels::Graded(grades) => grades.put_code(strip, lane, channel, code),
        }
    }

    /// The value of a code.
    fn value(&self, code: u8, (scale, zero): (f32, f32)) -> f32 {
        zero + scale * (f32::from(code) + self.lowest())
    }

    /// Scale and zero, as f16 will hold them, of a channel's grid from `low` to `high`.
    fn fit(&self, channel: usize, low: f32, high: f32) -> (f32, f32) {
        let steps = f32::from(self.most(channel));
        if steps == 0.0 {
            return (0.0, to_f16(low / 2.0 + high / 2.0));
        }
        let scale = to_f16((high - low) / steps);
        (scale, to_f16(low - scale * self.lowest()))
    }

    /// How far beyond its ends a grid serves.
    fn reach(&self, channel: usize, grid: (f32, f32)) -> f32 {
        match self {
            // Half a step beyond the last level still rounds to it.
            Channels::Alike(..) => grid.0 / 2.0,
            Channels::Graded(grades) => {
                reach(grades.bits(channel), self.value(0, grid), self.value(self.most(channel), grid))
            }
        }
    }

    /// The ends of the grid for a channel of some keys.
    fn ends(&self, channel: usize, x: &[f32]) -> (f32, f32) {
        match self {
            Channels::Alike(..) => range(x),
            Channels::Graded(grades) => best_ends(x, grades.bits(channel)),
        }
    }

    fn encode(&self, channel: usize, (scale, zero): (f32, f32), x: f32) -> u8 {
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        nearest(((x - zero) * inverse - self.lowest()).clamp(0.0, f32::from(self.most(channel)))) as u8
    }
}

impl Page {
    /// A page without strips; of the `first` of a head the format may keep the front open.
    pub(crate) fn empty(format: &Format, first: bool) -> Self {
        Page { front: first && format.keeps_front(), ..Page::default() }
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
        let mut page = Page { front: self.front, open, ..Page::default() };
        page.set_strips(format, strips);
        if page.sealed() > 0 {
            page.grid = vec![f16::ZERO; format.grid_bytes() / 2].into();
            page.grades = grades.cloned();
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

    /// The strips that are sealed.
    fn sealed_strips(&self) -> Range<usize> {
        self.front()..self.strips - self.open
    }

    /// Some strips in runs of those that are encoded alike, each with whether it is sealed.
    fn sections(&self, strips: Range<usize>) -> impl Iterator<Item = (bool, Range<usize>)> + use<> {
        let Range { start, end } = self.sealed_strips();
        [(false, 0..start), (true, start..end), (false, end..self.strips)].into_iter().filter_map(
            move |(sealed, section)| {
                let within = strips.start.max(section.start)..strips.end.min(section.end);
                (!within.is_empty()).then_some((sealed, within))
            },
        )
    }

    /// Where some strips lie in the bytes of a side.
    fn span(&self, side: &SideFormat, strips: Range<usize>) -> Range<usize> {
        let Range { start, end } = self.sealed_strips();
        let at = |strip: usize| {
            let sealed = strip.clamp(start, end) - start;
            sealed * side.layout.strip_bytes() + (strip - sealed) * side.open.strip_bytes()
        };
        at(strips.start)..at(strips.end)
    }

    /// The strip that a slot lies in: whether it is sealed, and its number as a range.
    fn strip_of(&self, slot: usize) -> (bool, Range<usize>) {
        let strip = slot / STRIP;
        (self.sealed_strips().contains(&strip), strip..strip + 1)
    }

    /// Adds to a ledger what the slots in `live` and the grid take.
    pub(crate) fn enter(&self, format: &Format, live: u64, ledger: &mut crate::Ledger) {
        for (sealed, strips) in self.sections(0..self.strips) {
            let (keys, values) = (format.keys.of(sealed), format.values.of(sealed));
            let slots = strips.start * STRIP..strips.end * STRIP;
            let live = slots.filter(|slot| live >> slot & 1 == 1).count();
            ledger.keys += live * keys.code_bytes() / STRIP;
            ledger.values += live * values.code_bytes() / STRIP;
            ledger.scales += live * (keys.scale_bytes() + values.scale_bytes()) / STRIP;
        }
        ledger.scales += self.grid_bytes();
    }

    /// The grid of strips in f32, where they are sealed on one: scales, zeros and, where they are, grades.
    fn with_grid<R>(&self, sealed: bool, dim: usize, f: impl FnOnce(Option<Grid<'_>>) -> R) -> R {
        if !sealed || self.grid.is_empty() {
            return f(None);
        }
        let mut wide = [0.0f32; 1024];
        sketchkv_kernels::half::f16_to_f32(&self.grid, &mut wide[..2 * dim]);
        let (scale, zero) = wide[..2 * dim].split_at(dim);
        f(Some(Grid { scale, zero, grades: self.grades.as_deref() }))
    }

    /// Writes one slot; `key` and `value` are turned and padded, `live` the other slots of this page that count.
    pub(crate) fn write(&mut self, format: &Format, slot: usize, key: &[f32], value: &[f32], live: u64) {
        let (sealed, strip) = self.strip_of(slot);
        if sealed && !self.grid.is_empty() {
            self.write_on_grid(format, slot, key, live);
        } else {
            let span = self.span(&format.keys, strip);
            format.keys.write(format.keys.of(sealed), &mut self.keys[span], slot % STRIP, key);
        }
        self.set_value(format, slot, value);
    }

    /// The codes of the sealed keys of a page with a grid.
    fn channels<'a>(layout: &'a StripLayout, grades: Option<&'a Grades>) -> Channels<'a> {
        match (grades, layout.encoding()) {
            (Some(grades), _) => Channels::Graded(grades),
            (None, Encoding::Codes(codes)) => Channels::Alike(layout, codes),
            (None, encoding) => unreachable!("{encoding:?} has no grid"),
        }
    }

    /// Encodes a key on the page's grid. A channel whose range the key leaves is widened to hold it: the other
    /// slots of that channel are decoded and encoded once more. Ranges only grow, so this happens ever more rarely.
    fn write_on_grid(&mut self, format: &Format, slot: usize, key: &[f32], live: u64) {
        let layout = &format.keys.layout;
        let grades = self.grades.clone();
        let channels = Self::channels(layout, grades.as_deref());
        let sealed = self.span(&format.keys, self.sealed_strips());
        let (front, bytes) = (self.front(), layout.strip_bytes());
        let at = |slot: usize| {
            let first = sealed.start + (slot / STRIP - front) * bytes;
            first..first + bytes
        };
        let live = live & self.sealed_slots() & !(1 << slot);
        for (channel, &x) in key.iter().enumerate() {
            let mut grid = self.grid_at(channel, format.keys.dim);
            let most = channels.most(channel);
            let (low, high) = (channels.value(0, grid), channels.value(most, grid));
            let (empty, reach) = (live == 0, channels.reach(channel, grid));
            // Without bits a channel has one value, whatever comes.
            if empty || most > 0 && (x < low - reach || x > high + reach) {
                let others: Vec<(usize, f32)> = (0..PAGE)
                    .filter(|other| live >> other & 1 == 1)
                    .map(|other| {
                        let code = channels.code(&self.keys[at(other)], other % STRIP, channel);
                        (other, channels.value(code, grid))
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
                grid = channels.fit(channel, low, high);
                self.set_grid(channel, format.keys.dim, grid);
                for (other, value) in others {
                    let code = channels.encode(channel, grid, value);
                    channels.put(&mut self.keys[at(other)], other % STRIP, channel, code);
                }
            }
            let code = channels.encode(channel, grid, x);
            channels.put(&mut self.keys[at(slot)], slot % STRIP, channel, code);
        }
    }

    fn grid_at(&self, channel: usize, dim: usize) -> (f32, f32) {
        (self.grid[channel].to_f32(), self.grid[dim + channel].to_f32())
    }

    fn set_grid(&mut self, channel: usize, dim: usize, (scale, zero): (f32, f32)) {
        self.grid[channel] = f16::from_f32(scale);
        self.grid[dim + channel] = f16::from_f32(zero);
    }

    /// The page with `open` open strips instead: strips are sealed, or opened again.
    ///
    /// The grid of a first sealed strip is chosen from all slots in `live`, for the next ones will come upon it; so are the
    /// bits of its channels, where they are `graded`.
    pub(crate) fn reopened(
        &self,
        format: &Format,
        open: usize,
        live: u64,
        graded: Option<&mut Grading>,
    ) -> Page {
        let fresh = live & self.sealed_slots() == 0;
        let page = if fresh || self.grid.is_empty() {
            self.on_fresh_grid(format, open, live & !Self::slots(0..self.front()), graded)
        } else {
            let mut page = self.zeros(format, self.strips, open, self.grades.as_ref());
            if !page.grid.is_empty() {
                page.grid.copy_from_slice(&self.grid);
            }
            page
        };
        self.copied_to(page, format, live, fresh)
    }

    /// An empty page as [`Page::reopened`] makes it, on a grid that holds the slots in `live`.
    fn on_fresh_grid(&self, format: &Format, open: usize, live: u64, graded: Option<&mut Grading>) -> Page {
        let mut page = self.zeros(format, self.strips, open, None);
        if page.grid.is_empty() {
            return page;
        }
        let slots: Vec<usize> = (0..PAGE).filter(|slot| live >> slot & 1 == 1).collect();
        let dim = format.keys.dim;
        // `[channel][slot]`
        let mut keys = vec![0.0; dim * slots.len()];
        let mut key = vec![0.0; dim];
        for (at, &slot) in slots.iter().enumerate() {
            self.key(format, slot, &mut key);
            key.iter().enumerate().for_each(|(channel, &x)| keys[channel * slots.len() + at] = x);
        }
        let by_channel = || keys.chunks_exact(slots.len().max(1));
        page.grades = graded.map(|grading| {
            let mut variances: Vec<f32> = by_channel().map(variance).collect();
            // Of no key nothing is known.
            variances.resize(dim, 1.0);
            grading.of_page(&variances)
        });
        let grades = page.grades.clone();
        let channels = Self::channels(&format.keys.layout, grades.as_deref());
        for (channel, x) in by_channel().enumerate() {
            let (low, high) = channels.ends(channel, x);
            page.set_grid(channel, dim, channels.fit(channel, low, high));
        }
        page
    }

    /// `page` with the slots of this one.
    fn copied_to(&self, mut page: Page, format: &Format, live: u64, fresh: bool) -> Page {
        // Codes that stay as they are come first: a widened grid encodes them once more.
        let (sealed, before) = (page.strips - page.open, self.strips - self.open);
        let mut written = 0u64;
        for strips in [0..sealed.min(before), 0..self.strips] {
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
        let ((sealed, strip), (from_sealed, from_strip)) = (self.strip_of(slot), from.strip_of(from_slot));
        let same_grid = || self.grid == from.grid && self.grades == from.grades;
        let alike = sealed == from_sealed && (!sealed || same_grid());
        if !alike {
            let (mut key, mut value) = (vec![0.0; format.keys.dim], vec![0.0; format.values.dim]);
            from.key(format, from_slot, &mut key);
            from.value(format, from_slot, &mut value);
            self.write(format, slot, &key, &value, live);
            return;
        }
        let (lane, from_lane) = (slot % STRIP, from_slot % STRIP);
        let copy = |side: &SideFormat, to: &mut [u8], bytes: &[u8]| {
            side.of(sealed).copy(bytes, from_lane, to, lane);
        };
        let (keys, values) = (&format.keys, &format.values);
        let (to, source) = (self.span(keys, strip.clone()), from.span(keys, from_strip.clone()));
        copy(keys, &mut self.keys[to], &from.keys[source]);
        let (to, source) = (self.span(values, strip), from.span(values, from_strip));
        copy(values, &mut self.values[to], &from.values[source]);
    }

    /// Decodes a key, still turned and padded, `[dim]`.
    pub(crate) fn key(&self, format: &Format, slot: usize, out: &mut [f32]) {
        let (sealed, strip) = self.strip_of(slot);
        let (layout, strip) = (format.keys.of(sealed), &self.keys[self.span(&format.keys, strip)]);
        self.with_grid(sealed, format.keys.dim, |grid| layout.get(strip, slot % STRIP, grid, out));
    }

    /// Decodes a value, still turned and padded, `[dim]`.
    pub(crate) fn value(&self, format: &Format, slot: usize, out: &mut [f32]) {
        let (sealed, strip) = self.strip_of(slot);
        let strip = &self.values[self.span(&format.values, strip)];
        format.values.of(sealed).get(strip, slot % STRIP, None, out);
    }

    /// Replaces a value; `value` is turned and padded.
    pub(crate) fn set_value(&mut self, format: &Format, slot: usize, value: &[f32]) {
        let (sealed, strip) = self.strip_of(slot);
        let span = self.span(&format.values, strip);
        format.values.write(format.values.of(sealed), &mut self.values[span], slot % STRIP, value);
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
                key_scores(level, format.keys.of(sealed), grid, queries, keys, out, stride);
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
            value_sums(level, format.values.of(sealed), weights, stride, values, out);
        }
    }

    /// All keys, `[strip][dim][16]`.
    pub(crate) fn decode_keys(&self, level: Level, format: &Format, out: &mut [f32]) {
        for (sealed, strips) in self.sections(0..self.strips) {
            let out = &mut out[strips.start * STRIP * format.keys.dim..strips.end * STRIP * format.keys.dim];
            let (layout, keys) = (format.keys.of(sealed), self.keys_of(format, strips));
            self.with_grid(sealed, format.keys.dim, |grid| decode_keys(level, layout, grid, keys, out));
        }
    }

    /// All values, `[slot][dim]`.
    pub(crate) fn decode_values(&self, level: Level, format: &Format, out: &mut [f32]) {
        for (sealed, strips) in self.sections(0..self.strips) {
            let out =
                &mut out[strips.start * STRIP * format.values.dim..strips.end * STRIP * format.values.dim];
            decode_values(level, format.values.of(sealed), self.values_of(format, strips), out);
        }
    }
}

/// Mean square of the distance to the mean.
fn variance(x: &[f32]) -> f32 {
    let count = x.len() as f32;
    let mean = x.iter().map(|x| x / count).sum::<f32>();
    x.iter().map(|x| (x - mean).powi(2) / count).sum()
}
