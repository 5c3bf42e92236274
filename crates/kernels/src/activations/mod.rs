//! The inputs of a product: normed or activated, then quantized in blocks of 32, on the fly.

mod input;
mod quantize;

use crate::ThreadPool;
use crate::buffer::{AlignedBuffer, Disjoint};
use crate::cpu::{self, Level};
use crate::matrix::tile::BLOCK;
pub use input::Input;
use input::TokenInput;
use quantize::{Places, quantize_blocks};

/// Tokens whose activations lie interleaved: `[group][block][token][digit][32]`, so that a micro-kernel over the tokens of a
/// group reads from one place. The last group may have fewer.
pub(crate) const GROUP: usize = 8;
/// Columns computed at a time, on the stack, before they are rounded.
const STRETCH: usize = 8 * BLOCK;

/// How finely activations are rounded before they multiply integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activations {
    /// −127 to 127 in blocks of 32, as ggml does it.
    #[default]
    Bits8,
    /// −32,639 to 32,639 in blocks of 32, multiplied as two digits of 8 bits: twice the arithmetic over weights that are
    /// read once. Where a few large values of a block drown the others, as in a residual stream, 8 bits do not do.
    Bits16,
}

impl Activations {
    /// Digits of 8 bits that make up a value.
    pub(crate) fn digits(self) -> usize {
        match self {
            Activations::Bits8 => 1,
            Activations::Bits16 => 2,
        }
    }

    /// Magnitudes are up to this many steps; then the higher of two digits is up to 127 as well.
    fn steps(self) -> f32 {
        match self {
            Activations::Bits8 => 127.0,
            Activations::Bits16 => (127 * 256 + 127) as f32,
        }
    }
}

/// Scratch memory of products, reused from one to the next.
pub struct ProductWorkspace {
    level: Level,
    /// `[group][block][token][digit][32]`, see [`Group`].
    quants: AlignedBuffer<i8>,
    /// `[group][block][token]`, as the next four.
    scales: AlignedBuffer<f32>,
    /// The sum of the block's quants.
    sums: AlignedBuffer<f32>,
    /// Minus that sum.
    negative_sums: AlignedBuffer<i32>,
    /// Minus the sum of the first and of the last 16.
    negative_halves: AlignedBuffer<[i32; 2]>,
    /// `[token][cols]`, for matrices of floats.
    rows: AlignedBuffer<f32>,
    multiply_adds: u64,
}

/// The quantized activations of one group of tokens: `[block][token]`, 32 quants each.
///
/// x ≈ scale · quant. A quant of 16 bits is two digits, `[digit][32]`: 256 times the first, −127 to 127, and the second, −128 to
/// 127. At [`Level::Avx2`], which multiplies words, it is one: `[32]` in the order 0, 2, 1, 3 of every four. Sums are of whole
/// quants.
#[derive(Clone, Copy)]
pub(crate) struct Group<'a> {
    pub(crate) tokens: usize,
    pub(crate) digits: usize,
    pub(crate) quants: &'a [i8],
    pub(crate) scales: &'a [f32],
    pub(crate) sums: &'a [f32],
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "for instructions that want one factor unsigned")
    )]
    pub(crate) negative_sums: &'a [i32],
    pub(crate) negative_halves: &'a [[i32; 2]],
}

impl Default for ProductWorkspace {
    fn default() -> Self {
        Self::new()
    }
}

impl ProductWorkspace {
    /// An empty workspace for products at the level [in use](cpu::level).
    pub fn new() -> Self {
        Self::with_level(cpu::level())
    }

    /// An empty workspace for products at `level`, or the widest below it that this machine runs.
    pub fn with_level(level: Level) -> Self {
        ProductWorkspace {
            level: level.clamp(),
            quants: AlignedBuffer::zeroed(0),
            scales: AlignedBuffer::zeroed(0),
            sums: AlignedBuffer::zeroed(0),
            negative_sums: AlignedBuffer::zeroed(0),
            negative_halves: AlignedBuffer::zeroed(0),
            rows: AlignedBuffer::zeroed(0),
            multiply_adds: 0,
        }
    }

