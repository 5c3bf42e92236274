//! The inputs of a product: normed or activated, then quantized to 8 bits in blocks of 32, on the fly.

use crate::buffer::{AlignedBuffer, Disjoint};
use crate::cpu::{self, Level, per_level};
use crate::matrix::tile::BLOCK;
use crate::{ThreadPool, ops};

/// Tokens whose activations lie interleaved: `[group][block][token][32]`, so that a micro-kernel over the tokens of a
/// group reads from one place. The last group may have fewer.
pub(crate) const GROUP: usize = 8;

/// What a product multiplies the weights with, computed while it is read. All are `[token][cols]` unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The values themselves.
    Plain(&'a [f32]),
    /// [`ops::rms_norm`] of each token.
    RmsNorm {
        /// Values to norm.
        x: &'a [f32],
        /// `[cols]`
        weight: &'a [f32],
        /// Added to the mean square.
        eps: f32,
    },
    /// [`ops::layer_norm`] of each token.
    LayerNorm {
        /// Values to norm.
        x: &'a [f32],
        /// `[cols]`
        weight: &'a [f32],
        /// `[cols]`
        bias: &'a [f32],
        /// Added to the variance.
        eps: f32,
    },
    /// silu(gate) · up of `[token][gate, up][cols]`, the output of stacked gate and up matrices.
    SiluMul(&'a [f32]),
    /// [`ops::gelu`] of each value.
    Gelu(&'a [f32]),
}

impl Input<'_> {
    /// Panics unless the slices fit `tokens` × `cols`.
    pub(crate) fn check(&self, tokens: usize, cols: usize) {
        let (x, width) = match *self {
            Input::Plain(x) | Input::Gelu(x) => (x, cols),
            Input::SiluMul(x) => (x, 2 * cols),
            Input::RmsNorm { x, weight, .. } => {
                assert_eq!(weight.len(), cols, "a norm has a weight for each column");
                (x, cols)
            }
            Input::LayerNorm { x, weight, bias, .. } => {
                assert!(
                    weight.len() == cols && bias.len() == cols,
                    "a norm has a weight and a bias for each column"
                );
                (x, cols)
            }
        };
        assert_eq!(x.len(), tokens * width, "the input of a product is [{tokens} tokens][{width} values]");
    }

    /// Hands the 32 values of each block of a token to `sink`, zeros beyond the last column.
    #[inline(always)]
    fn each_block(&self, token: usize, cols: usize, mut sink: impl FnMut(usize, &[f32; BLOCK])) {
        let blocks = 0..cols.div_ceil(BLOCK);
        match *self {
            Input::Plain(x) => {
                let x = &x[token * cols..][..cols];
                blocks.for_each(|b| sink(b, &block(x, b)));
            }
            Input::RmsNorm { x, weight, eps } => {
                let x = &x[token * cols..][..cols];
                let scale = ops::inverse_root_mean_square(x, eps);
                blocks.for_each(|b| {
                    let (x, w) = (block(x, b), block(weight, b));
                    sink(b, &std::array::from_fn(|i| x[i] * scale * w[i]));
                });
            }
            Input::LayerNorm { x, weight, bias, eps } => {
                let x = &x[token * cols..][..cols];
                let (mean, scale) = ops::mean_and_inverse_deviation(x, eps);
                blocks.for_each(|b| {
                    let (x, w, bias) = (block(x, b), block(weight, b), block(bias, b));
                    // Beyond the last column weight and bias are zero, and with them the result.
                    sink(b, &std::array::from_fn(|i| (x[i] - mean) * scale * w[i] + bias[i]));
                });
            }
            Input::SiluMul(x) => {
                let (gate, up) = x[token * 2 * cols..][..2 * cols].split_at(cols);
                blocks.for_each(|b| {
                    let (gate, up) = (block(gate, b), block(up, b));
                    sink(b, &std::array::from_fn(|i| ops::silu_lanes(gate[i]) * up[i]));
                });
            }
            Input::Gelu(x) => {
                let x = &x[token * cols..][..cols];
                blocks.for_each(|b| {
                    let x = block(x, b);
                    sink(b, &std::array::from_fn(|i| ops::gelu_lanes(x[i])));
                });
            }
        }
    }
}

/// Block `index` of a row, zeros beyond its end.
#[inline(always)]
fn block(row: &[f32], index: usize) -> [f32; BLOCK] {
    let rest = &row[index * BLOCK..];
    match rest.first_chunk::<BLOCK>() {
        Some(block) => *block,
        None => {
            let mut block = [0.0; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            block
        }
    }
}

/// Scratch memory of products, reused from one to the next.
pub struct Workspace {
    level: Level,
    /// `[group][block][token][32]`
    quants: AlignedBuffer<i8>,
    /// `[group][block][token]`, as the next two.
    scales: AlignedBuffer<f32>,
    /// Scale times the sum of the block's quants.
    scaled_sums: AlignedBuffer<f32>,
    /// Minus the sum of the block's quants.
    negative_sums: AlignedBuffer<i32>,
    /// `[token][cols]`, for matrices of floats.
    rows: AlignedBuffer<f32>,
}

/// The quantized activations of one group of tokens: `[block][token]`, 32 quants each.
///
/// x ≈ scale · quant with quants from −127 to 127.
#[derive(Clone, Copy)]
pub(crate) struct Group<'a> {
    pub(crate) tokens: usize,
    pub(crate) quants: &'a [i8],
    pub(crate) scales: &'a [f32],
    pub(crate) scaled_sums: &'a [f32],
    pub(crate) negative_sums: &'a [i32],
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

impl Workspace {
    /// An empty workspace for products at the level [in use](cpu::level).
    pub fn new() -> Self {
        Self::with_level(cpu::level())
    }

    /// An empty workspace for products at `level`, or the widest below it that this machine runs.
    pub fn with_level(level: Level) -> Self {
        Workspace {
            level: level.clamp(),
            quants: AlignedBuffer::zeroed(0),
            scales: AlignedBuffer::zeroed(0),
            scaled_sums: AlignedBuffer::zeroed(0),
            negative_sums: AlignedBuffer::zeroed(0),
            rows: AlignedBuffer::zeroed(0),
        }
    }

    /// The level that products with this workspace run at.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let integers = self.quants.bytes() + self.negative_sums.bytes();
        integers + self.scales.bytes() + self.scaled_sums.bytes() + self.rows.bytes()
    }

    /// Computes `input` for all tokens into 8-bit blocks.
    pub(crate) fn quantize(&mut self, pool: &ThreadPool, input: &Input, tokens: usize, cols: usize) {
        let blocks = cols.div_ceil(BLOCK);
        self.quants.reserve(tokens * blocks * BLOCK);
        self.scales.reserve(tokens * blocks);
        self.scaled_sums.reserve(tokens * blocks);
        self.negative_sums.reserve(tokens * blocks);
        let quants = Disjoint::new(&mut self.quants);
        let scales = Disjoint::new(&mut self.scales);
        let scaled_sums = Disjoint::new(&mut self.scaled_sums);
        let negative_sums = Disjoint::new(&mut self.negative_sums);
        let level = self.level;
        pool.run_ranges(tokens, GROUP, &|group| {
            let places = group.start * blocks..group.end * blocks;
            // SAFETY: groups do not overlap, and each is run once.
            let (quants, scales, scaled_sums, negative_sums) = unsafe {
                (
                    quants.part(places.start * BLOCK..places.end * BLOCK),
                    scales.part(places.clone()),
                    scaled_sums.part(places.clone()),
                    negative_sums.part(places),
                )
            };
            quantize_group(
                level,
                input,
                cols,
                group.start,
                group.len(),
                quants,
                scales,
                scaled_sums,
                negative_sums,
            );
        });
    }

    /// Group `index` of what [`Workspace::quantize`] computed for `tokens` tokens.
    pub(crate) fn group(&self, index: usize, tokens: usize, cols: usize) -> Group<'_> {
        let blocks = cols.div_ceil(BLOCK);
        let (first, last) = (index * GROUP, tokens.min((index + 1) * GROUP));
        let places = first * blocks..last * blocks;
        Group {
            tokens: last - first,
            quants: &self.quants[places.start * BLOCK..places.end * BLOCK],
            scales: &self.scales[places.clone()],
            scaled_sums: &self.scaled_sums[places.clone()],
            negative_sums: &self.negative_sums[places],
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
            compute_rows(level, input, cols, group.start, rows);
        });
    }

    /// The rows of tokens `first..last` of what [`Workspace::compute`] computed.
    pub(crate) fn rows(&self, first: usize, last: usize, cols: usize) -> &[f32] {
        &self.rows[first * cols..last * cols]
    }
}

