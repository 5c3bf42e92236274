//! Scores of a group of queries against the keys of a page, and keys decoded for dense products.

use super::check_rows;
use super::floats::{Float, decode_floats, for_each_float};
use super::graded;
use super::layout::{
    BLOCK, Codes, Encoding, Grid, Levels, MAX_DIM, STRIP, ScaleGroup, Side, StripLayout, nearest,
};
use super::packed::{self, ByteLevels, fetch_group, fetch_lines, for_each_kind};
use super::simd::{Cache, Multipliers, Simd};
use super::strips::Stream;
use crate::Scale;
use crate::cpu::Level;

/// Queries of one KV head made ready for [`key_scores`]: plain, and as int8 in blocks of 32 dimensions.
#[derive(Debug, Clone, Default)]
pub struct Queries {
    count: usize,
    dim: usize,
    /// `[query][dim]`
    plain: Vec<f32>,
    /// `[query][dim / 16]`
    packed: Vec<Multipliers>,
    /// `[query][dim / 32]`
    scale: Vec<f32>,
    /// `[query][dim / 32]`: sum of the signed bytes
    sum: Vec<i32>,
}

impl Queries {
    /// Takes `count` queries `[count][dim]`, to which the scale 1/√head_dim is already applied.
    ///
    /// # Panics
    /// When `dim` is not that of a strip, a multiple of 32, or there are no whole queries.
    pub fn set(&mut self, plain: &[f32], dim: usize) {
        assert!(
            dim > 0 && dim.is_multiple_of(BLOCK),
            "queries of {dim} dimensions: a strip has whole blocks of 32"
        );
        assert!(
            plain.len().is_multiple_of(dim),
            "{} numbers are no queries of {dim} dimensions",
            plain.len()
        );
        (self.count, self.dim) = (plain.len() / dim, dim);
        self.plain.clear();
        self.plain.extend_from_slice(plain);
        self.packed.resize(plain.len() / LANES, Multipliers::default());
        self.scale.resize(plain.len() / BLOCK, 0.0);
        self.sum.resize(plain.len() / BLOCK, 0);
        quantize(&self.plain, &mut self.packed, &mut self.scale, &mut self.sum);
    }

    /// Number of queries.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Heap bytes.
    pub fn bytes(&self) -> usize {
        (self.plain.capacity() + self.scale.capacity()) * size_of::<f32>()
            + self.packed.capacity() * size_of::<Multipliers>()
            + self.sum.capacity() * size_of::<i32>()
    }

    /// The queries as given, `[count][dim]`.
    pub fn plain(&self) -> &[f32] {
        &self.plain
    }
}

/// Lanes of sums and maxima that a compiler is to keep in one register.
pub(super) const LANES: usize = 16;

/// The largest magnitude of a block. As integers, magnitudes keep their order and put NaN above all, so that it is seen.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let mut lanes = [0u32; LANES];
    for x in x.chunks_exact(LANES) {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane = x.abs().to_bits().max(*lane);
        }
    }
    f32::from_bits(lanes.into_iter().fold(0, u32::max))
}

/// x ≈ scale · q, blocks of 32, |q| ≤ 127.
#[inline(always)]
fn quantize(x: &[f32], packed: &mut [Multipliers], scale: &mut [f32], sum: &mut [i32]) {
    for (block, x) in x.chunks_exact(BLOCK).enumerate() {
        let unit = Scale::new(largest(x), 127.0);
        let mut total = 0;
        for (packed, x) in packed[block * BLOCK / LANES..].iter_mut().zip(x.as_chunks::<LANES>().0) {
            let q = x.map(|x| nearest(x * unit.inverse) as i8);
            total += q.iter().map(|&q| q as i32).sum::<i32>();
            *packed = Multipliers::new(q);
        }
        scale[block] = unit.scale;
        sum[block] = total;
    }
}

