//! aarch64 with the dot product extension: a quarter of a tile at a time, a row in each of four lanes. `sdot` multiplies
//! four bytes of each row with one word of the activations, which it picks out of a register itself.
//!
//! `sdot` takes signed bytes, so units beyond 127 are multiplied around zero, as u − 128.
//!
//! With the extension for matrices (`smmla`) two rows meet two tokens, eight columns at a time: twice the products of an
//! instruction. A token without another is multiplied by `sdot` there, too.

use super::{FloatKernel, IntegerKernel, RUN, Sums, for_tokens, instance};
use crate::aarch64::{dot_word, load_halves, multiply_matrices};
use crate::activations::Group;
use crate::blocks::power;
use crate::matrix::tile::{
    BLOCK, Codes, IntegerFormat, LANES, LINE, Layout, SHARING, Scales, TileFormat, for_layout,
};
use std::arch::aarch64::*;

/// Rows in a register.
const ROWS: usize = 4;
/// Registers in a row of a tile.
const QUARTERS: usize = LANES / ROWS;

/// Kernels of one instruction set: a module, since target features cannot be generic.
macro_rules! integer_kernels {
    ($module:ident, $features:literal, $dot:ident) => {
        pub(super) mod $module {
            use super::*;

            pub(in crate::product) fn integer_kernel(format: IntegerFormat) -> IntegerKernel {
                for_layout!(format, instance!(integers))
            }

            /// # Safety
            /// See [`IntegerKernel`].
            #[target_feature(enable = $features)]
            unsafe fn integers<L: Layout>(tile: &[u8], x: &Group, sums: &mut Sums) {
                for first in (0..x.tokens).step_by(4) {
                    for quarter in 0..QUARTERS {
                        // SAFETY: as promised to this function; there are so many rows from `first` on.
                        unsafe {
                            match x.tokens - first {
                                1 => some_tokens::<1, L>(tile, x, first, quarter, sums),
                                2 => some_tokens::<2, L>(tile, x, first, quarter, sums),
                                3 => some_tokens::<3, L>(tile, x, first, quarter, sums),
                                _ => some_tokens::<4, L>(tile, x, first, quarter, sums),
                            }
                        }
                    }
                }
            }

            /// A quarter of the tile with the group's tokens from `first` on.
            ///
            /// # Safety
            /// See [`IntegerKernel`]; the group has `TOKENS` tokens from `first` on.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn some_tokens<const TOKENS: usize, L: Layout>(
                tile: &[u8],
                x: &Group,
                first: usize,
                quarter: usize,
                sums: &mut Sums,
            ) {
                let zero = vdupq_n_f32(0.0);
                let mut shared = Factors { d: [zero; 2], m: [zero; 2] };
                let mut total = [zero; TOKENS];
                let mut at = tile.as_ptr();
                for block in 0..L::FORMAT.blocks(tile.len()) {
                    let place = block * x.tokens + first;
                    // SAFETY: `at` runs over the headers and blocks of the tile and `place` over `[block][token]`, both as long as the
                    // caller promises.
                    unsafe {
                        if L::SCALES.are_shared() && block % SHARING == 0 {
                            shared = own_factors::<L>(at, quarter);
                            at = at.add(L::SCALES.header_bytes());
                        }
                        let Factors { d, m } = match L::SCALES {
                            Scales::Own | Scales::OwnAffine => own_factors::<L>(at, quarter),
                            Scales::Power => Factors { d: [powers(at, quarter); 2], m: shared.m },
                            _ => shared.times::<L>(at, quarter),
                        };
                        let codes = at.add(L::SCALES.block_bytes() + 4 * ROWS * quarter);
                        let quants = |digit| -> [*const i8; TOKENS] {
                            std::array::from_fn(|t| {
                                x.quants.as_ptr().add(((place + t) * x.digits + digit) * BLOCK)
                            })
                        };
                        let mut dots = $dot::<TOKENS, L>(codes, quants(0));
                        if x.digits == 2 {
                            let last = $dot::<TOKENS, L>(codes, quants(1));
                            for (dot, last) in dots.as_flattened_mut().iter_mut().zip(last.as_flattened()) {
                                *dot = vaddq_s32(vshlq_n_s32::<8>(*dot), *last);
                            }
                        }
                        for (t, (total, dots)) in total.iter_mut().zip(dots).enumerate() {
                            let halves = *x.negative_halves.get_unchecked(place + t);
                            let [first, last] = [0, 1].map(|half| with_offset::<L>(dots[half], halves[half]));
                            // The scale of the activations comes last: products of the others do not leave f32.
                            let mut product;
                            if L::SCALES.parts() == 1 {
                                product = vmulq_f32(d[0], vcvtq_f32_s32(vaddq_s32(first, last)));
                                if L::SCALES.are_affine() {
                                    product = vfmaq_n_f32(product, m[0], *x.sums.get_unchecked(place + t));
                                }
                            } else {
                                product = vmulq_f32(d[0], vcvtq_f32_s32(first));
                                product = vfmaq_f32(product, d[1], vcvtq_f32_s32(last));
                                if L::SCALES.are_affine() {
                                    product = vfmaq_n_f32(product, m[0], -halves[0] as f32);
                                    product = vfmaq_n_f32(product, m[1], -halves[1] as f32);
                                }
                            }
                            *total = vfmaq_n_f32(*total, product, *x.scales.get_unchecked(place + t));
                        }
                        at = at.add(L::FORMAT.block_bytes());
                    }
                }
                for (t, total) in total.iter().enumerate() {
                    let place = &mut sums.0[(first + t) * LANES + quarter * ROWS..][..ROWS];
                    // SAFETY: the place has four values.
                    unsafe { vst1q_f32(place.as_mut_ptr(), *total) };
                }
            }
        }
    };
}

