//! 256-bit vectors: half a tile at a time, a row in each of eight lanes. Two instruction sets share everything but the
//! way four bytes are multiplied and added up.
//!
//! AVX2 has only `vpmaddubsw`, whose sums of two products are 16 bits wide and saturate. With units of up to 63 sums stay
//! below 2¹⁵ for as many registers as [`registers_in_16_bits`] says, and are widened then; with larger ones they would not:
//! their high and low nibbles are multiplied apart.

use super::{FloatKernel, IntegerKernel, RUN, Sums, for_tokens};
use crate::activations::Group;
use crate::matrix::tile::{
    BLOCK, Codes, IntegerFormat, LANES, LINE, Layout, SHARING, Scales, TileFormat, for_layout,
};
use std::arch::x86_64::*;

const PREFETCH_BYTES: usize = 2048;
const HALF: usize = LANES / 2;

/// Kernels of one instruction set: a module, since target features cannot be generic.
macro_rules! integer_kernels {
    ($module:ident, $features:literal, $dot:ident) => {
        pub(super) mod $module {
            use super::*;

            pub(in crate::product) fn integer_kernel(format: IntegerFormat) -> IntegerKernel {
                macro_rules! kernel {
                    ($layout:ty) => {
                        integers::<$layout>
                    };
                }
                for_layout!(format, kernel!())
            }

            /// # Safety
            /// See [`IntegerKernel`].
            #[target_feature(enable = $features)]
            unsafe fn integers<L: Layout>(tile: &[u8], x: &Group, sums: &mut Sums) {
                // Four tokens at a time are what sixteen registers hold.
                for first in (0..x.tokens).step_by(4) {
                    for half in 0..2 {
                        // SAFETY: as promised to this function; there are so many rows from `first` on.
                        unsafe {
                            match x.tokens - first {
                                1 => some_tokens::<1, L>(tile, x, first, half, sums),
                                2 => some_tokens::<2, L>(tile, x, first, half, sums),
                                3 => some_tokens::<3, L>(tile, x, first, half, sums),
                                _ => some_tokens::<4, L>(tile, x, first, half, sums),
                            }
                        }
                    }
                }
            }

            /// Half `half` of the tile with the group's tokens from `first` on.
            ///
            /// # Safety
            /// See [`IntegerKernel`]; the group has `TOKENS` tokens from `first` on.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn some_tokens<const TOKENS: usize, L: Layout>(
                tile: &[u8],
                x: &Group,
                first: usize,
                half: usize,
                sums: &mut Sums,
            ) {
                let mut at = tile.as_ptr();
                let mut shared = Factors { d: [_mm256_setzero_ps(); 2], m: [_mm256_setzero_ps(); 2] };
                let mut total = [_mm256_setzero_ps(); TOKENS];
                for block in 0..L::FORMAT.blocks(tile.len()) {
                    let place = block * x.tokens + first;
                    // SAFETY: `at` runs over the headers and blocks of the tile and `place` over `[block][token]`, both as
                    // long as the caller promises; a prefetch may name any address.
                    unsafe {
                        if L::SCALES.are_shared() && block % SHARING == 0 {
                            shared = own_factors::<L>(at, half);
                            at = at.add(L::SCALES.header_bytes());
                        }
                        if half == 0 && first == 0 {
                            for line in (0..L::FORMAT.block_bytes()).step_by(64) {
                                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(PREFETCH_BYTES + line).cast());
                            }
                        }
                        let Factors { d, m } = match L::SCALES {
                            Scales::Own | Scales::OwnAffine => own_factors::<L>(at, half),
                            Scales::Power => Factors { d: [powers(at, half); 2], m: shared.m },
                            _ => shared.times::<L>(at, half),
                        };
                        let codes = at.add(L::SCALES.block_bytes() + 4 * HALF * half);
                        let quants = |digit| -> [*const i32; TOKENS] {
                            std::array::from_fn(|t| {
                                x.quants.as_ptr().add(((place + t) * x.digits + digit) * BLOCK).cast()
                            })
                        };
                        let mut dots = $dot::<TOKENS, L>(codes, quants(0));
                        if x.digits == 2 {
                            let last = $dot::<TOKENS, L>(codes, quants(1));
                            for (dot, last) in dots.as_flattened_mut().iter_mut().zip(last.as_flattened()) {
                                *dot = _mm256_add_epi32(_mm256_slli_epi32::<8>(*dot), *last);
                            }
                        }
                        for (t, (total, [first, last])) in total.iter_mut().zip(dots).enumerate() {
                            // The scale of the activations comes last: products of the others do not leave f32.
                            let mut product;
                            if L::SCALES.parts() == 1 {
                                let sum = *x.negative_sums.get_unchecked(place + t);
                                let dot = with_offset::<L>(_mm256_add_epi32(first, last), sum);
                                product = _mm256_mul_ps(d[0], _mm256_cvtepi32_ps(dot));
                                if L::SCALES.are_affine() {
                                    let sum = _mm256_set1_ps(*x.sums.get_unchecked(place + t));
                                    product = _mm256_fmadd_ps(m[0], sum, product);
                                }
                            } else {
                                let halves = *x.negative_halves.get_unchecked(place + t);
                                let first = with_offset::<L>(first, halves[0]);
                                let last = with_offset::<L>(last, halves[1]);
                                product = _mm256_mul_ps(d[0], _mm256_cvtepi32_ps(first));
                                product = _mm256_fmadd_ps(d[1], _mm256_cvtepi32_ps(last), product);
                                if L::SCALES.are_affine() {
                                    product =
                                        _mm256_fnmadd_ps(m[0], _mm256_set1_ps(halves[0] as f32), product);
                                    product =
                                        _mm256_fnmadd_ps(m[1], _mm256_set1_ps(halves[1] as f32), product);
                                }
                            }
                            let scale = _mm256_set1_ps(*x.scales.get_unchecked(place + t));
                            *total = _mm256_fmadd_ps(product, scale, *total);
                        }
                        at = at.add(L::FORMAT.block_bytes());
                    }
                }
                store(&total, first, half, sums);
            }
        }
    };
}

