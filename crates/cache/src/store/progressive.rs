use super::block::Block;
use super::graded::Graded;
use super::turbo::Turbo;
use super::{Store, Turn};
use crate::method::{Call, Choice, Kind, Method, Parameter};
use sketchkv_kernels::attention::layout::{Encoding, Side};

pub(super) static PROGRESSIVE: Method = Method {
    name: "progressive",
    choice: Choice::Store,
    summary: "as graded, in as many bits as the cap leaves room for: pages lose bits as the context grows",
    formula: "pages begin in 8 bits; while a head has more bytes than its part, its oldest page of most bits goes to the next \
              of (8, 8), (6, 4), (5, 4), (4, 4), (4, 3), (3.5, 3), (3, 3), (2.5, 3), (2.5, 2), (2, 2) bits a number of a key \
              and of a value",
    state: "as graded",
    paper: "reverse water-filling: Cover and Thomas, Elements of Information Theory, 10.3.3",
    differs: "The first 16 tokens of a head and the newest 16 to 64 are in 8 bits token by token, keys as q8 (in f16 \
              with full, and where the model gives them biases). \
              What a page has lost does not come back; after a truncation new pages may have more bits. \
              Without a cap in bytes or percent all stay in 8 bits. Tokens are evicted when all pages have the fewest, with \
              foreseen and adaptive where they are worth less than the bits of others.",
    parameters: &[Parameter {
        name: "least",
        kind: Kind::Real(2.0, 8.0),
        default: "3",
        help: "the fewest bits of a key's number, before tokens are evicted",
    }],
};

/// Bits of a key's number and of a value's, from one rung to the next.
const LADDER: [(f32, u32); 10] =
    [(8.0, 8), (6.0, 4), (5.0, 4), (4.0, 4), (4.0, 3), (3.5, 3), (3.0, 3), (2.5, 3), (2.5, 2), (2.0, 2)];

pub(super) fn progressive(call: &Call, width: usize) -> Box<dyn Store> {
    let least = call.real("least");
    let rungs = LADDER.iter().filter(|(keys, _)| *keys >= least).count();
    Box::new(Progressive::new(0, rungs, width))
}

/// One rung, which knows the next.
struct Progressive {
    store: Graded,
    rung: usize,
    rungs: usize,
    width: usize,
}

impl Progressive {
    fn new(rung: usize, rungs: usize, width: usize) -> Self {
        let (keys, values) = LADDER[rung];
        Progressive {
            store: Graded::new(keys, Turbo::new(values, width).unbiased(), width),
            rung,
            rungs,
            width,
        }
    }
}

impl Store for Progressive {
    fn encoding(&self, side: Side) -> Encoding {
        self.store.encoding(side)
    }

    fn turn(&self, side: Side) -> Turn {
        self.store.turn(side)
    }

    fn coarser(&self) -> Option<Box<dyn Store>> {
        let rung = self.rung + 1;
        (rung < self.rungs).then(|| Box::new(Progressive::new(rung, self.rungs, self.width)) as _)
    }

    fn open(&self, side: Side) -> Option<Box<dyn Store>> {
        (side == Side::Keys).then(|| Box::new(Block::Q8) as _)
    }

    fn quantize(&self, x: &[f32], codes: &mut [u8], scales: &mut [f32], minima: &mut [f32]) {
        self.store.quantize(x, codes, scales, minima);
    }
}