    /// The level that products with this workspace run at.
    pub fn level(&self) -> Level {
        self.level
    }

    /// 8-bit multiply-adds of all products so far: each digit of an activation counts.
    pub fn multiply_adds(&self) -> u64 {
        self.multiply_adds
    }

    /// Counts those of some rows with some tokens.
    pub(crate) fn count(&mut self, rows: usize, cols: usize, tokens: usize, activations: Activations) {
        self.multiply_adds += (rows * activations.digits()) as u64 * (cols * tokens) as u64;
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let integers = self.quants.bytes() + self.negative_sums.bytes() + self.negative_halves.bytes();
        integers + self.scales.bytes() + self.sums.bytes() + self.rows.bytes()
    }

    /// Computes `input` for all tokens and rounds it.
    pub(crate) fn quantize(
        &mut self,
        pool: &ThreadPool,
        input: &Input,
        tokens: usize,
        cols: usize,
        activations: Activations,
    ) {
        let (blocks, digits) = (cols.div_ceil(BLOCK), activations.digits());
        self.quants.reserve(tokens * blocks * digits * BLOCK);
        self.scales.reserve(tokens * blocks);
        self.sums.reserve(tokens * blocks);
        self.negative_sums.reserve(tokens * blocks);
        self.negative_halves.reserve(tokens * blocks);
        let quants = Disjoint::new(&mut self.quants);
        let scales = Disjoint::new(&mut self.scales);
        let sums = Disjoint::new(&mut self.sums);
        let negative_sums = Disjoint::new(&mut self.negative_sums);
        let negative_halves = Disjoint::new(&mut self.negative_halves);
        let level = self.level;
        pool.run_ranges(tokens, GROUP, &|group| {
            let places = group.start * blocks..group.end * blocks;
            // SAFETY: groups do not overlap, and each is run once.
            let mut places = unsafe {
                Places {
                    quants: quants.part(places.start * digits * BLOCK..places.end * digits * BLOCK),
                    scales: scales.part(places.clone()),
                    sums: sums.part(places.clone()),
                    negative_sums: negative_sums.part(places.clone()),
                    negative_halves: negative_halves.part(places),
                    tokens: group.len(),
                    activations,
                }
            };
            let mut stretch = [0.0; STRETCH];
            for token in 0..group.len() {
                let input = input.token(level, group.start + token, cols);
                quantize_token(level, &input, cols, token, &mut stretch, &mut places);
            }
        });
    }

    /// Group `index` of what [`ProductWorkspace::quantize`] computed for `tokens` tokens.
    pub(crate) fn group(
        &self,
        index: usize,
        tokens: usize,
        cols: usize,
        activations: Activations,
    ) -> Group<'_> {
        let (blocks, digits) = (cols.div_ceil(BLOCK), activations.digits());
        let (first, last) = (index * GROUP, tokens.min((index + 1) * GROUP));
        let places = first * blocks..last * blocks;
        Group {
            tokens: last - first,
            digits,
            quants: &self.quants[places.start * digits * BLOCK..places.end * digits * BLOCK],
            scales: &self.scales[places.clone()],
            sums: &self.sums[places.clone()],
            negative_sums: &self.negative_sums[places.clone()],
            negative_halves: &self.negative_halves[places],
        }
    }

    /// Computes `input` for all tokens as `f32`.
    pub(crate) fn compute(&mut self, pool: &ThreadPool, input: &Input, tokens: usize, cols: usize) {
        self.rows.reserve(tokens * cols);
        let rows = Disjoint::new(&mut self.rows);
        let level = self.level;
        pool.run_ranges(tokens, GROUP, &|group| {
            // SAFETY: groups do not overlap, and each is run once.
            let rows = unsafe { rows.part(group.start * cols..group.end * cols) };
            for (token, row) in group.zip(rows.chunks_exact_mut(cols.max(1))) {
                input.token(level, token, cols).compute(level, 0..cols, row);
            }
        });
    }

    /// The rows of tokens `first..last` of what [`ProductWorkspace::compute`] computed.
    pub(crate) fn rows(&self, first: usize, last: usize, cols: usize) -> &[f32] {
        &self.rows[first * cols..last * cols]
    }
}