integer_kernels!(avx2, "avx2,fma,f16c", dot_by_pairs);
integer_kernels!(avx_vnni, "avx2,fma,f16c,avxvnni", dot_by_vnni);

/// Adds −offset·Σq in tiles without m.
#[inline]
#[target_feature(enable = "avx2")]
fn with_offset<L: Layout>(dot: __m256i, negative_sum: i32) -> __m256i {
    if L::SCALES.are_affine() {
        return dot;
    }
    let bits = _mm_cvtsi32_si128(L::CODES.offset_bits() as i32);
    _mm256_add_epi32(dot, _mm256_sll_epi32(_mm256_set1_epi32(negative_sum), bits))
}

/// d and m of the halves of a block, a row in each lane.
#[derive(Clone, Copy)]
struct Factors {
    d: [__m256; 2],
    m: [__m256; 2],
}

impl Factors {
    /// D and M times what lies before a block.
    ///
    /// # Safety
    /// The scales of a block lie at `at`.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn times<L: Layout>(self, at: *const u8, half: usize) -> Factors {
        let parts = L::SCALES.parts();
        let small = |index: usize| {
            // SAFETY: see above.
            let bytes = unsafe { _mm_loadl_epi64(at.add(index * LANES + HALF * half).cast()) };
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
        };
        let last = parts - 1;
        let mut factors = Factors { d: [_mm256_mul_ps(self.d[0], small(0)); 2], ..self };
        if parts == 2 {
            factors.d[1] = _mm256_mul_ps(self.d[0], small(1));
        }
        if L::SCALES.are_affine() {
            factors.m =
                [_mm256_mul_ps(self.m[0], small(parts)), _mm256_mul_ps(self.m[0], small(parts + last))];
        }
        factors
    }
}

/// The f16 that lie at `at`: before a block, or before the eight that share them.
///
/// # Safety
/// They lie there.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn own_factors<L: Layout>(at: *const u8, half: usize) -> Factors {
    let halves = |kind: usize| {
        // SAFETY: see above.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(at.add(2 * (LANES * kind + HALF * half)).cast()) })
    };
    let d = match L::CODES {
        Codes::Eighths => _mm256_mul_ps(halves(0), _mm256_set1_ps(L::CODES.scale_unit())),
        _ => halves(0),
    };
    let m = if L::SCALES.are_affine() { halves(1) } else { _mm256_setzero_ps() };
    Factors { d: [d; 2], m: [m; 2] }
}

/// 2^(e − 128) of half of the bytes at `at`.
///
/// # Safety
/// Sixteen lie there.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn powers(at: *const u8, half: usize) -> __m256 {
    // SAFETY: see above.
    let exponents = _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(at.add(HALF * half).cast()) });
    let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(exponents, _mm256_set1_epi32(1)));
    let subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), exponents);
    let is_normal = _mm256_cmpgt_epi32(exponents, _mm256_set1_epi32(1));
    _mm256_castsi256_ps(_mm256_blendv_epi8(subnormal, normal, is_normal))
}