per_level! {
    fn quantize_group(
        input: &Input,
        cols: usize,
        first: usize,
        tokens: usize,
        quants: &mut [i8],
        scales: &mut [f32],
        scaled_sums: &mut [f32],
        negative_sums: &mut [i32],
    ) {
        for token in 0..tokens {
            input.each_block(first + token, cols, |b, values| {
                let place = b * tokens + token;
                let quants = quants[place * BLOCK..].first_chunk_mut().expect("one block of quants a place");
                let (scale, sum) = quantize_block(values, quants);
                scales[place] = scale;
                scaled_sums[place] = scale * sum as f32;
                negative_sums[place] = -sum;
            });
        }
    }
}

per_level! {
    fn compute_rows(input: &Input, cols: usize, first: usize, rows: &mut [f32]) {
        for (token, row) in rows.chunks_exact_mut(cols.max(1)).enumerate() {
            input.each_block(first + token, cols, |b, values| {
                let row = &mut row[b * BLOCK..];
                match row.first_chunk_mut::<BLOCK>() {
                    Some(row) => *row = *values,
                    None => row.copy_from_slice(&values[..row.len()]),
                }
            });
        }
    }
}

/// Rounds a block to 8 bits; returns the scale max|x|/127 and the sum of the quants. NaN makes the scale NaN.
#[inline(always)]
pub(crate) fn quantize_block(values: &[f32; BLOCK], quants: &mut [i8; BLOCK]) -> (f32, i32) {
    /// Adding 1.5·2²³ rounds to the nearest integer, ties to even, and leaves it in the low bits.
    const TO_INTEGER: f32 = 12_582_912.0;
    // As integers, absolute values of floats keep their order and put NaN above all.
    let largest = values.iter().fold(0, |a: u32, x| a.max(x.to_bits() & 0x7fff_ffff));
    let scale = f32::from_bits(largest) / 127.0;
    // Below the smallest normal number the inverse would overflow.
    let (scale, inverse) = if scale < f32::MIN_POSITIVE { (0.0, 0.0) } else { (scale, 1.0 / scale) };
    let mut sum = 0_i32;
    for (q, x) in quants.iter_mut().zip(values) {
        *q = (x * inverse + TO_INTEGER).to_bits() as i8;
        sum += i32::from(*q);
    }
    (scale, sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_block_is_rounded_to_nearest(values in prop::array::uniform32(-1e3_f32..1e3), exponent in -36..30_i32) {
            let values = values.map(|v| v * 10.0_f32.powi(exponent));
            let mut quants = [0; BLOCK];
            let (scale, sum) = quantize_block(&values, &mut quants);
            prop_assert_eq!(sum, quants.iter().map(|q| i32::from(*q)).sum::<i32>());
            let largest = values.iter().fold(0.0_f32, |a, v| a.max(v.abs()));
            for (q, v) in quants.iter().zip(values) {
                prop_assert!(q.unsigned_abs() <= 127);
                let error = (f32::from(*q) * scale - v).abs();
                prop_assert!(error <= 0.501 * largest / 127.0 + 127.0 * f32::MIN_POSITIVE, "{v} became {q} · {scale}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_not_hidden() {
        let mut quants = [0; BLOCK];
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0; BLOCK];
            values[17] = bad;
            assert!(!quantize_block(&values, &mut quants).0.is_finite());
        }
        assert_eq!(quantize_block(&[0.0; BLOCK], &mut quants), (0.0, 0));
    }

    #[test]
    fn inputs_are_what_the_operations_give() {
        let (tokens, cols) = (3, 45);
        let wave =
            |len: usize, speed: f32| (0..len).map(|i| (i as f32 * speed).sin() * 3.0).collect::<Vec<f32>>();
        let (x, pair) = (wave(tokens * cols, 0.37), wave(2 * tokens * cols, 0.53));
        let (weight, bias) = (wave(cols, 0.11), wave(cols, 0.77));
        let pool = ThreadPool::new(2);
        for &level in Level::available() {
            let mut workspace = Workspace::with_level(level);
            let mut check = |input: Input, expected: &dyn Fn(usize, &mut [f32])| {
                input.check(tokens, cols);
                workspace.compute(&pool, &input, tokens, cols);
                workspace.quantize(&pool, &input, tokens, cols);
                let group = workspace.group(0, tokens, cols);
                for token in 0..tokens {
                    let mut want = vec![0.0; cols];
                    expected(token, &mut want);
                    for (c, want) in want.iter().enumerate() {
                        let got = workspace.rows(token, token + 1, cols)[c];
                        assert!((got - want).abs() < 1e-5, "{level:?} {input:?}: {got} is not {want}");
                        let place = c / BLOCK * tokens + token;
                        let scale = group.scales[place];
                        let quantized = scale * f32::from(group.quants[place * BLOCK + c % BLOCK]);
                        assert!((quantized - want).abs() <= 0.5001 * scale + 1e-5);
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
            check(Input::Gelu(&x), &|t, out| {
                out.copy_from_slice(row(t));
                ops::gelu(out);
            });
        }
    }
}
