//! The codes of sealed keys on a grid, channel by channel.

use crate::grading::reach;
use crate::store::to_f16;
use sketchkv_kernels::attention::graded::{self, Grades};
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

    /// The steps of a channel.
    pub(super) fn steps(&self, channel: usize) -> Steps {
        match self {
            Channels::Alike(_, codes) => Steps::of(codes),
            Channels::Graded(grades) => Steps::graded(grades.bits(channel)),
        }
    }

    /// The steps of all `dim` channels, in some order.
    pub(super) fn for_each(&self, dim: usize, mut f: impl FnMut(usize, Steps)) {
        match self {
            Channels::Alike(_, codes) => (0..dim).for_each(|channel| f(channel, Steps::of(codes))),
            Channels::Graded(grades) => {
                for (bits, channels) in grades.groups() {
                    let steps = Steps::graded(bits);
                    channels.iter().for_each(|&channel| f(channel.into(), steps));
                }
            }
        }
    }

    /// Where the codes of a channel lie.
    pub(super) fn place(&self, channel: usize) -> Place<'a> {
        match self {
            Channels::Alike(layout, _) => Place::Alike(layout, channel),
            Channels::Graded(grades) => Place::Graded(grades.place(channel)),
        }
    }

    /// Writes the codes of all channels of a slot.
    pub(super) fn put_slot(&self, strip: &mut [u8], lane: usize, codes: &[u8]) {
        match self {
            Channels::Alike(layout, _) => layout.put_codes(strip, lane, codes, &[], &[]),
            Channels::Graded(grades) => grades.put_codes(strip, lane, codes),
        }
    }
}

/// Where the codes of a channel lie in a strip.
pub(super) enum Place<'a> {
    Alike(&'a StripLayout, usize),
    Graded(graded::Place),
}

impl Place<'_> {
    pub(super) fn code(&self, strip: &[u8], lane: usize) -> u8 {
        match self {
            Place::Alike(layout, channel) => layout.code(strip, lane, *channel),
            Place::Graded(place) => place.code(strip, lane),
        }
    }

    pub(super) fn put(&self, strip: &mut [u8], lane: usize, code: u8) {
        match self {
            Place::Alike(layout, channel) => layout.put_code(strip, lane, *channel, code),
            Place::Graded(place) => place.put(strip, lane, code),
        }
    }
}

/// The steps of a channel's codes, whatever its grid, a scale and a zero, makes of them.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    /// What the code 0 stands for before it is scaled.
    lowest: f32,
    /// The largest code.
    most: u8,
    /// How far beyond its ends a grid serves, in steps.
    reach: f32,
}

impl Steps {
    fn of(codes: &Codes) -> Steps {
        // Half a step beyond the last level still rounds to it.
        Steps { lowest: codes.level(0), most: codes.max_code(), reach: 0.5 }
    }

    fn graded(bits: u8) -> Steps {
        let most = ((1u32 << bits) - 1) as u8;
        Steps { lowest: 0.0, most, reach: reach(bits) * f32::from(most) }
    }

    /// The value of a code.
    pub(super) fn value(self, code: u8, (scale, zero): (f32, f32)) -> f32 {
        zero + scale * (f32::from(code) + self.lowest)
    }

    /// The values of the first and the last code.
    pub(super) fn ends(self, grid: (f32, f32)) -> (f32, f32) {
        (self.value(0, grid), self.value(self.most, grid))
    }

    /// Whether a grid serves for a number. Without bits a channel has one value, whatever comes.
    pub(super) fn serves(self, grid: (f32, f32), x: f32) -> bool {
        let ((low, high), reach) = (self.ends(grid), grid.0 * self.reach);
        self.most == 0 || x >= low - reach && x <= high + reach
    }

    pub(super) fn encode(self, (scale, zero): (f32, f32), x: f32) -> u8 {
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        nearest(((x - zero) * inverse - self.lowest).clamp(0.0, f32::from(self.most))) as u8
    }

    /// Scale and zero, as f16 will hold them, of a grid from `low` to `high`.
    pub(super) fn fit(self, low: f32, high: f32) -> (f32, f32) {
        if self.most == 0 {
            return (0.0, to_f16(low / 2.0 + high / 2.0));
        }
        let scale = to_f16((high - low) / f32::from(self.most));
        (scale, to_f16(low - scale * self.lowest))
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