/// The units of columns 4j to 4j + 3 of half a tile.
///
/// # Safety
/// A block of codes begins at `codes`, lines 64 bytes apart.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_units<L: Layout>(codes: *const u8, j: usize) -> __m256i {
    // SAFETY: as many lines lie there as the codes have.
    let line = |j: usize| unsafe { _mm256_loadu_si256(codes.add(LINE * j).cast()) };
    if L::CODES.are_bytes() {
        return line(j);
    }
    let pairs = line(j % Codes::NIBBLE_LINES);
    let pairs = if j < Codes::NIBBLE_LINES { pairs } else { _mm256_srli_epi16::<4>(pairs) };
    let low = _mm256_and_si256(pairs, _mm256_set1_epi8(15));
    if let Some(table) = L::CODES.table() {
        // SAFETY: the table has sixteen bytes.
        let table = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(table.as_ptr().cast()) });
        return _mm256_shuffle_epi8(table, low);
    }
    let bits = L::CODES.high_bits();
    if bits == 0 {
        return low;
    }
    let high = line(Codes::NIBBLE_LINES + j * bits / 8);
    // To bit 4 and up of the same byte: what comes from its neighbour is masked.
    let from = (j * bits % 8) as i32;
    let high = if from <= 4 {
        _mm256_sll_epi16(high, _mm_cvtsi32_si128(4 - from))
    } else {
        _mm256_srl_epi16(high, _mm_cvtsi32_si128(from - 4))
    };
    _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi8(((1 << bits) - 1) << 4)))
}

/// How many registers of products fit into sums of 16 bits: each adds two of a unit and an activation of down to −128.
const fn registers_in_16_bits(largest_unit: usize) -> usize {
    let fit = i16::MAX as usize / (2 * 128 * largest_unit);
    // A half of a block at most.
    if fit < 4 { fit } else { 4 }
}

/// Dot products of the halves of a block of half a tile with the blocks of some tokens.
///
/// # Safety
/// A block of codes begins at `codes`, lines 64 bytes apart, and 32 quants lie at each of `quants`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dot_by_pairs<const TOKENS: usize, L: Layout>(
    codes: *const u8,
    quants: [*const i32; TOKENS],
) -> [[__m256i; 2]; TOKENS] {
    let mut dots = [[_mm256_setzero_si256(); 2]; TOKENS];
    let widen = |sums, factor| _mm256_madd_epi16(sums, _mm256_set1_epi16(factor));
    // SAFETY: see above.
    let quant = |t: usize, j: usize| unsafe { _mm256_set1_epi32(quants[t].add(j).read_unaligned()) };
    let run = registers_in_16_bits(L::CODES.largest_unit());
    for half in 0..2 {
        if run > 0 {
            for first in (4 * half..4 * half + 4).step_by(run) {
                let mut sums = [_mm256_setzero_si256(); TOKENS];
                for j in first..first + run {
                    // SAFETY: see above.
                    let units = unsafe { load_units::<L>(codes, j) };
                    for (t, sum) in sums.iter_mut().enumerate() {
                        *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(units, quant(t, j)));
                    }
                }
                for (dot, sum) in dots.iter_mut().zip(sums) {
                    dot[half] = _mm256_add_epi32(dot[half], widen(sum, 1));
                }
            }
            continue;
        }
        let (mut low, mut high) = ([_mm256_setzero_si256(); TOKENS], [_mm256_setzero_si256(); TOKENS]);
        for j in 4 * half..4 * half + 4 {
            // SAFETY: see above.
            let units = unsafe { load_units::<L>(codes, j) };
            let low_bits = _mm256_set1_epi8(15);
            let low_digits = _mm256_and_si256(units, low_bits);
            let high_digits = _mm256_and_si256(_mm256_srli_epi16::<4>(units), low_bits);
            for t in 0..TOKENS {
                let quant = quant(t, j);
                low[t] = _mm256_add_epi16(low[t], _mm256_maddubs_epi16(low_digits, quant));
                high[t] = _mm256_add_epi16(high[t], _mm256_maddubs_epi16(high_digits, quant));
            }
        }
        for (t, dot) in dots.iter_mut().enumerate() {
            dot[half] = _mm256_add_epi32(widen(low[t], 1), widen(high[t], 16));
        }
    }
    dots
}

/// [`dot_by_pairs`] by `vpdpbusd`.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn dot_by_vnni<const TOKENS: usize, L: Layout>(
    codes: *const u8,
    quants: [*const i32; TOKENS],
) -> [[__m256i; 2]; TOKENS] {
    // SAFETY: as promised to this function.
    unsafe { dot_by_words::<TOKENS, L>(codes, quants, |dot, w, q| _mm256_dpbusd_avx_epi32(dot, w, q)) }
}

