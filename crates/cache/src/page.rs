//! Pages: up to 64 slots of one KV head, the unit of sharing and of per-channel scales.

use crate::format::Format;
use crate::store::to_f16;
use half::f16;
use sketchkv_kernels::attention::layout::{Codes, Encoding, Grid, Layout, STRIP};
use sketchkv_kernels::attention::{Queries, Strips, decode_keys, decode_values, key_scores, value_sums};
use sketchkv_kernels::cpu::Level;

/// Slots in a page.
pub(crate) const PAGE: usize = 64;
/// Strips in a page.
pub(crate) const PAGE_STRIPS: usize = PAGE / STRIP;

/// Keys and values of up to 64 slots.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    keys: Strips,
    values: Strips,
    strips: usize,
    /// `[2][dim]` scales, then zeros, of per-channel codes.
    grid: Box<[f16]>,
    /// Whether the page is still f16, waiting to be full before its grid is chosen.
    open: bool,
}

impl Page {
    /// A page without strips; `open` for f16 that is sealed later.
    pub(crate) fn new(format: &Format, open: bool) -> Self {
        let grid = if open { 0 } else { format.grid_bytes() / 2 };
        Page {
            keys: Strips::default(),
            values: Strips::default(),
            strips: 0,
            grid: vec![f16::ZERO; grid].into(),
            open,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
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
    pub(crate) fn grid_bytes(&self) -> usize {
        2 * self.grid.len()
    }

    /// Grows or shrinks to `strips` strips.
    pub(crate) fn resize(&mut self, format: &Format, strips: usize) {
        let (keys, values) = self.layouts(format);
        self.keys.resize(strips * keys.strip_bytes());
        self.values.resize(strips * values.strip_bytes());
        self.strips = strips;
    }

    /// Keys, values and grid as they lie in memory.
    pub(crate) fn parts(&self) -> (&[u8], &[u8], &[f16]) {
        (&self.keys, &self.values, &self.grid)
    }

    /// The same, to be written.
    pub(crate) fn parts_mut(&mut self) -> (&mut [u8], &mut [u8], &mut [f16]) {
        (&mut self.keys, &mut self.values, &mut self.grid)
    }

    /// Layouts of the keys and the values as they lie now.
    pub(crate) fn layouts<'f>(&self, format: &'f Format) -> (&'f Layout, &'f Layout) {
        if self.open {
            (&format.open_keys, &format.open_values)
        } else {
            (&format.keys.layout, &format.values.layout)
        }
    }

    /// Takes the grid of another page of the same format, so that codes can be written before this page is full.
    pub(crate) fn inherit_grid(&mut self, from: &Page) {
        if from.grid.len() == self.grid.len() {
            self.grid.copy_from_slice(&from.grid);
        }
    }

    /// The grid in f32: scales and zeros.
    fn with_grid<R>(&self, dim: usize, f: impl FnOnce(Option<Grid<'_>>) -> R) -> R {
        if self.grid.is_empty() {
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
        let (key_layout, value_layout) = self.layouts(format);
        let (key_bytes, value_bytes) = (key_layout.strip_bytes(), value_layout.strip_bytes());
        if self.open {
            key_layout.put(&mut self.keys[strip * key_bytes..][..key_bytes], lane, key);
            value_layout.put(&mut self.values[strip * value_bytes..][..value_bytes], lane, value);
            return;
        }
        if self.grid.is_empty() {
            format.keys.write(&mut self.keys[strip * key_bytes..][..key_bytes], lane, key);
        } else {
            self.write_on_grid(format, slot, key, live);
        }
        format.values.write(&mut self.values[strip * value_bytes..][..value_bytes], lane, value);
    }

    /// Encodes a key on the page's grid. A channel whose range the key leaves is widened to hold it: the other
    /// slots of that channel are decoded and encoded once more. Ranges only grow, so this happens ever more rarely.
    fn write_on_grid(&mut self, format: &Format, slot: usize, key: &[f32], live: u64) {
        let layout = &format.keys.layout;
        let Encoding::Codes(codes) = layout.encoding else { unreachable!("a grid belongs to codes") };
        let bytes = layout.strip_bytes();
        let live = live & !(1 << slot);
        for (channel, &x) in key.iter().enumerate() {
            let (mut scale, mut zero) = self.grid_at(channel, format.dim);
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
                self.set_grid(channel, format.dim, scale, zero);
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

    /// The sealed page that an open page becomes: its grid is chosen from the slots in `live`.
    pub(crate) fn seal(&self, format: &Format, live: u64) -> Page {
        debug_assert!(self.open);
        let mut sealed = Page::new(format, false);
        sealed.resize(format, self.strips);
        let slots: Vec<usize> = (0..PAGE).filter(|slot| live >> slot & 1 == 1).collect();
        let mut keys = vec![0.0; slots.len() * format.dim];
        for (key, &slot) in keys.chunks_exact_mut(format.dim).zip(&slots) {
            self.key(format, slot, key);
        }
        if let (true, Encoding::Codes(codes)) = (format.keys.has_grid(), format.keys.layout.encoding) {
            for channel in 0..format.dim {
                let column = keys.iter().skip(channel).step_by(format.dim).copied();
                let low = column.clone().fold(f32::INFINITY, f32::min);
                let high = column.fold(f32::NEG_INFINITY, f32::max);
                if low <= high {
                    let (scale, zero) = fit(&codes, low, high);
                    sealed.set_grid(channel, format.dim, scale, zero);
                }
            }
        }
        let mut value = vec![0.0; format.dim];
        for (key, &slot) in keys.chunks_exact(format.dim).zip(&slots) {
            self.value(format, slot, &mut value);
            sealed.write(format, slot, key, &value, live);
        }
        sealed
    }

    /// Copies a slot from another page, bit for bit where the code allows it.
    pub(crate) fn copy(&mut self, format: &Format, slot: usize, from: &Page, from_slot: usize, live: u64) {
        if self.open != from.open || !self.grid.is_empty() {
            let (mut key, mut value) = (vec![0.0; format.dim], vec![0.0; format.dim]);
            from.key(format, from_slot, &mut key);
            from.value(format, from_slot, &mut value);
            self.write(format, slot, &key, &value, live);
            return;
        }
        let (key_layout, value_layout) = self.layouts(format);
        for (layout, from, to) in
            [(key_layout, &from.keys, &mut self.keys), (value_layout, &from.values, &mut self.values)]
        {
            let bytes = layout.strip_bytes();
            layout.copy(
                &from[from_slot / STRIP * bytes..][..bytes],
                from_slot % STRIP,
                &mut to[slot / STRIP * bytes..][..bytes],
                slot % STRIP,
            );
        }
    }

    /// Decodes a key, still turned and padded, `[dim]`.
    pub(crate) fn key(&self, format: &Format, slot: usize, out: &mut [f32]) {
        let (layout, _) = self.layouts(format);
        let bytes = layout.strip_bytes();
        self.with_grid(format.dim, |grid| {
            layout.get(&self.keys[slot / STRIP * bytes..][..bytes], slot % STRIP, grid, out)
        });
    }

    /// Decodes a value, still turned and padded, `[dim]`.
    pub(crate) fn value(&self, format: &Format, slot: usize, out: &mut [f32]) {
        let (_, layout) = self.layouts(format);
        let bytes = layout.strip_bytes();
        layout.get(&self.values[slot / STRIP * bytes..][..bytes], slot % STRIP, None, out);
    }

    /// Replaces a value; `value` is turned and padded.
    pub(crate) fn set_value(&mut self, format: &Format, slot: usize, value: &[f32]) {
        let (_, layout) = self.layouts(format);
        let bytes = layout.strip_bytes();
        let strip = &mut self.values[slot / STRIP * bytes..][..bytes];
        if self.open {
            layout.put(strip, slot % STRIP, value);
        } else {
            format.values.write(strip, slot % STRIP, value);
        }
    }

    /// Scores of the strips `first .. first + count`: `out[query · stride + slot]`.
    pub(crate) fn scores(
        &self,
        level: Level,
        format: &Format,
        queries: &Queries,
        strips: std::ops::Range<usize>,
        out: &mut [f32],
        stride: usize,
    ) {
        let (layout, _) = self.layouts(format);
        let bytes = layout.strip_bytes();
        let keys = &self.keys[strips.start * bytes..strips.end * bytes];
        self.with_grid(format.dim, |grid| key_scores(level, layout, grid, queries, keys, out, stride));
    }

    /// Adds the weighted values of some strips to `out[query][dim]`.
    pub(crate) fn add_values(
        &self,
        level: Level,
        format: &Format,
        weights: &[f32],
        stride: usize,
        strips: std::ops::Range<usize>,
        out: &mut [f32],
    ) {
        let (_, layout) = self.layouts(format);
        let bytes = layout.strip_bytes();
        value_sums(
            level,
            layout,
            weights,
            stride,
            &self.values[strips.start * bytes..strips.end * bytes],
            out,
        );
    }

    /// All keys, `[strip][dim][16]`.
    pub(crate) fn decode_keys(&self, level: Level, format: &Format, out: &mut [f32]) {
        let (layout, _) = self.layouts(format);
        self.with_grid(format.dim, |grid| decode_keys(level, layout, grid, &self.keys, out));
    }

    /// All values, `[slot][dim]`.
    pub(crate) fn decode_values(&self, level: Level, format: &Format, out: &mut [f32]) {
        let (_, layout) = self.layouts(format);
        decode_values(level, layout, &self.values, out);
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
    ((x - zero) * inverse - codes.level(0)).round_ties_even().clamp(0.0, codes.max_code() as f32) as u8
}