integer_kernels!(dotprod, "neon,dotprod", dot);
integer_kernels!(i8mm, "neon,dotprod,i8mm", dot_by_matrices);

pub(super) fn float_kernel(format: TileFormat, tokens: usize) -> FloatKernel {
    match format {
        TileFormat::F16 => for_tokens!(tokens, halves),
        TileFormat::BF16 => for_tokens!(tokens, brains),
        _ => for_tokens!(tokens, singles),
    }
}

/// What units are multiplied around: `sdot` takes signed bytes.
const fn centre(codes: Codes) -> u8 {
    if codes.largest_unit() > 127 { 128 } else { 0 }
}

/// Adds (centre − offset)·Σq, the offset being 0 in affine tiles.
#[inline]
#[target_feature(enable = "neon")]
fn with_offset<L: Layout>(dot: int32x4_t, negative_sum: i32) -> int32x4_t {
    let offset = if L::SCALES.are_affine() { 0 } else { 1 << L::CODES.offset_bits() };
    vaddq_s32(dot, vdupq_n_s32((offset - i32::from(centre(L::CODES))) * negative_sum))
}

/// d and m of the halves of a block, a row in each lane.
#[derive(Clone, Copy)]
struct Factors {
    d: [float32x4_t; 2],
    m: [float32x4_t; 2],
}

impl Factors {
    /// D and M times what lies before a block.
    ///
    /// # Safety
    /// The scales of a block lie at `at`.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn times<L: Layout>(self, at: *const u8, quarter: usize) -> Factors {
        let parts = L::SCALES.parts();
        let small = |index: usize| {
            let bytes = at.wrapping_add(index * LANES + ROWS * quarter).cast::<i8>();
            // SAFETY: see above.
            let values: [f32; ROWS] = std::array::from_fn(|row| f32::from(unsafe { *bytes.add(row) }));
            // SAFETY: four values lie there.
            unsafe { vld1q_f32(values.as_ptr()) }
        };
        let last = parts - 1;
        let mut factors = Factors { d: [vmulq_f32(self.d[0], small(0)); 2], ..self };
        if parts == 2 {
            factors.d[1] = vmulq_f32(self.d[0], small(1));
        }
        if L::SCALES.are_affine() {
            factors.m = [vmulq_f32(self.m[0], small(parts)), vmulq_f32(self.m[0], small(parts + last))];
        }
        factors
    }
}