/// Rounds the values of token `token` of a group, with room in `stretch` to compute them.
fn quantize_token(
    level: Level,
    input: &TokenInput,
    cols: usize,
    token: usize,
    stretch: &mut [f32; STRETCH],
    places: &mut Places,
) {
    for first in (0..cols).step_by(STRETCH) {
        let columns = first..cols.min(first + STRETCH);
        let whole = columns.len().next_multiple_of(BLOCK);
        let values = match input {
            TokenInput::Plain(x) if whole == columns.len() => &x[columns],
            _ => {
                let (values, padding) = stretch[..whole].split_at_mut(columns.len());
                input.compute(level, columns, values);
                padding.fill(0.0);
                &stretch[..whole]
            }
        };
        quantize_blocks(level, values, first / BLOCK, token, places);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;

    #[test]
    fn inputs_are_what_the_operations_give() {
        let (tokens, cols) = (3, 45);
        let wave =
            |len: usize, speed: f32| (0..len).map(|i| (i as f32 * speed).sin() * 3.0).collect::<Vec<f32>>();
        let (x, pair) = (wave(tokens * cols, 0.37), wave(2 * tokens * cols, 0.53));
        let (weight, bias) = (wave(cols, 0.11), wave(cols, 0.77));
        let pool = ThreadPool::new(2);
        for &level in Level::available() {
            let mut workspace = ProductWorkspace::with_level(level);
            let mut check = |input: Input, expected: &dyn Fn(usize, &mut [f32])| {
                input.check(tokens, cols);
                workspace.compute(&pool, &input, tokens, cols);
                workspace.quantize(&pool, &input, tokens, cols, Activations::Bits16);
                let group = workspace.group(0, tokens, cols, Activations::Bits16);
                for token in 0..tokens {
                    let mut want = vec![0.0; cols];
                    expected(token, &mut want);
                    for (c, want) in want.iter().enumerate() {
                        let got = workspace.rows(token, token + 1, cols)[c];
                        assert!((got - want).abs() < 1e-5, "{level:?} {input:?}: {got} is not {want}");
                        let place = c / BLOCK * tokens + token;
                        let quants = quantize::whole(level, &group.quants[2 * place * BLOCK..][..2 * BLOCK]);
                        let (quant, scale) = (quants[c % BLOCK] as f32, group.scales[place]);
                        assert!((quant * scale - want).abs() <= 0.5001 * scale + 1e-5);
                    }
                }
            };
            let row = |token: usize| &x[token * cols..][..cols];
            check(Input::Plain(&x), &|t, out| out.copy_from_slice(row(t)));
            check(Input::RmsNorm { x: &x, weight: &weight, eps: 1e-5 }, &|t, out| {
                ops::rms_norm(row(t), &weight, 1e-5, out);
            });
            check(Input::LayerNorm { x: &x, weight: &weight, bias: &bias, eps: 1e-5 }, &|t, out| {
                ops::layer_norm(row(t), &weight, &bias, 1e-5, out);
            });
            check(Input::SiluMul(&pair), &|t, out| {
                let (gate, up) = pair[t * 2 * cols..][..2 * cols].split_at(cols);
                ops::silu_mul(gate, up, out);
            });
            check(Input::GeluMul(&pair), &|t, out| {
                let (gate, up) = pair[t * 2 * cols..][..2 * cols].split_at(cols);
                ops::gelu_mul(gate, up, out);
            });
            check(Input::Gelu(&x), &|t, out| {
                out.copy_from_slice(row(t));
                ops::gelu(out);
            });
        }
    }
}
