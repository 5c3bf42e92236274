//! The codes of sealed keys on a grid, channel by channel.

use crate::grading::reach;
use crate::store::to_f16;
use sketchkv_kernels::attention::graded::Grades;
use sketchkv_kernels::attention::layout::{Codes, Encoding, StripLayout, nearest};

/// The codes of sealed keys on a grid.
pub(super) enum Channels<'a> {
    Alike(&'a StripLayout, Codes),
    Graded(&'a Grades),
}

impl<'a> Channels<'a> {
    /// Of a page with a grid: graded, or all of as many bits.
    pub(super) fn new(layout: &'a StripLayout, grades: Option<&'a Grades>) -> Self {
        match (grades, layout.encoding()) {
            (Some(grades), _) => Channels::Graded(grades),
            (None, Encoding::Codes(codes)) => Channels::Alike(layout, codes),
            (None, encoding) => unreachable!("{encoding:?} has no grid"),
        }
    }

    /// The largest code.
    pub(super) fn most(&self, channel: usize) -> u8 {
        match self {
            Channels::Alike(_, codes) => codes.max_code(),
            Channels::Graded(grades) => ((1u32 << grades.bits(channel)) - 1) as u8,
        }
    }

    /// What the code 0 stands for before it is scaled.
    pub(super) fn lowest(&self) -> f32 {
        match self {
            Channels::Alike(_, codes) => codes.level(0),
            Channels::Graded(_) => 0.0,
        }
    }

    pub(super) fn code(&self, strip: &[u8], lane: usize, channel: usize) -> u8 {
        match self {
            Channels::Alike(layout, _) => layout.code(strip, lane, channel),
            Channels::Graded(grades) => grades.code(strip, lane, channel),
        }
    }

    pub(super) fn put(&self, strip: &mut [u8], lane: usize, channel: usize, code: u8) {
        match self {
            Channels::Alike(layout, _) => layout.put_code(strip, lane, channel, code),
            Channels::Graded(grades) => grades.put_code(strip, lane, channel, code),
        }
    }

    /// Writes the codes of all channels of a slot.
    pub(super) fn put_slot(&self, strip: &mut [u8], lane: usize, codes: &[u8]) {
        match self {
            Channels::Alike(layout, _) => layout.put_codes(strip, lane, codes, &[], &[]),
            Channels::Graded(grades) => grades.put_codes(strip, lane, codes),
        }
    }

    /// The value of a code.
    pub(super) fn value(&self, code: u8, (scale, zero): (f32, f32)) -> f32 {
        zero + scale * (f32::from(code) + self.lowest())
    }

    /// Scale and zero, as f16 will hold them, of a channel's grid from `low` to `high`.
    pub(super) fn fit(&self, channel: usize, low: f32, high: f32) -> (f32, f32) {
        let steps = f32::from(self.most(channel));
        if steps == 0.0 {
            return (0.0, to_f16(low / 2.0 + high / 2.0));
        }
        let scale = to_f16((high - low) / steps);
        (scale, to_f16(low - scale * self.lowest()))
    }

    /// How far beyond its ends a grid serves.
    pub(super) fn reach(&self, channel: usize, grid: (f32, f32)) -> f32 {
        match self {
            // Half a step beyond the last level still rounds to it.
            Channels::Alike(..) => grid.0 / 2.0,
            Channels::Graded(grades) => {
                reach(grades.bits(channel), self.value(0, grid), self.value(self.most(channel), grid))
            }
        }
    }

    pub(super) fn encode(&self, channel: usize, (scale, zero): (f32, f32), x: f32) -> u8 {
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        nearest(((x - zero) * inverse - self.lowest()).clamp(0.0, f32::from(self.most(channel)))) as u8
    }
}

/// The smallest and the largest of some numbers; of none, 0.
pub(super) fn range(x: impl Iterator<Item = f32>) -> (f32, f32) {
    let wider = |ends: Option<(f32, f32)>, x: f32| {
        let (low, high) = ends.unwrap_or((x, x));
        Some((low.min(x), high.max(x)))
    };
    x.fold(None, wider).unwrap_or_default()
}
