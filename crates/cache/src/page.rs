//! Pages: up to 64 slots of one KV head, the unit of sharing and of per-channel scales.

use crate::format::{Format, SideFormat};
use crate::grading::{Grading, best_ends, range, reach};
use crate::store::to_f16;
use half::f16;
use sketchkv_kernels::attention::graded::Grades;
use sketchkv_kernels::attention::layout::{Codes, Encoding, Grid, MAX_DIM, STRIP, StripLayout, nearest};
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
    /// What sealed strips are sealed on.
    rung: u8,
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

    /// The grid of strips in f32, where they are sealed on one: scales, zeros and, where they are, grades.
    fn with_grid<R>(&self, sealed: Option<usize>, dim: usize, f: impl FnOnce(Option<Grid<'_>>) -> R) -> R {
        if sealed.is_none() || self.grid.is_empty() {
            return f(None);
        }
        let mut wide = [0.0f32; 1024];
        sketchkv_kernels::half::f16_to_f32(&self.grid, &mut wide[..2 * dim]);
        let (scale, zero) = wide[..2 * dim].split_at(dim);
        f(Some(Grid { scale, zero, grades: self.grades.as_deref() }))
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
        let layout = format.keys.layout(Some(self.rung()));
        let grades = self.grades.clone();
        let channels = Self::channels(layout, grades.as_deref());
        let start = self.span(&format.keys, self.sealed_strips()).start;
        let (front, bytes) = (self.front(), layout.strip_bytes());
        let at = |slot: usize| {
            let first = start + (slot / STRIP - front) * bytes;
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
                let others = || (0..PAGE).filter(|other| live >> other & 1 == 1);
                let mut values = [0.0; PAGE];
                for other in others() {
                    let code = channels.code(&self.keys[at(other)], other % STRIP, channel);
                    values[other] = channels.value(code, grid);
                }
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
                for other in others() {
                    let code = channels.encode(channel, grid, values[other]);
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
        if live & self.sealed_slots() == 0 || self.grid.is_empty() {
            return self.on_fresh_grid(format, open, live, graded);
        }
        let mut page = self.zeros(format, self.strips, open, self.grades.as_ref());
        if !page.grid.is_empty() {
            page.grid.copy_from_slice(&self.grid);
        }
        self.copied_to(page, format, live)
    }

    /// As [`Page::reopened`] makes it where nothing that counts is sealed yet.
    fn on_fresh_grid(&self, format: &Format, open: usize, live: u64, graded: Option<&mut Grading>) -> Page {
        let mut page = self.zeros(format, self.strips, open, None);
        if page.grid.is_empty() {
            return self.copied_to(page, format, live);
        }
        let kept = live & !Self::slots(0..self.front());
        let slots: Vec<usize> = (0..PAGE).filter(|slot| kept >> slot & 1 == 1).collect();
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
            grading.of_page(self.rung(), &variances)
        });
        let grades = page.grades.clone();
        let channels = Self::channels(format.keys.layout(Some(self.rung())), grades.as_deref());
        // As [`Page::code_at`] finds them.
        let mut codes = vec![0u8; if grades.is_some() { PAGE * dim } else { 0 }];
        let mut of_channel = vec![0; slots.len()];
        for (channel, x) in by_channel().enumerate() {
            let (low, high) = channels.ends(channel, x);
            let mut grid = channels.fit(channel, low, high);
            if grades.is_some() {
                for ((code, &slot), &x) in of_channel.iter_mut().zip(&slots).zip(x) {
                    *code = channels.encode(channel, grid, x);
                    codes[Self::code_at(dim, slot, channel)] = *code;
                }
                grid = fitted(&of_channel, x).0;
            }
            page.set_grid(channel, dim, grid);
        }
        let Some(grades) = grades else {
            // The grid holds all: nothing will be widened.
            return self.copied_to(page, format, live);
        };
        page.pack(format, &grades, &codes);
        for slot in (0..PAGE).filter(|slot| live >> slot & 1 == 1) {
            if page.strip_of(slot).0.is_none() {
                page.copy_key(format, slot, self, slot, live);
            }
            page.copy_value(format, slot, self, slot);
        }
        page
    }

    /// Where [`Page::pack`] looks for the code of a channel: `[strip][channel][16]`.
    fn code_at(dim: usize, slot: usize, channel: usize) -> usize {
        (slot / STRIP * dim + channel) * STRIP + slot % STRIP
    }

    /// Writes the codes of all sealed keys.
    fn pack(&mut self, format: &Format, grades: &Grades, codes: &[u8]) {
        let (dim, sealed) = (format.keys.dim, self.sealed_strips());
        let (span, layout) = (self.span(&format.keys, sealed.clone()), format.keys.layout(Some(self.rung())));
        let strips = self.keys[span].chunks_exact_mut(layout.strip_bytes());
        for (strip, bytes) in sealed.zip(strips) {
            grades.pack(&codes[strip * dim * STRIP..][..dim * STRIP], bytes);
        }
    }

    /// The page on a rung further down: the codes of its keys lose their lowest bits, values that are coded otherwise there
    /// are coded anew. What is open stays as it is.
    pub(crate) fn coarsened(
        &self,
        format: &Format,
        rung: usize,
        live: u64,
        graded: Option<&mut Grading>,
    ) -> Page {
        let next = Page { front: self.front, rung: rung as u8, ..Page::default() };
        let mut page = next.zeros(format, self.strips, self.open, None);
        page.grid = self.grid.clone();
        let slots = || (0..PAGE).filter(|slot| live >> slot & 1 == 1);
        match (&self.grades, graded) {
            (Some(grades), Some(grading)) => {
                page.drop_bits(self, format, grades, grading.on_rung(next.rung()), live);
                for slot in slots().filter(|&slot| self.strip_of(slot).0.is_none()) {
                    page.copy_key(format, slot, self, slot, 0);
                }
            }
            _ => page.keys = self.keys.clone(),
        }
        slots().for_each(|slot| page.copy_value(format, slot, self, slot));
        page
    }

    /// Takes the codes of the sealed keys of a page over in fewer bits, and fits the grid to what is left of them.
    fn drop_bits(&mut self, from: &Page, format: &Format, before: &Grades, after: Arc<Grades>, live: u64) {
        let (dim, sealed) = (format.keys.dim, self.sealed_strips());
        let mut codes = vec![0u8; PAGE * dim];
        let span = from.span(&format.keys, sealed.clone());
        let strips = from.keys[span].chunks_exact(format.keys.layout(Some(from.rung())).strip_bytes());
        for (strip, bytes) in sealed.zip(strips) {
            before.unpack(bytes, &mut codes[strip * dim * STRIP..][..dim * STRIP]);
        }
        let slots: Vec<usize> =
            (0..PAGE).filter(|slot| (live & self.sealed_slots()) >> slot & 1 == 1).collect();
        let channels = Channels::Graded(&after);
        let (mut x, mut shifted, mut anew) =
            (vec![0.0; slots.len()], vec![0; slots.len()], vec![0; slots.len()]);
        for channel in 0..dim {
            let shift = before.bits(channel).saturating_sub(after.bits(channel));
            if shift == 0 {
                continue;
            }
            let grid = from.grid_at(channel, dim);
            for ((x, shifted), &slot) in x.iter_mut().zip(&mut shifted).zip(&slots) {
                let code = codes[Self::code_at(dim, slot, channel)];
                *x = channels.value(code, grid);
                *shifted = u32::from(code).unbounded_shr(shift.into()) as u8;
            }
            let mut best = fitted(&shifted, &x);
            // A grid of few bits is better without the ends of a finer one.
            let (low, high) = channels.ends(channel, &x);
            let grid = channels.fit(channel, low, high);
            anew.iter_mut().zip(&x).for_each(|(code, &x)| *code = channels.encode(channel, grid, x));
            let other = fitted(&anew, &x);
            let chosen = if other.1 < best.1 {
                best = other;
                &anew
            } else {
                &shifted
            };
            for (&slot, &code) in slots.iter().zip(chosen) {
                codes[Self::code_at(dim, slot, channel)] = code;
            }
            self.set_grid(channel, dim, best.0);
        }
        self.pack(format, &after, &codes);
        self.grades = Some(after);
    }

    /// `page` with the slots of this one.
    fn copied_to(&self, mut page: Page, format: &Format, live: u64) -> Page {
        let fresh = live & self.sealed_slots() == 0;
        // Codes that stay as they are come first: a widened grid encodes them once more.
        let (sealed, before) = (page.strips - page.open, self.strips - self.open);
        let mut written = 0u64;
        for strips in [0..sealed.min(before), 0..self.strips] {
            for slot in (strips.start * STRIP..strips.end * STRIP).filter(|slot| live >> slot & 1 == 1) {
                if written >> slot & 1 == 0 {
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
        self.copy_key(format, slot, from, from_slot, live);
        self.copy_value(format, slot, from, from_slot);
    }

    fn copy_key(&mut self, format: &Format, slot: usize, from: &Page, from_slot: usize, live: u64) {
        let keys = &format.keys;
        let ((sealed, strip), (from_sealed, from_strip)) = (self.strip_of(slot), from.strip_of(from_slot));
        let same_grid = || self.grid == from.grid && self.grades == from.grades;
        if keys.layout(sealed) != keys.layout(from_sealed)
            || keys.has_grid() && sealed.is_some() && !same_grid()
        {
            let mut key = [0.0; MAX_DIM];
            let key = &mut key[..keys.dim];
            from.key(format, from_slot, key);
            return self.set_key(format, slot, key, live);
        }
        let (to, source) = (self.span(keys, strip), from.span(keys, from_strip));
        let (to, source) = (&mut self.keys[to], &from.keys[source]);
        keys.layout(sealed).copy(source, from_slot % STRIP, to, slot % STRIP);
    }

    fn copy_value(&mut self, format: &Format, slot: usize, from: &Page, from_slot: usize) {
        let values = &format.values;
        let ((sealed, strip), (from_sealed, from_strip)) = (self.strip_of(slot), from.strip_of(from_slot));
        if values.layout(sealed) != values.layout(from_sealed) {
            let mut value = [0.0; MAX_DIM];
            let value = &mut value[..values.dim];
            from.value(format, from_slot, value);
            return self.set_value(format, slot, value);
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
        let mut vector = [0.0; MAX_DIM];
        if keys.layout(sealed) == keys.layout(from_sealed) {
            let [from, to] = self.keys.get_disjoint_mut(key_spans).expect(other);
            keys.layout(sealed).copy(from, from_slot % STRIP, to, slot % STRIP);
        } else {
            let key = &mut vector[..keys.dim];
            self.key(format, from_slot, key);
            self.set_key(format, slot, key, live);
        }
        if values.layout(sealed) == values.layout(from_sealed) {
            let [from, to] = self.values.get_disjoint_mut(value_spans).expect(other);
            values.layout(sealed).copy(from, from_slot % STRIP, to, slot % STRIP);
        } else {
            let value = &mut vector[..values.dim];
            self.value(format, from_slot, value);
            self.set_value(format, slot, value);
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

    /// All keys, `[strip][dim][16]`.
    pub(crate) fn decode_keys(&self, level: Level, format: &Format, out: &mut [f32]) {
        for (sealed, strips) in self.sections(0..self.strips) {
            let out = &mut out[strips.start * STRIP * format.keys.dim..strips.end * STRIP * format.keys.dim];
            let (layout, keys) = (format.keys.layout(sealed), self.keys_of(format, strips));
            self.with_grid(sealed, format.keys.dim, |grid| decode_keys(level, layout, grid, keys, out));
        }
    }

    /// All values, `[slot][dim]`.
    pub(crate) fn decode_values(&self, level: Level, format: &Format, out: &mut [f32]) {
        for (sealed, strips) in self.sections(0..self.strips) {
            let out =
                &mut out[strips.start * STRIP * format.values.dim..strips.end * STRIP * format.values.dim];
            decode_values(level, format.values.layout(sealed), self.values_of(format, strips), out);
        }
    }
}

/// The scale and the zero, as f16 will hold them, with which codes are nearest to `x`, and the squared error that remains.
fn fitted(codes: &[u8], x: &[f32]) -> ((f32, f32), f32) {
    let count = x.len().max(1) as f32;
    let code = codes.iter().map(|&code| f32::from(code)).sum::<f32>() / count;
    let mean = x.iter().map(|x| x / count).sum::<f32>();
    let (mut product, mut square) = (0.0f32, 0.0f32);
    for (&u, x) in codes.iter().zip(x) {
        let far = f32::from(u) - code;
        (product, square) = (product + far * (x - mean), square + far * far);
    }
    let scale = to_f16(if square > 0.0 { product / square } else { 0.0 });
    let zero = to_f16(mean - scale * code);
    let error = codes.iter().zip(x).map(|(&u, x)| (x - zero - scale * f32::from(u)).powi(2)).sum();
    ((scale, zero), error)
}

/// Mean square of the distance to the mean.
fn variance(x: &[f32]) -> f32 {
    let count = x.len() as f32;
    let mean = x.iter().map(|x| x / count).sum::<f32>();
    x.iter().map(|x| (x - mean).powi(2) / count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Call;
    use crate::store::STORES;

    /// What a page loses rung by rung is about what it would have lost at once.
    #[test]
    fn steps_cost_no_more_than_a_jump() {
        let (method, build) = STORES.iter().find(|(method, _)| method.name == "progressive").unwrap();
        let mut call = Call::new(method);
        call.set("least", "2").unwrap();
        let format = Format::new(build(&call, 64), build(&call, 64), (64, 64));
        let mut random = sketchkv_sketch::SplitMix64::new(3);
        let mut normal = || (0..12).map(|_| random.unit() as f32).sum::<f32>() - 6.0;
        let mut page = Page::empty(&format, false, 0);
        let (mut keys, mut values) = (vec![], vec![]);
        for slot in 0..PAGE {
            if slot % STRIP == 0 {
                page.push_strip(&format);
            }
            // Some channels have far outliers.
            let spread =
                |c: usize, x: f32| if c.is_multiple_of(5) { x.powi(3) } else { x * (1.0 + (c % 7) as f32) };
            let key: Vec<f32> = (0..64).map(|c| spread(c, normal()) + c as f32).collect();
            let value: Vec<f32> = (0..64).map(|_| normal()).collect();
            page.write(&format, slot, &key, &value, 0);
            keys.push(key);
            values.push(value);
        }
        let error = |page: &Page| {
            let mut sums = [0.0f32; 2];
            let (mut key, mut value) = ([0.0; 64], [0.0; 64]);
            for slot in 0..PAGE {
                page.key(&format, slot, &mut key);
                page.value(&format, slot, &mut value);
                sums[0] += key.iter().zip(&keys[slot]).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
                sums[1] += value.iter().zip(&values[slot]).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
            }
            sums.map(|sum| sum / (PAGE * 64) as f32)
        };
        let lines = format.keys.graded_lines();
        let mut grading = Grading::new(64, &lines);
        let mut stepped = page.reopened(&format, 0, u64::MAX, Some(&mut grading));
        for rung in 1..format.rungs() {
            stepped = stepped.coarsened(&format, rung, u64::MAX, Some(&mut grading));
            page.rung = rung as u8;
            let jumped = page.reopened(&format, 0, u64::MAX, Some(&mut grading));
            let (stepped, jumped) = (error(&stepped), error(&jumped));
            assert!(stepped[0] < 1.1 * jumped[0] && stepped[1] < 1.1 * jumped[1], "{stepped:?}, {jumped:?}");
        }
    }
}
