use super::{Store, to_f16};
use crate::method::{Call, Choice, Method};
use sketchkv_kernels::Scale;
use sketchkv_kernels::attention::layout::{BLOCK, Codes, Encoding, Levels, ScaleGroup, Side, nearest};

macro_rules! kivi {
    ($method:ident, $build:ident, $bits:literal, $name:literal, $state:literal) => {
        pub(super) static $method: Method = Method {
            name: $name,
            choice: Choice::Store,
            summary: concat!($bits, " bits, asymmetric: keys per channel over a page, values per token in blocks of 32"),
            formula: "keys: k̂_c = z_c + s_c·u, (z_c, s_c) from the range of channel c over the page; \
                 values: v̂ = m + s·u, (m, s) from the range of the block",
            state: $state,
            paper: "KIVI, arXiv 2402.02750",
            differs: "Runs under a cap: a page's grid widens when a key written into a freed slot leaves it, so codes are \
                 made once and pages are never merged; the newest 16 to 64 tokens of a head wait in f16.",
            parameters: &[],
        };

        pub(super) fn $build(_: &Call, _: usize) -> Box<dyn Store> {
            Box::new(Kivi { bits: $bits })
        }
    };
}

kivi!(KIVI4, kivi4, 4, "kivi4", "keys 4.5, values 5 bits a value");
kivi!(KIVI3, kivi3, 3, "kivi3", "keys 3.5, values 4 bits a value");
kivi!(KIVI2, kivi2, 2, "kivi2", "keys 2.5, values 3 bits a value");

struct Kivi {
    bits: u32,
}

impl Store for Kivi {
    fn encoding(&self, side: Side) -> Encoding {
        Encoding::Codes(match side {
            Side::Keys => {
                // Codes are centred so that integer products of signed queries stay small.
                let levels = Levels::Linear { offset: 1 << (self.bits - 1) };
                Codes { bits: self.bits, levels, group: ScaleGroup::Channel, minimum: false }
            }
            Side::Values => {
                let levels = Levels::Linear { offset: 0 };
                Codes { bits: self.bits, levels, group: ScaleGroup::Block, minimum: true }
            }
        })
    }

    fn quantize(&self, x: &[f32], codes: &mut [u8], scales: &mut [f32], minima: &mut [f32]) {
        let steps = ((1u32 << self.bits) - 1) as f32;
        for (group, (x, codes)) in x.chunks(BLOCK).zip(codes.chunks_mut(BLOCK)).enumerate() {
            let low = x.iter().copied().fold(f32::INFINITY, f32::min);
            let high = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            minima[group] = to_f16(low);
            // From −3e38 to 3e38 it is further than f32 goes.
            let Scale { scale, inverse } = Scale::in_f16((high - low).min(f32::MAX), steps);
            scales[group] = scale;
            for (code, x) in codes.iter_mut().zip(x) {
                *code = nearest(((x - minima[group]) * inverse).clamp(0.0, steps)) as u8;
            }
        }
    }
}