/// The f16 that lie at `at`: before a block, or before the eight that share them.
///
/// # Safety
/// They lie there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn own_factors<L: Layout>(at: *const u8, quarter: usize) -> Factors {
    // SAFETY: see above.
    let halves = |kind: usize| unsafe { load_halves(at.add(2 * (LANES * kind + ROWS * quarter))) };
    let d = match L::CODES {
        Codes::Eighths => vmulq_n_f32(halves(0), L::CODES.scale_unit()),
        _ => halves(0),
    };
    let m = if L::SCALES.are_affine() { halves(1) } else { vdupq_n_f32(0.0) };
    Factors { d: [d; 2], m: [m; 2] }
}

/// 2^(e − 128) of a quarter of the bytes at `at`.
///
/// # Safety
/// Sixteen lie there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn powers(at: *const u8, quarter: usize) -> float32x4_t {
    // SAFETY: see above.
    let values: [f32; ROWS] = std::array::from_fn(|row| power(unsafe { *at.add(ROWS * quarter + row) }));
    // SAFETY: four values lie there.
    unsafe { vld1q_f32(values.as_ptr()) }
}

/// The units of columns 4j to 4j + 3 of a quarter of a tile, around the [`centre`].
///
/// # Safety
/// A block of codes begins at `codes`, lines 64 bytes apart.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load_units<L: Layout>(codes: *const u8, j: usize) -> int8x16_t {
    // SAFETY: as many lines lie there as the codes have.
    let line = |j: usize| unsafe { vld1q_u8(codes.add(LINE * j)) };
    let units = if L::CODES.are_bytes() {
        line(j)
    } else {
        let pairs = line(j % Codes::NIBBLE_LINES);
        let low =
            if j < Codes::NIBBLE_LINES { vandq_u8(pairs, vdupq_n_u8(15)) } else { vshrq_n_u8::<4>(pairs) };
        let bits = L::CODES.high_bits();
        if let Some(table) = L::CODES.table() {
            // SAFETY: the table has sixteen bytes.
            vqtbl1q_u8(unsafe { vld1q_u8(table.as_ptr()) }, low)
        } else if bits == 0 {
            low
        } else {
            let high = line(Codes::NIBBLE_LINES + j * bits / 8);
            // To bit 4 and up; a negative shift goes to the right.
            let high = vshlq_u8(high, vdupq_n_s8(4 - (j * bits % 8) as i8));
            vorrq_u8(low, vandq_u8(high, vdupq_n_u8(((1 << bits) - 1) << 4)))
        }
    };
    vreinterpretq_s8_u8(veorq_u8(units, vdupq_n_u8(centre(L::CODES))))
}

/// Dot products of the halves of a block of four rows with the blocks of some tokens.
///
/// # Safety
/// A block of codes begins at `codes`, lines 64 bytes apart, and 32 quants lie at each of `quants`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn dot<const TOKENS: usize, L: Layout>(
    codes: *const u8,
    quants: [*const i8; TOKENS],
) -> [[int32x4_t; 2]; TOKENS] {
    let mut dots = [[vdupq_n_s32(0); 2]; TOKENS];
    for half in 0..2 {
        // SAFETY: see above.
        let [l0, l1, l2, l3] = [0, 1, 2, 3].map(|j| unsafe { load_units::<L>(codes, 4 * half + j) });
        for (dot, quants) in dots.iter_mut().zip(quants) {
            // SAFETY: see above.
            let x = unsafe { vld1q_s8(quants.add(16 * half)) };
            let sum = dot_word::<1>(dot_word::<0>(dot[half], l0, x), l1, x);
            dot[half] = dot_word::<3>(dot_word::<2>(sum, l2, x), l3, x);
        }
    }
    dots
}