/// `out[query · stride + slot] = query · key(slot)` for the slots of consecutive strips.
///
/// Codes are multiplied as integers: the queries are rounded to int8 in blocks of 32 dimensions (relative error about
/// 0.4 % of the largest component), and tables to 8 bits. `grid` is needed for per-channel and graded codes.
///
/// # Panics
/// When `strips` is not a whole number of strips of keys, queries are of another width, or `out` is too short; when
/// per-channel or graded codes come without their grid.
pub fn key_scores(
    level: Level,
    layout: &StripLayout,
    grid: Option<Grid<'_>>,
    queries: &Queries,
    strips: Stream<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let count = layout.count(Side::Keys, strips.strips);
    assert!(queries.count == 0 || queries.dim == layout.dim(), "queries and keys differ in width");
    check_rows("scores", out.len(), queries.count, stride, count * STRIP);
    if let Encoding::Graded { .. } = layout.encoding() {
        return graded::scores(level, layout, grid, queries, strips, out, stride);
    }
    // SAFETY: the level was detected on this CPU, and the sizes are checked above.
    for_level!(level, |S| key_scores_of::<S>(layout, grid, queries, strips, out, stride))
}

/// Nothing here is worth an instruction set; what is runs in [`Simd::run`].
///
/// # Safety
/// As [`Simd`]; sizes are as [`key_scores`] checks them.
unsafe fn key_scores_of<S: Simd>(
    layout: &StripLayout,
    grid: Option<Grid<'_>>,
    queries: &Queries,
    strips: Stream<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let (dim, words, blocks) = (layout.dim(), layout.dim() / LANES, layout.dim() / BLOCK);
    for first in (0..queries.count).step_by(S::QUERIES) {
        let (count, out) = (queries.count - first, &mut out[first * stride..]);
        let plain = &queries.plain[first * dim..];
        let mut folded;
        // SAFETY: the caller's.
        unsafe {
            for_each_float!(
                layout.encoding(),
                |E| for_queries!(S, count, |G| S::run(
                    #[inline(always)]
                    || float_scores::<S, G, E>(layout, plain, strips, out, stride)
                )),
                |codes| {
                    let prepared = if codes.group == ScaleGroup::Channel {
                        let grid = grid.expect("per-channel codes need their grid");
                        let plain = &plain[..count.min(S::QUERIES) * dim];
                        folded = Folded::default();
                        S::run(
                            #[inline(always)]
                            || folded.set(dim, grid, plain),
                        );
                        folded.prepared()
                    } else {
                        Prepared {
                            packed: &queries.packed[first * words..],
                            scale: &queries.scale[first * blocks..],
                            sum: &queries.sum[first * blocks..],
                            constant: [0.0; MAX_QUERIES],
                        }
                    };
                    for_each_kind!(codes, |BITS, TABLE| for_queries!(S, count, |G| S::run(
                        #[inline(always)]
                        || code_scores::<S, G, BITS, TABLE>(layout, &codes, &prepared, strips, out, stride)
                    )))
                }
            )
        }
    }
}

/// The most queries that any instruction set serves at once.
pub(super) const MAX_QUERIES: usize = 4;

/// Queries with the scales of a grid folded into them: q·(z + s∘l) = q·z + (q∘s)·l.
struct Folded {
    packed: [Multipliers; MAX_QUERIES * MAX_DIM / LANES],
    scale: [f32; MAX_QUERIES * MAX_DIM / BLOCK],
    sum: [i32; MAX_QUERIES * MAX_DIM / BLOCK],
    constant: [f32; MAX_QUERIES],
}

impl Default for Folded {
    fn default() -> Self {
        Folded {
            packed: [Multipliers::default(); MAX_QUERIES * MAX_DIM / LANES],
            scale: [0.0; MAX_QUERIES * MAX_DIM / BLOCK],
            sum: [0; MAX_QUERIES * MAX_DIM / BLOCK],
            constant: [0.0; MAX_QUERIES],
        }
    }
}

impl Folded {
    #[inline(always)]
    fn set(&mut self, dim: usize, grid: Grid<'_>, queries: &[f32]) {
        let (words, blocks) = (dim / LANES, dim / BLOCK);
        let mut folded = [0.0f32; MAX_DIM];
        for (g, q) in queries.chunks_exact(dim).enumerate() {
            let mut lanes = [0.0f32; LANES];
            for first in (0..dim).step_by(LANES) {
                for (lane, sum) in lanes.iter_mut().enumerate() {
                    let i = first + lane;
                    folded[i] = q[i] * grid.scale[i];
                    *sum += q[i] * grid.zero[i];
                }
            }
            self.constant[g] = lanes.iter().sum();
            quantize(
                &folded[..dim],
                &mut self.packed[g * words..],
                &mut self.scale[g * blocks..],
                &mut self.sum[g * blocks..],
            );
        }
    }

    fn prepared(&self) -> Prepared<'_> {
        Prepared { packed: &self.packed, scale: &self.scale, sum: &self.sum, constant: self.constant }
    }
}

