//! Products of weight matrices with the activations of one or many tokens.
//!
//! One kernel call multiplies one tile (16 rows) with one group of up to eight tokens over all columns, sums in registers.
//! Work is split over tiles only, and every sum is taken in column order, so that a result depends neither on the number of
//! threads nor on how many tokens share the call.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86_256;

use crate::activations::{GROUP, Group, Input, ProductWorkspace};
use crate::buffer::Disjoint;
use crate::cpu::Level;
use crate::matrix::Segment;
use crate::matrix::tile::{BLOCK, IntegerFormat, LANES, TileFormat};
use crate::{Matrix, ThreadPool};
use std::ops::Range;

/// Bytes of activations that are kept in a core's second-level cache while the tiles stream by.
const PANEL_BYTES: usize = 512 << 10;
/// Tasks for each thread in one parallel region: enough to even out a core that is interrupted.
const TASKS_PER_THREAD: usize = 6;

/// Columns whose products with floats are added up before they join the total: rounding grows with the length of a sum.
const RUN: usize = 64;

/// Where a product puts its result, `[token][rows]`.
#[derive(Debug)]
pub enum Output<'a> {
    /// Overwrites.
    Store(&'a mut [f32]),
    /// Adds, as to a residual stream.
    AddTo(&'a mut [f32]),
}

/// The result of one kernel call, `[token][lane]`.
#[repr(align(64))]
pub(crate) struct Sums([f32; GROUP * LANES]);

/// Multiplies an integer tile with quantized activations.
///
/// # Safety
/// The machine runs the kernel's level; the tile has as many blocks as the group, and its format is that which the kernel was
/// chosen for.
type IntegerKernel = unsafe fn(tile: &[u8], x: &Group, sums: &mut Sums);

/// Multiplies a float tile with rows `[token][cols]`.
///
/// # Safety
/// As [`IntegerKernel`], with the number of tokens that the kernel was chosen for.
type FloatKernel = unsafe fn(tile: &[u8], x: &[f32], sums: &mut Sums);

impl Matrix {
    /// `y[token][row] = Σ_col weight[row][col] · x[token][col]`.
    ///
    /// Matrices of integers multiply with `x` rounded as their [`Activations`](crate::Activations) say, those of floats in
    /// `f32`.
    ///
    /// # Panics
    /// When `x` is not `[tokens][cols]` or `y` not `[tokens][rows]`.
    pub fn product(
        &self,
        pool: &ThreadPool,
        x: &[f32],
        tokens: usize,
        y: &mut [f32],
        workspace: &mut ProductWorkspace,
    ) {
        self.apply(pool, Input::Plain(x), tokens, None, Output::Store(y), workspace);
    }

    /// [`Matrix::product`] of an input that is computed on the way, with an optional bias `[rows]`, stored or added.
    ///
    /// One parallel region for up to eight tokens, two or more for larger batches.
    ///
    /// # Panics
    /// When a slice does not have its length.
    pub fn apply(
        &self,
        pool: &ThreadPool,
        input: Input,
        tokens: usize,
        bias: Option<&[f32]>,
        output: Output,
        workspace: &mut ProductWorkspace,
    ) {
        input.check(tokens, self.cols());
        let (y, add) = match output {
            Output::Store(y) => (y, false),
            Output::AddTo(y) => (y, true),
        };
        assert_eq!(
            y.len(),
            tokens * self.rows(),
            "the output of a product is [{tokens} tokens][{} rows]",
            self.rows()
        );
        assert!(bias.is_none_or(|b| b.len() == self.rows()), "a bias has a value for each row");
        if tokens == 0 {
            return;
        }
        if self.segments().iter().any(|s| s.format.is_integer()) {
            workspace.quantize(pool, &input, tokens, self.cols(), self.activations());
            let integers = self.segments().iter().filter(|s| s.format.is_integer());
            workspace.count(integers.map(|s| s.rows).sum(), self.cols(), tokens, self.activations());
        }
        if self.segments().iter().any(|s| !s.format.is_integer()) {
            workspace.compute(pool, &input, tokens, self.cols());
        }
        let product = Product { matrix: self, tokens, bias, y: Disjoint::new(y), add, workspace };
        product.run(pool);
    }
}

/// One product on its way.
struct Product<'a> {
    matrix: &'a Matrix,
    tokens: usize,
    bias: Option<&'a [f32]>,
    y: Disjoint<'a, f32>,
    add: bool,
    workspace: &'a ProductWorkspace,
}

