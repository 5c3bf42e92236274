//! The grid of a page: scales and zeros of the channels of its sealed keys.

use super::channels::Channels;
use super::{PAGE, Page};
use crate::format::Format;
use half::f16;
use sketchkv_kernels::attention::layout::{Grid, MAX_DIM, STRIP};
use sketchkv_kernels::half::f16_to_f32;

/// Lends `f` so many numbers. To clear room that is not needed takes longer than most of what is done with it.
pub(super) fn with_floats<R>(count: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    match count {
        0..=128 => f(&mut [0.0; 128][..count]),
        129..=512 => f(&mut [0.0; 512][..count]),
        _ => f(&mut [0.0; 2 * MAX_DIM][..count]),
    }
}

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
        with_floats(2 * dim, |wide| {
            f16_to_f32(&self.grid, wide);
            let (scale, zero) = wide.split_at(dim);
            f(Some(Grid { scale, zero, grades: self.grades.as_deref() }))
        })
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
        let (dim, empty, mut codes) = (key.len(), live == 0, [0; MAX_DIM]);
        with_floats(2 * dim, |wide| {
            f16_to_f32(&self.grid, wide);
            let (scale, zero) = wide.split_at(dim);
            let mut serves = !empty;
            channels.for_each(dim, |channel, steps| {
                let grid = (scale[channel], zero[channel]);
                serves &= steps.serves(grid, key[channel]);
                codes[channel] = steps.encode(grid, key[channel]);
            });
            if serves {
                return;
            }
            for (channel, &x) in key.iter().enumerate() {
                let (steps, grid) = (channels.steps(channel), (scale[channel], zero[channel]));
                if !empty && steps.serves(grid, x) {
                    continue;
                }
                let (low, high) = steps.ends(grid);
                // A first key spans nothing by itself; the next ones widen. Beyond that, a little more room on the
                // side that was left spares the next widening.
                let (low, high) = if empty {
                    (x, x)
                } else if x < low {
                    (x - 0.05 * (high - x), high)
                } else {
                    (low, x + 0.05 * (x - low))
                };
                let wider = steps.fit(low, high);
                let place = channels.place(channel);
                for other in (0..PAGE).filter(|other| live >> other & 1 == 1) {
                    let (strip, lane) = (&mut self.keys[at(other)], other % STRIP);
                    let value = steps.value(place.code(strip, lane), grid);
                    place.put(strip, lane, steps.encode(wider, value));
                }
                self.set_grid(channel, dim, wider);
                codes[channel] = steps.encode(wider, x);
            }
        });
        channels.put_slot(&mut self.keys[at(slot)], slot % STRIP, &codes[..dim]);
    }

    pub(super) fn set_grid(&mut self, channel: usize, dim: usize, (scale, zero): (f32, f32)) {
        self.grid[channel] = f16::from_f32(scale);
        self.grid[dim + channel] = f16::from_f32(zero);
    }
}