/// One strip at a time, which memory likes best: even and odd dimensions are summed apart, so that there are enough
/// independent sums to hide the latency of the multiply-add.
#[inline(always)]
unsafe fn float_scores<S: Simd, const G: usize, E: Float>(
    layout: &StripLayout,
    queries: &[f32],
    strips: Stream<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let (dim, bytes) = (layout.dim(), layout.strip_bytes());
    let q = queries.as_ptr();
    for (index, (strip, ahead)) in strips.each(bytes).enumerate() {
        // SAFETY: strips, queries and out are as long as `key_scores` checked; `dim` is even.
        unsafe {
            let mut sums = [[S::splat(0.0); 2]; G];
            for i in (0..dim).step_by(2) {
                fetch_lines(ahead.wrapping_add(i * STRIP * E::BYTES), 2 * STRIP * E::BYTES, Cache::Second);
                let even = E::load::<S>(strip.as_ptr(), i * STRIP);
                let odd = E::load::<S>(strip.as_ptr(), (i + 1) * STRIP);
                for (g, sums) in sums.iter_mut().enumerate() {
                    sums[0] = S::fma(even, S::splat(*q.add(g * dim + i)), sums[0]);
                    sums[1] = S::fma(odd, S::splat(*q.add(g * dim + i + 1)), sums[1]);
                }
            }
            for (g, sums) in sums.iter().enumerate() {
                S::store(out.as_mut_ptr().add(g * stride + index * STRIP), S::add(sums[0], sums[1]));
            }
        }
    }
}

/// Queries as integers; see [`Queries`]. `constant` is added to every score of a query.
struct Prepared<'a> {
    packed: &'a [Multipliers],
    scale: &'a [f32],
    sum: &'a [i32],
    constant: [f32; MAX_QUERIES],
}

/// Scales of 1 in f16, of codes whose scales are the grid's.
const ONES: [u16; STRIP] = [0x3c00; STRIP];

/// Blocks of the widest head.
pub(super) const MAX_BLOCKS: usize = MAX_DIM / BLOCK;

#[inline(always)]
unsafe fn code_scores<S: Simd, const G: usize, const BITS: u32, const TABLE: bool>(
    layout: &StripLayout,
    codes: &Codes,
    queries: &Prepared<'_>,
    strips: Stream<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let (dim, bytes) = (layout.dim(), layout.strip_bytes());
    let (words, blocks, code_bytes) = (dim / LANES, dim / BLOCK, layout.code_bytes());
    let levels = ByteLevels::new(codes);
    // Per query and block: what a unit of the product is worth, and the share of the levels' offset in it.
    let mut unit = [[0.0f32; MAX_BLOCKS]; G];
    let mut rest = [[0i32; MAX_BLOCKS]; G];
    for (g, (unit, rest)) in unit.iter_mut().zip(&mut rest).enumerate() {
        for (block, (unit, rest)) in unit.iter_mut().zip(rest).enumerate().take(blocks) {
            *unit = queries.scale[g * blocks + block] * levels.unit;
            *rest = -i32::from(levels.offset) * queries.sum[g * blocks + block];
        }
    }
    let q = queries.packed.as_ptr();
    // SAFETY: strips, queries and out are as long as `key_scores` checked.
    unsafe {
        let table = S::table(&levels.table.unwrap_or_default());
        for (index, (strip, ahead)) in strips.each(bytes).enumerate() {
            let strip = strip.as_ptr();
            // Without a branch, which would part the loads of a block from its products.
            let (scales, next) = match codes.group {
                ScaleGroup::Channel => (ONES.as_ptr(), 0),
                ScaleGroup::Slot => (strip.add(code_bytes).cast(), 0),
                ScaleGroup::Block => (strip.add(code_bytes).cast(), STRIP),
            };
            fetch_lines(ahead.wrapping_add(code_bytes), bytes - code_bytes, packed::cache(BITS));
            let mut sums = [S::splat(0.0); G];
            for (sum, constant) in sums.iter_mut().zip(queries.constant) {
                *sum = S::splat(constant);
            }
            for block in 0..blocks {
                let mut products = [S::zero_i(); G];
                for (product, rest) in products.iter_mut().zip(&rest) {
                    *product = packed::begin::<S, BITS, TABLE>(rest[block % MAX_BLOCKS]);
                }
                for t in 0..BLOCK / 4 {
                    let group = block * (BLOCK / 4) + t;
                    fetch_group::<BITS>(ahead, dim, group);
                    let code = packed::load::<S, BITS, TABLE>(strip, dim, group, table);
                    for (g, product) in products.iter_mut().enumerate() {
                        let x = &*q.add(g * words + group / 4);
                        *product = packed::dot::<S, BITS, TABLE>(*product, code, x, group % 4);
                    }
                }
                let scale = S::load_f16(scales.add(block * next));
                // The scale of the query comes last: the product of the others does not leave f32.
                for (g, sum) in sums.iter_mut().enumerate() {
                    let rest = rest[g][block % MAX_BLOCKS];
                    let product = S::to_f(packed::total::<S, BITS, TABLE>(products[g], rest));
                    *sum = S::fma(S::mul(product, scale), S::splat(unit[g][block % MAX_BLOCKS]), *sum);
                }
            }
            for (g, sums) in sums.iter().enumerate() {
                S::store(out.as_mut_ptr().add(g * stride + index * STRIP), *sums);
            }
        }
    }
}

