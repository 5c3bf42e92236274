//! The grid of a page: scales and zeros of the channels of its sealed keys.

use super::channels::Channels;
use super::{PAGE, Page};
use crate::format::Format;
use half::f16;
use sketchkv_kernels::attention::layout::{Grid, MAX_DIM, STRIP};
use sketchkv_kernels::half::f16_to_f32;

impl Page {
    /// The grid of strips in f32, where they are sealed on one: scales, zeros and, where they are, grades.
    pub(super) fn with_grid<R>(
        &self,
        sealed: Option<usize>,
        dim: usize,
        f: impl FnOnce(Option<Grid<'_>>) -> R,
    ) -> R {
        if sealed.is_none() || self.grid.is_empty() {
            return f(None);
        }
        let f = |wide: &mut [f32]| {
            f16_to_f32(&self.grid, wide);
            let (scale, zero) = wide.split_at(dim);
            f(Some(Grid { scale, zero, grades: self.grades.as_deref() }))
        };
        // To clear room that is not needed takes longer than to widen the grid.
        if dim <= 64 {
            f(&mut [0.0; 2 * 64][..2 * dim])
        } else if dim <= 256 {
            f(&mut [0.0; 2 * 256][..2 * dim])
        } else {
            f(&mut [0.0; 2 * MAX_DIM][..2 * dim])
        }
    }

    /// Scales and zeros as they lie in memory.
    pub(crate) fn grid(&self) -> &[f16] {
        &self.grid
    }

    /// Whether the grid is that of another page.
    pub(super) fn has_grid_of(&self, other: &Page) -> bool {
        self.grid == other.grid && self.grades == other.grades
    }

    /// Encodes a key on the page's grid. A channel whose range the key leaves is widened to hold it: the other
    /// slots of that channel are decoded and encoded once more. Ranges only grow, so this happens ever more rarely.
    pub(super) fn write_on_grid(&mut self, format: &Format, slot: usize, key: &[f32], live: u64) {
        let layout = format.keys.layout(Some(self.rung()));
        let grades = self.grades.clone();
        let channels = Channels::new(layout, grades.as_deref());
        let start = self.span(&format.keys, self.sealed_strips()).start;
        let (front, bytes) = (self.front(), layout.strip_bytes());
        let at = |slot: usize| {
            let first = start + (slot / STRIP - front) * bytes;
            first..first + bytes
        };
        let live = live & self.sealed_slots() & !(1 << slot);
        let (mut codes, mut wide) = ([0; MAX_DIM], [0.0; 2 * MAX_DIM]);
        f16_to_f32(&self.grid, &mut wide[..2 * key.len()]);
        for (channel, &x) in key.iter().enumerate() {
            let mut grid = (wide[channel], wide[key.len() + channel]);
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
            codes[channel] = channels.encode(channel, grid, x);
        }
        channels.put_slot(&mut self.keys[at(slot)], slot % STRIP, &codes[..key.len()]);
    }

    pub(super) fn set_grid(&mut self, channel: usize, dim: usize, (scale, zero): (f32, f32)) {
        self.grid[channel] = f16::from_f32(scale);
        self.grid[dim + channel] = f16::from_f32(zero);
    }
}