/// [`dot`], two tokens at a time.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn dot_by_matrices<const TOKENS: usize, L: Layout>(
    codes: *const u8,
    quants: [*const i8; TOKENS],
) -> [[int32x4_t; 2]; TOKENS] {
    let mut dots = [[vdupq_n_s32(0); 2]; TOKENS];
    let (pairs, alone) = dots.as_chunks_mut::<2>();
    for half in 0..2 {
        // SAFETY: as promised to this function.
        let lines =
            [0, 1, 2, 3].map(|j| vreinterpretq_s32_s8(unsafe { load_units::<L>(codes, 4 * half + j) }));
        // Eight columns of two rows.
        let rows = |upper: bool, late: usize| {
            let [first, last] = [lines[late], lines[late + 1]];
            vreinterpretq_s8_s32(if upper { vzip2q_s32(first, last) } else { vzip1q_s32(first, last) })
        };
        let [lower, upper] = [false, true].map(|upper| [rows(upper, 0), rows(upper, 2)]);
        for (pair, dots) in pairs.iter_mut().enumerate() {
            // SAFETY: as promised to this function.
            let [a, b] = [0, 1].map(|token| unsafe {
                vreinterpretq_s64_s8(vld1q_s8(quants[2 * pair + token].add(16 * half)))
            });
            let early = vreinterpretq_s8_s64(vzip1q_s64(a, b));
            let late = vreinterpretq_s8_s64(vzip2q_s64(a, b));
            // Two rows, of each both tokens.
            let [lower, upper] = [lower, upper].map(|[first, last]| {
                multiply_matrices(multiply_matrices(vdupq_n_s32(0), first, early), last, late)
            });
            dots[0][half] = vuzp1q_s32(lower, upper);
            dots[1][half] = vuzp2q_s32(lower, upper);
        }
    }
    if let [alone] = alone {
        // SAFETY: as promised to this function.
        [*alone] = unsafe { dot::<1, L>(codes, [quants[TOKENS - 1]]) };
    }
    dots
}

/// # Safety
/// See [`FloatKernel`].
#[target_feature(enable = "neon")]
unsafe fn singles<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 4 bytes.
    unsafe { floats::<TOKENS, 4>(tile, x, sums, |values| vld1q_f32(values.cast())) }
}

/// # Safety
/// See [`FloatKernel`].
#[target_feature(enable = "neon")]
unsafe fn halves<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 2 bytes.
    unsafe { floats::<TOKENS, 2>(tile, x, sums, |values| load_halves(values)) }
}

/// # Safety
/// See [`FloatKernel`].
#[target_feature(enable = "neon")]
unsafe fn brains<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 2 bytes.
    unsafe {
        floats::<TOKENS, 2>(tile, x, sums, |values| {
            vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(vld1_u16(values.cast()))))
        })
    }
}

/// # Safety
/// `tile` is made of blocks of 16 values of `WIDTH` bytes, four of which `load` reads; `x` has a value for each block
/// and token.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn floats<const TOKENS: usize, const WIDTH: usize>(
    tile: &[u8],
    x: &[f32],
    sums: &mut Sums,
    load: impl Fn(*const u8) -> float32x4_t,
) {
    let cols = tile.len() / (LANES * WIDTH);
    debug_assert_eq!(x.len(), cols * TOKENS);
    for token in 0..TOKENS {
        let x = &x[token * cols..][..cols];
        let mut total = [vdupq_n_f32(0.0); QUARTERS];
        for (run, x) in x.chunks(RUN).enumerate() {
            let mut sums = [vdupq_n_f32(0.0); QUARTERS];
            for (col, x) in x.iter().enumerate() {
                let block = (run * RUN + col) * LANES;
                for (quarter, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: within the tile, see above.
                    let weights = unsafe { load(tile.as_ptr().add((block + quarter * ROWS) * WIDTH)) };
                    *sum = vfmaq_n_f32(*sum, weights, *x);
                }
            }
            for (total, sum) in total.iter_mut().zip(sums) {
                *total = vaddq_f32(*total, sum);
            }
        }
        for (place, total) in sums.0[token * LANES..][..LANES].chunks_exact_mut(ROWS).zip(total) {
            // SAFETY: the place has four values.
            unsafe { vst1q_f32(place.as_mut_ptr(), total) };
        }
    }
}