/// Decodes the keys of consecutive strips to `out`, `[strip][dim][16]`, for [`super::dense_scores`].
///
/// # Panics
/// When sizes do not fit, or per-channel or graded codes come without their grid.
pub fn decode_keys(
    level: Level,
    layout: &StripLayout,
    grid: Option<Grid<'_>>,
    strips: &[u8],
    out: &mut [f32],
) {
    let count = layout.count(Side::Keys, strips);
    check_rows("decoded keys", out.len(), 1, 0, count * layout.dim() * STRIP);
    if let Encoding::Graded { .. } = layout.encoding() {
        return graded::decode(level, layout, grid, strips, out);
    }
    // SAFETY: the level was detected on this CPU, and the sizes are checked above.
    for_level!(level, |S| decode_keys_of::<S>(layout, grid, strips, out))
}

/// As [`key_scores_of`].
///
/// # Safety
/// As [`Simd`]; sizes are as [`decode_keys`] checks them.
unsafe fn decode_keys_of<S: Simd>(
    layout: &StripLayout,
    grid: Option<Grid<'_>>,
    strips: &[u8],
    out: &mut [f32],
) {
    let (dim, bytes) = (layout.dim(), layout.strip_bytes());
    for (strip, out) in strips.chunks_exact(bytes).zip(out.chunks_exact_mut(dim * STRIP)) {
        // SAFETY: the caller's; the chunks have the sizes of the layout.
        unsafe {
            match layout.encoding() {
                Encoding::Codes(codes) => for_each_kind!(codes, |BITS, TABLE| S::run(
                    #[inline(always)]
                    || decode_key_codes::<S, BITS, TABLE>(layout, &codes, grid, strip, out)
                )),
                encoding => S::run(
                    #[inline(always)]
                    || decode_floats::<S>(encoding, strip, out),
                ),
            }
        }
    }
}

#[inline(always)]
unsafe fn decode_key_codes<S: Simd, const BITS: u32, const TABLE: bool>(
    layout: &StripLayout,
    codes: &Codes,
    grid: Option<Grid<'_>>,
    strip: &[u8],
    out: &mut [f32],
) {
    let dim = layout.dim();
    let levels = ByteLevels::new(codes);
    // SAFETY: strip and out have the sizes of the layout.
    unsafe {
        let table = S::table(&levels.table.unwrap_or_default());
        let scales = strip.as_ptr().add(layout.code_bytes()).cast::<u16>();
        let offset = S::splat(-f32::from(levels.offset));
        for t in 0..dim / 4 {
            let code = packed::load::<S, BITS, TABLE>(strip.as_ptr(), dim, t, table);
            for i in 0..4 {
                let at = 4 * t + i;
                let level = S::mul(S::add(S::byte(code, i as u32), offset), S::splat(levels.unit));
                let key = match (codes.group, grid) {
                    (ScaleGroup::Channel, Some(grid)) => {
                        S::fma(level, S::splat(grid.scale[at]), S::splat(grid.zero[at]))
                    }
                    (ScaleGroup::Channel, None) => panic!("per-channel codes need their grid"),
                    (ScaleGroup::Slot, _) => S::mul(level, S::load_f16(scales)),
                    (ScaleGroup::Block, _) => S::mul(level, S::load_f16(scales.add(at / BLOCK * STRIP))),
                };
                S::store(out.as_mut_ptr().add(at * STRIP), key);
            }
        }
    }
}