/// Dot products by an instruction that multiplies four bytes a lane with four others and adds them to 32 bits.
///
/// # Safety
/// As [`dot_by_pairs`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dot_by_words<const TOKENS: usize, L: Layout>(
    codes: *const u8,
    quants: [*const i32; TOKENS],
    multiply_add: impl Fn(__m256i, __m256i, __m256i) -> __m256i,
) -> [[__m256i; 2]; TOKENS] {
    let mut dots = [[_mm256_setzero_si256(); 2]; TOKENS];
    for j in 0..8 {
        // SAFETY: see above.
        let units = unsafe { load_units::<L>(codes, j) };
        for (dot, quants) in dots.iter_mut().zip(quants) {
            // SAFETY: see above.
            let quant = unsafe { _mm256_set1_epi32(quants.add(j).read_unaligned()) };
            dot[j / 4] = multiply_add(dot[j / 4], units, quant);
        }
    }
    dots
}

#[inline]
#[target_feature(enable = "avx")]
fn store<const TOKENS: usize>(total: &[__m256; TOKENS], first: usize, half: usize, sums: &mut Sums) {
    for (t, total) in total.iter().enumerate() {
        let place = &mut sums.0[(first + t) * LANES + half * HALF..][..HALF];
        // SAFETY: the place has eight values.
        unsafe { _mm256_storeu_ps(place.as_mut_ptr(), *total) };
    }
}

pub(super) fn float_kernel(format: TileFormat, tokens: usize) -> FloatKernel {
    match format {
        TileFormat::F16 => for_tokens!(tokens, halves),
        TileFormat::BF16 => for_tokens!(tokens, brains),
        _ => for_tokens!(tokens, singles),
    }
}

/// # Safety
/// See [`FloatKernel`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn singles<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 4 bytes.
    unsafe { floats::<TOKENS, 4>(tile, x, sums, |values| _mm256_loadu_ps(values.cast())) }
}

/// # Safety
/// See [`FloatKernel`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn halves<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 2 bytes.
    unsafe { floats::<TOKENS, 2>(tile, x, sums, |values| _mm256_cvtph_ps(_mm_loadu_si128(values.cast()))) }
}

/// # Safety
/// See [`FloatKernel`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn brains<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 2 bytes.
    unsafe {
        floats::<TOKENS, 2>(tile, x, sums, |values| {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(values.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        })
    }
}

/// # Safety
/// `tile` is made of blocks of 16 values of `WIDTH` bytes, eight of which `load` reads; `x` has a value for each block
/// and token.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn floats<const TOKENS: usize, const WIDTH: usize>(
    tile: &[u8],
    x: &[f32],
    sums: &mut Sums,
    load: impl Fn(*const u8) -> __m256,
) {
    let cols = tile.len() / (LANES * WIDTH);
    debug_assert_eq!(x.len(), cols * TOKENS);
    // Four tokens at a time, both halves: eight sums.
    for first in (0..TOKENS).step_by(4) {
        let tokens = first..TOKENS.min(first + 4);
        let mut low = [_mm256_setzero_ps(); 4];
        let mut high = low;
        for run in (0..cols).step_by(RUN) {
            let (mut low_run, mut high_run) = ([_mm256_setzero_ps(); 4], [_mm256_setzero_ps(); 4]);
            for col in run..cols.min(run + RUN) {
                // SAFETY: within the tile and the rows, see above; a prefetch may name any address.
                unsafe {
                    let block = tile.as_ptr().add(col * LANES * WIDTH);
                    _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(PREFETCH_BYTES).cast());
                    let (w_low, w_high) = (load(block), load(block.add(HALF * WIDTH)));
                    for (t, token) in tokens.clone().enumerate() {
                        let x = _mm256_set1_ps(*x.get_unchecked(token * cols + col));
                        low_run[t] = _mm256_fmadd_ps(w_low, x, low_run[t]);
                        high_run[t] = _mm256_fmadd_ps(w_high, x, high_run[t]);
                    }
                }
            }
            for t in 0..tokens.len() {
                low[t] = _mm256_add_ps(low[t], low_run[t]);
                high[t] = _mm256_add_ps(high[t], high_run[t]);
            }
        }
        for (t, token) in tokens.enumerate() {
            store(&[low[t]], token, 0, sums);
            store(&[high[t]], token, 1, sums);
        }
    }
}