impl Product<'_> {
    fn run(&self, pool: &ThreadPool) {
        let row_bytes = self.matrix.activations().digits() * self.matrix.cols().max(1);
        // Whole groups, so that no panel but the last ends within one.
        let panel = (PANEL_BYTES / row_bytes / GROUP).max(1) * GROUP;
        let tiles = self.matrix.segments().iter().map(Segment::tile_count).sum::<usize>();
        let grain = tiles.div_ceil(pool.threads() * TASKS_PER_THREAD);
        for first in (0..self.tokens).step_by(panel) {
            let tokens = first..self.tokens.min(first + panel);
            pool.run_ranges(tiles, grain, &|tiles| self.tiles(tiles, tokens.clone()));
        }
    }

    /// Multiplies some tiles, counted over all segments, with a panel of tokens.
    fn tiles(&self, tiles: Range<usize>, panel: Range<usize>) {
        let mut sums = Sums([0.0; GROUP * LANES]);
        let mut before = 0;
        for segment in self.matrix.segments() {
            let count = segment.tile_count();
            let within = |tile: usize| tile.clamp(before, before + count) - before;
            for index in within(tiles.start)..within(tiles.end) {
                self.tile(segment, index, panel.clone(), &mut sums);
            }
            before += count;
        }
    }

    /// Multiplies one tile with a panel of tokens; it stays in the first-level cache for all of them.
    fn tile(&self, segment: &Segment, index: usize, panel: Range<usize>, sums: &mut Sums) {
        let (level, cols, activations) =
            (self.workspace.level(), self.matrix.cols(), self.matrix.activations());
        let tile = segment.tile(index);
        for first in panel.clone().step_by(GROUP) {
            let tokens = first..panel.end.min(first + GROUP);
            if let TileFormat::Integers(format) = segment.format {
                let x = self.workspace.group(first / GROUP, self.tokens, cols, activations);
                debug_assert_eq!(x.quants.len(), x.tokens * x.digits * format.blocks(tile.len()) * BLOCK);
                // SAFETY: the kernel was chosen for this format, at a level the workspace has checked; tile and activations have the same number of blocks.
                unsafe { integer_kernel(level, format)(tile, &x, sums) };
            } else {
                let x = self.workspace.rows(tokens.start, tokens.end, cols);
                // SAFETY: as above.
                unsafe { float_kernel(level, segment.format, tokens.len())(tile, x, sums) };
            }
            self.finish(segment, index, tokens, sums);
        }
    }

    /// Adds the bias to the sums of a tile and puts them in their place.
    #[inline]
    fn finish(&self, segment: &Segment, tile: usize, tokens: Range<usize>, sums: &Sums) {
        let first = segment.first_row + tile * LANES;
        let rows = first..first + LANES.min(segment.rows - tile * LANES);
        let bias = self.bias.map(|bias| &bias[rows.clone()]);
        for (token, sums) in tokens.zip(sums.0.chunks_exact(LANES)) {
            let offset = token * self.matrix.rows();
            // SAFETY: each tile is run once for each group, and writes its own rows of its own tokens.
            let y = unsafe { self.y.part(offset + rows.start..offset + rows.end) };
            match <&mut [f32; LANES]>::try_from(&mut *y) {
                // So many values are a register, not a loop.
                Ok(y) => put(self.add, bias, sums, y),
                Err(_) => put(self.add, bias, &sums[..y.len()], y),
            }
        }
    }
}

/// Puts `sums` and `bias` in the place of `y`, or adds them to it.
#[inline(always)]
fn put(add: bool, bias: Option<&[f32]>, sums: &[f32], y: &mut [f32]) {
    match (add, bias) {
        (false, None) => y.copy_from_slice(sums),
        (false, Some(bias)) => y.iter_mut().zip(sums).zip(bias).for_each(|((y, s), b)| *y = s + b),
        (true, None) => y.iter_mut().zip(sums).for_each(|(y, s)| *y += s),
        (true, Some(bias)) => y.iter_mut().zip(sums).zip(bias).for_each(|((y, s), b)| *y += s + b),
    }
}

fn integer_kernel(level: Level, format: IntegerFormat) -> IntegerKernel {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::integer_kernel(format),
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => x86_256::avx_vnni::integer_kernel(format),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => x86_256::avx2::integer_kernel(format),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => neon::dotprod::integer_kernel(format),
        #[cfg(target_arch = "aarch64")]
        Level::I8mm => neon::i8mm::integer_kernel(format),
        _ => scalar::integer_kernel(format),
    }
}

fn float_kernel(level: Level, format: TileFormat, tokens: usize) -> FloatKernel {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::float_kernel(format, tokens),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::AvxVnni => x86_256::float_kernel(format, tokens),
        #[cfg(target_arch = "aarch64")]
        Level::Neon | Level::I8mm => neon::float_kernel(format, tokens),
        _ => scalar::float_kernel(format),
    }
}

/// The instance of a kernel, generic over its layout, that `for_layout!` asks for.
macro_rules! instance {
    ($layout:ty, $kernel:ident) => {
        $kernel::<$layout>
    };
}
pub(crate) use instance;

/// Chooses the instance of a kernel, generic over its number of tokens, for a number known at run time.
#[allow(unused_macros, reason = "used by the levels of this architecture")]
macro_rules! for_tokens {
    ($tokens:expr, $kernel:ident $(, $parameter:tt)*) => {
        match $tokens {
            1 => $kernel::<1 $(, $parameter)*>,
            2 => $kernel::<2 $(, $parameter)*>,
            3 => $kernel::<3 $(, $parameter)*>,
            4 => $kernel::<4 $(, $parameter)*>,
            5 => $kernel::<5 $(, $parameter)*>,
            6 => $kernel::<6 $(, $parameter)*>,
            7 => $kernel::<7 $(, $parameter)*>,
            _ => $kernel::<8 $(, $parameter)*>,
        }
    };
}
#[allow(unused_imports, reason = "as above")]
pub(crate) use for_tokens;
