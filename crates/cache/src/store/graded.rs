use super::turbo::Turbo;
use super::{Store, Turn};
use crate::method::{Call, Choice, Kind, Method, Parameter};
use sketchkv_kernels::attention::layout::{BLOCK, Encoding, Side};

pub(super) static GRADED: Method = Method {
    name: "graded",
    choice: Choice::Store,
    summary: "keys per channel, each channel with bits of its own; values as TurboQuant, neither of them shrunk",
    formula: "keys: k̂_c = z_c + s_c·u, 0 to 8 bits a channel so that Σ_c E[q_c²]·σ_c²·D(b_c) is least, (z_c, s_c) from \
         the range of channel c over the page, s_c so that cov(k̂_c, k_c) = var(k_c); values: as tq4, tq3 or tq2, the scale so \
         that v̂·v = ‖v‖²",
    state: "bits a value, keys + 0.5 for the grid of a page; second moments of the queries, 4 bytes a channel of a head",
    paper: "KIVI, arXiv 2402.02750; reverse water-filling: Cover and Thomas, Elements of Information Theory, 10.3.3; scales \
            without bias: RaBitQ, arXiv 2405.12497",
    differs: "Bits are shared out once a head, when its first page is sealed, from the keys of that page and the queries seen \
         by then. The first 16 tokens of a head stay in f16, and so do the newest 16 to 64. Values have whole bits, 2 to 4. \
         Scales of least squared error shrink keys and values, which many in a sum do not make good: unbiased ones have up to half the KL.",
    parameters: &[Parameter {
        name: "bits",
        kind: Kind::Real(1.0, 8.0),
        default: "3",
        help: "bits of a key's number, over all channels",
    }],
};

pub(super) fn graded(call: &Call, width: usize) -> Box<dyn Store> {
    let bits = call.real("bits");
    let values = Turbo::new(bits.round().clamp(2.0, 4.0) as u32, width);
    Box::new(Graded::new(bits, values.unbiased(), width))
}

pub(super) struct Graded {
    lines: u16,
    values: Turbo,
}

impl Graded {
    /// Of so many bits of a key's number.
    pub(super) fn new(keys: f32, values: Turbo, width: usize) -> Self {
        // A line of 64 bytes is 32 bits a slot.
        let lines = ((keys * width as f32 / BLOCK as f32).round() as u16).max(1);
        Graded { lines, values }
    }
}

impl Store for Graded {
    fn encoding(&self, side: Side) -> Encoding {
        match side {
            Side::Keys => Encoding::Graded { lines: self.lines },
            Side::Values => self.values.encoding(side),
        }
    }

    fn turn(&self, side: Side) -> Turn {
        match side {
            Side::Keys => Turn::None,
            Side::Values => self.values.turn(side),
        }
    }

    fn quantize(&self, x: &[f32], codes: &mut [u8], scales: &mut [f32], minima: &mut [f32]) {
        self.values.quantize(x, codes, scales, minima);
    }
}
