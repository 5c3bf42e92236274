use super::{Store, Turn};
use crate::method::{Call, Choice, Method};
use sketchkv_kernels::Scale;
use sketchkv_kernels::attention::layout::{BLOCK, Codes, Encoding, Levels, ScaleGroup, Side, nearest};

pub(super) static Q8: Method = Method {
    name: "q8",
    choice: Choice::Store,
    summary: "8-bit blocks of 32 along the head",
    formula: "s = max|x|/127, u = round(x/s)",
    state: "8.5 bits a value",
    paper: "GGUF Q8_0",
    differs: "",
    parameters: &[],
};

pub(super) static Q4: Method = Method {
    name: "q4",
    choice: Choice::Store,
    summary: "4-bit blocks of 32 along the head",
    formula: "s = x*/−8 with x* the value of largest magnitude, u = round(x/s) in −8..7",
    state: "4.5 bits a value",
    paper: "GGUF Q4_0",
    differs: "The newest 16 to 64 tokens of a head wait in f16.",
    parameters: &[],
};

pub(super) static Q4H: Method = Method {
    name: "q4h",
    choice: Choice::Store,
    summary: "q4 after a Hadamard rotation of keys, queries and values",
    formula: "q4(Hx), H the orthonormal Hadamard matrix of the head's width",
    state: "4.5 bits a value",
    paper: "QuaRot, arXiv 2404.00456",
    differs: "Rotates the cache only, after RoPE; a width that is no power of two is rotated in blocks. The newest 16 \
              to 64 tokens of a head wait in f16.",
    parameters: &[],
};

pub(super) fn q8(_: &Call, _: usize) -> Box<dyn Store> {
    Box::new(Block::Q8)
}

pub(super) fn q4(_: &Call, _: usize) -> Box<dyn Store> {
    Box::new(Block { bits: 4, turn: Turn::None })
}

pub(super) fn q4h(_: &Call, _: usize) -> Box<dyn Store> {
    Box::new(Block { bits: 4, turn: Turn::Hadamard })
}

pub(super) struct Block {
    bits: u32,
    turn: Turn,
}

impl Block {
    pub(super) const Q8: Block = Block { bits: 8, turn: Turn::None };
}

impl Store for Block {
    fn encoding(&self, _: Side) -> Encoding {
        let levels = Levels::Linear { offset: 1 << (self.bits - 1) };
        Encoding::Codes(Codes { bits: self.bits, levels, group: ScaleGroup::Block, minimum: false })
    }

    fn turn(&self, _: Side) -> Turn {
        self.turn
    }

    fn quantize(&self, x: &[f32], codes: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
        let (offset, max) = if self.bits == 8 { (128.0, 255.0) } else { (8.0, 15.0) };
        for ((x, codes), place) in x.chunks(BLOCK).zip(codes.chunks_mut(BLOCK)).zip(scales) {
            let largest = x.iter().fold(0.0f32, |m, &x| if x.abs() > m.abs() { x } else { m });
            let Scale { scale, inverse } = if self.bits == 8 {
                Scale::in_f16(largest.abs(), 127.0)
            } else {
                Scale::in_f16(largest, -8.0)
            };
            *place = scale;
            for (code, x) in codes.iter_mut().zip(x) {
                *code = nearest((x * inverse + offset).clamp(0.0, max)) as u8;
            }
        }
    }
}
