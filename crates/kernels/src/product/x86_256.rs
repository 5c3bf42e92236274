//! 256-bit vectors: half a tile at a time, a row in each of eight lanes. Two instruction sets share everything but the
//! way dot products are taken.
//!
//! AVX2 multiplies words into sums of 32 bits (`vpmaddwd`), two at a time where bytes would be four: activations of 16 bits
//! are one word there instead of two digits, and take as many products with nothing left to widen or to put together. Those
//! of 8 bits are multiplied as bytes (`vpmaddubsw`), into sums of two that are 16 bits wide and saturate. With units of up to
//! 63 they stay below 2¹⁵ for as many registers as [`registers_in_16_bits`] says, and are widened then; with larger ones they
//! would not: their high and low nibbles are multiplied apart.

use super::{FloatKernel, IntegerKernel, RUN, Sums, for_tokens, instance};
use crate::activations::Group;
use crate::matrix::tile::{
    BLOCK, Codes, IntegerFormat, LANES, LINE, Layout, SHARING, Scales, TileFormat, for_layout,
};
use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

const PREFETCH_BYTES: usize = 2048;
const HALF: usize = LANES / 2;

/// Kernels of one instruction set: a module, since target features cannot be generic.
macro_rules! integer_kernels {
    ($module:ident, $features:literal, $dots:ident) => {
        pub(super) mod $module {
            use super::*;

            pub(in crate::product) fn integer_kernel(format: IntegerFormat) -> IntegerKernel {
                for_layout!(format, instance!(integers))
            }

            /// # Safety
            /// See [`IntegerKernel`].
            #[target_feature(enable = $features)]
            unsafe fn integers<L: Layout>(tile: &[u8], x: &Group, sums: &mut Sums) {
                let mut first = 0;
                while first < x.tokens {
                    macro_rules! kernel {
                        ($tokens:literal, $halves:literal) => {
                            match x.digits {
                                1 => some_tokens::<$tokens, $halves, 1, L>,
                                _ => some_tokens::<$tokens, $halves, 2, L>,
                            }
                        };
                    }
                    // A whole group, or what is left of it by fours. The columns of one token are broadcast for both halves
                    // at once; the sums of more tokens take the registers of one half.
                    let (tokens, kernel): (_, unsafe fn(&[u8], &Group, usize, &mut Sums)) =
                        match x.tokens - first {
                            8 => (8, kernel!(8, 1)),
                            1 => (1, kernel!(1, 2)),
                            2 => (2, kernel!(2, 1)),
                            3 => (3, kernel!(3, 1)),
                            _ => (4, kernel!(4, 1)),
                        };
                    // SAFETY: as promised to this function; there are so many tokens from `first` on.
                    unsafe { kernel(tile, x, first, sums) };
                    first += tokens;
                }
            }

            /// The tile, `HALVES` of its two halves at once, with the group's tokens from `first` on.
            ///
            /// No closures: they are not always inlined, and then have none of the features.
            ///
            /// # Safety
            /// See [`IntegerKernel`]; the group has `TOKENS` tokens from `first` on, of `DIGITS` digits.
            #[target_feature(enable = $features)]
            unsafe fn some_tokens<
                const TOKENS: usize,
                const HALVES: usize,
                const DIGITS: usize,
                L: Layout,
            >(
                tile: &[u8],
                x: &Group,
                first: usize,
                sums: &mut Sums,
            ) {
                let mut at = tile.as_ptr();
                let mut shared = [Factors { d: [_mm256_setzero_ps(); 2], m: [_mm256_setzero_ps(); 2] }; 2];
                let mut total = [[_mm256_setzero_ps(); TOKENS]; 2];
                for block in 0..L::FORMAT.blocks(tile.len()) {
                    let place = block * x.tokens + first;
                    // SAFETY: `at` runs over the headers and blocks of the tile and `place` over `[block][token]`, both as
                    // long as the caller promises; a prefetch may name any address.
                    unsafe {
                        if L::SCALES.are_shared() && block % SHARING == 0 {
                            shared = [own_factors::<L>(at, 0), own_factors::<L>(at, 1)];
                            at = at.add(L::SCALES.header_bytes());
                        }
                        if first == 0 {
                            for line in (0..L::FORMAT.block_bytes()).step_by(64) {
                                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(PREFETCH_BYTES + line).cast());
                            }
                        }
                        for half in (0..2).step_by(HALVES) {
                            let codes = at.add(L::SCALES.block_bytes() + 4 * HALF * half);
                            let quants = x.quants.as_ptr().add(unknown(place) * DIGITS * BLOCK).cast();
                            let mut factors = [shared[0]; HALVES];
                            for (offset, factors) in factors.iter_mut().enumerate() {
                                *factors = shared[half + offset].of_block::<L>(at, half + offset);
                            }
                            let mut products = [[_mm256_setzero_ps(); TOKENS]; HALVES];
                            // Columns are constants, so that shifts are.
                            if L::SCALES.parts() == 1 {
                                let begin = begins::<TOKENS, L>(x, place, 0);
                                let dots = $dots::<TOKENS, HALVES, DIGITS, L>(codes, quants, 0..8, begin);
                                add_scaled(&mut products, dots, &factors, 0);
                            } else {
                                let begin = begins::<TOKENS, L>(x, place, 0);
                                let dots = $dots::<TOKENS, HALVES, DIGITS, L>(codes, quants, 0..4, begin);
                                add_scaled(&mut products, dots, &factors, 0);
                                let begin = begins::<TOKENS, L>(x, place, 1);
                                let dots = $dots::<TOKENS, HALVES, DIGITS, L>(codes, quants, 4..8, begin);
                                add_scaled(&mut products, dots, &factors, 1);
                            }
                            for (offset, products) in products.iter_mut().enumerate() {
                                let m = factors[offset].m;
                                let total = &mut total[half + offset];
                                for (token, (total, product)) in total.iter_mut().zip(products).enumerate() {
                                    let place = place + token;
                                    if L::SCALES.are_affine() && L::SCALES.parts() == 1 {
                                        let sum = _mm256_set1_ps(*x.sums.get_unchecked(place));
                                        *product = _mm256_fmadd_ps(m[0], sum, *product);
                                    } else if L::SCALES.are_affine() {
                                        let [early, late] = *x.negative_halves.get_unchecked(place);
                                        *product =
                                            _mm256_fnmadd_ps(m[0], _mm256_set1_ps(early as f32), *product);
                                        *product =
                                            _mm256_fnmadd_ps(m[1], _mm256_set1_ps(late as f32), *product);
                                    }
                                    // The scale of the activations comes last: products of the others do not leave f32.
                                    let scale = _mm256_set1_ps(*x.scales.get_unchecked(place));
                                    *total = _mm256_fmadd_ps(*product, scale, *total);
                                }
                            }
                        }
                        at = at.add(L::FORMAT.block_bytes());
                    }
                }
                for (half, total) in total.iter().enumerate() {
                    store(total, first, half, sums);
                }
            }
        }
    };
}

integer_kernels!(avx2, "avx2,fma,f16c", dots_by_words_or_pairs);
integer_kernels!(avx_vnni, "avx2,fma,f16c,avxvnni", dots_by_vnni);

/// `place`, of which the compiler does not know that it is that of the first half, too: it would load the quants for both
/// halves, and have to put them somewhere.
#[inline]
fn unknown(mut place: usize) -> usize {
    // SAFETY: no instruction.
    unsafe { asm!("/* {0} */", inout(reg) place, options(nomem, nostack, preserves_flags)) };
    place
}

/// What the sums of a block, or of one of its two parts, begin at: in tiles without m at −offset·Σq.
///
/// # Safety
/// The group has `TOKENS` tokens from `place` on.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn begins<const TOKENS: usize, L: Layout>(x: &Group, place: usize, part: usize) -> [__m256i; TOKENS] {
    let mut begins = [_mm256_setzero_si256(); TOKENS];
    if L::SCALES.are_affine() {
        return begins;
    }
    for (token, begin) in begins.iter_mut().enumerate() {
        // SAFETY: as promised to this function.
        let negative_sum = unsafe {
            match L::SCALES.parts() {
                1 => *x.negative_sums.get_unchecked(place + token),
                _ => x.negative_halves.get_unchecked(place + token)[part],
            }
        };
        let bits = _mm_cvtsi32_si128(L::CODES.offset_bits() as i32);
        *begin = _mm256_sll_epi32(_mm256_set1_epi32(negative_sum), bits);
    }
    begins
}

/// Adds d times the dot products of a part of a block.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_scaled<const TOKENS: usize, const HALVES: usize>(
    products: &mut [[__m256; TOKENS]; HALVES],
    dots: [[__m256i; TOKENS]; HALVES],
    factors: &[Factors; HALVES],
    part: usize,
) {
    for half in 0..HALVES {
        let d = factors[half].d[part];
        for (product, dot) in products[half].iter_mut().zip(dots[half]) {
            *product = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(dot), *product);
        }
    }
}

/// d and m of the halves of a block, a row in each lane.
#[derive(Clone, Copy)]
struct Factors {
    d: [__m256; 2],
    m: [__m256; 2],
}

impl Factors {
    /// Those of half of the block at `at`; `self` are D and M where blocks share them.
    ///
    /// # Safety
    /// The scales of a block lie there.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn of_block<L: Layout>(self, at: *const u8, half: usize) -> Factors {
        // SAFETY: as promised to this function.
        unsafe {
            match L::SCALES {
                Scales::Own | Scales::OwnAffine => own_factors::<L>(at, half),
                Scales::Power => Factors { d: [powers(at, half); 2], ..self },
                _ => self.times::<L>(at, half),
            }
        }
    }

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

/// The dot products of `columns`, four each, of halves of a tile with the blocks of some tokens, added to what they begin at: by
/// `vpmaddwd`, whose sums of two are 32 bits wide, with quants of 16 bits, which are words here; by [`dots_by_pairs`] with
/// those of 8.
///
/// # Safety
/// A block of codes begins at `codes`, lines 64 bytes apart, and `[TOKENS][DIGITS][32]` quants at `quants`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dots_by_words_or_pairs<const TOKENS: usize, const HALVES: usize, const DIGITS: usize, L: Layout>(
    codes: *const u8,
    quants: *const i32,
    columns: Range<usize>,
    begin: [__m256i; TOKENS],
) -> [[__m256i; TOKENS]; HALVES] {
    if DIGITS == 1 {
        // SAFETY: as promised to this function.
        return unsafe { dots_by_pairs::<TOKENS, HALVES, L>(codes, quants, columns, begin) };
    }
    let mut dots = [begin; HALVES];
    let mut step = |j: usize| {
        let mut units = [[_mm256_setzero_si256(); 2]; HALVES];
        for (half, units) in units.iter_mut().enumerate() {
            // SAFETY: as promised to this function.
            *units = words(unsafe { load_units::<L>(codes.add(4 * HALF * half), j) });
        }
        for token in 0..TOKENS {
            let at = token * (BLOCK / 2) + 2 * j;
            // SAFETY: as promised to this function.
            let (first, last) = unsafe { (broadcast(quants.add(at)), broadcast(quants.add(at + 1))) };
            for (dots, [even, odd]) in dots.iter_mut().zip(units) {
                let dot = &mut dots[token];
                *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(even, first));
                *dot = in_register(_mm256_add_epi32(*dot, _mm256_madd_epi16(odd, last)));
            }
        }
    };
    let pairs = columns.len() == 8;
    for j in columns.take(4) {
        step(j);
        if pairs {
            // The high nibbles of the same line.
            step(j + 4);
        }
    }
    dots
}

/// The even and the odd bytes of `units`, as words.
#[inline]
#[target_feature(enable = "avx2")]
fn words(units: __m256i) -> [__m256i; 2] {
    [_mm256_and_si256(units, _mm256_set1_epi16(255)), _mm256_srli_epi16::<8>(units)]
}

/// The `i`-th of the columns, four each, of a block so that low and high nibbles of a line come one after the other; those of
/// half a block as they are.
#[inline]
fn in_turn(columns: &Range<usize>, i: usize) -> usize {
    if columns.len() == 8 { i / 2 + 4 * (i % 2) } else { columns.start + i }
}

/// Nothing, of which the compiler must not know: it would put sums off and hold more of them than there are registers.
#[inline]
#[target_feature(enable = "avx2")]
fn in_register(mut sum: __m256i) -> __m256i {
    // SAFETY: no instruction.
    unsafe { asm!("/* {0} */", inout(ymm_reg) sum, options(pure, nomem, nostack, preserves_flags)) };
    sum
}

/// # Safety
/// Four bytes lie at `quants`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn broadcast(quants: *const i32) -> __m256i {
    // SAFETY: see above.
    _mm256_set1_epi32(unsafe { quants.read_unaligned() })
}

/// How many registers of products fit into sums of 16 bits: each adds two of a unit and an activation of down to −128.
const fn registers_in_16_bits(largest_unit: usize) -> usize {
    i16::MAX as usize / (2 * 128 * largest_unit)
}

/// [`dots_by_words_or_pairs`] by `vpmaddubsw`, whose sums of two are 16 bits wide and saturate, with quants of 8 bits.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dots_by_pairs<const TOKENS: usize, const HALVES: usize, L: Layout>(
    codes: *const u8,
    quants: *const i32,
    columns: Range<usize>,
    begin: [__m256i; TOKENS],
) -> [[__m256i; TOKENS]; HALVES] {
    let widen = |sums, factor| _mm256_madd_epi16(sums, _mm256_set1_epi16(factor));
    // SAFETY: as promised to this function.
    let quant = |token: usize, j: usize| unsafe { broadcast(quants.add(token * (BLOCK / 4) + j)) };
    // SAFETY: as promised to this function.
    let units = |half: usize, j: usize| unsafe { load_units::<L>(codes.add(4 * HALF * half), j) };
    let mut dots = [begin; HALVES];
    let run = registers_in_16_bits(L::CODES.largest_unit()).min(columns.len());
    if run > 0 {
        for first in (0..columns.len()).step_by(run) {
            let mut sums = [[_mm256_setzero_si256(); TOKENS]; HALVES];
            for i in first..first + run {
                let j = in_turn(&columns, i);
                for (half, sums) in sums.iter_mut().enumerate() {
                    let units = units(half, j);
                    for (token, sum) in sums.iter_mut().enumerate() {
                        *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(units, quant(token, j)));
                    }
                }
            }
            for (dot, sum) in dots.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                *dot = _mm256_add_epi32(*dot, widen(*sum, 1));
            }
        }
        return dots;
    }
    // Two digits of 4 bits, four registers of which fit.
    for first in columns.step_by(4) {
        for (half, dots) in dots.iter_mut().enumerate() {
            let (mut low, mut high) = ([_mm256_setzero_si256(); TOKENS], [_mm256_setzero_si256(); TOKENS]);
            for j in first..first + 4 {
                let units = units(half, j);
                let low_bits = _mm256_set1_epi8(15);
                let low_digits = _mm256_and_si256(units, low_bits);
                let high_digits = _mm256_and_si256(_mm256_srli_epi16::<4>(units), low_bits);
                for token in 0..TOKENS {
                    let quant = quant(token, j);
                    low[token] = _mm256_add_epi16(low[token], _mm256_maddubs_epi16(low_digits, quant));
                    high[token] = _mm256_add_epi16(high[token], _mm256_maddubs_epi16(high_digits, quant));
                }
            }
            for (dot, (low, high)) in dots.iter_mut().zip(low.into_iter().zip(high)) {
                *dot = _mm256_add_epi32(*dot, _mm256_add_epi32(widen(low, 1), widen(high, 16)));
            }
        }
    }
    dots
}

/// [`dots_by_words_or_pairs`], a digit after the other, by an instruction that multiplies four bytes a lane with four others
/// and adds them to 32 bits: a macro, since target features cannot be generic.
macro_rules! dots_by_digits {
    ($name:ident, $features:literal, $multiply_add:expr) => {
        /// # Safety
        /// As [`dots_by_words_or_pairs`].
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn $name<const TOKENS: usize, const HALVES: usize, const DIGITS: usize, L: Layout>(
            codes: *const u8,
            quants: *const i32,
            columns: Range<usize>,
            begin: [__m256i; TOKENS],
        ) -> [[__m256i; TOKENS]; HALVES] {
            let multiply_add = $multiply_add;
            let add = |digit: usize, dots: &mut [[__m256i; TOKENS]; HALVES]| {
                for j in columns.clone() {
                    for (half, dots) in dots.iter_mut().enumerate() {
                        // SAFETY: as promised to this function.
                        let units = unsafe { load_units::<L>(codes.add(4 * HALF * half), j) };
                        for (token, dot) in dots.iter_mut().enumerate() {
                            let at = (token * DIGITS + digit) * (BLOCK / 4) + j;
                            // SAFETY: as promised to this function.
                            *dot = multiply_add(*dot, units, unsafe { broadcast(quants.add(at)) });
                        }
                    }
                }
            };
            let mut dots = [begin; HALVES];
            if DIGITS == 2 {
                let mut first = [[_mm256_setzero_si256(); TOKENS]; HALVES];
                add(0, &mut first);
                for (dot, first) in dots.as_flattened_mut().iter_mut().zip(first.as_flattened()) {
                    *dot = _mm256_add_epi32(_mm256_slli_epi32::<8>(*first), *dot);
                }
            }
            add(DIGITS - 1, &mut dots);
            dots
        }
    };
}

dots_by_digits!(dots_by_vnni, "avx2,avxvnni", |dot, units, quant| _mm256_dpbusd_avx_epi32(dot, units, quant));

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::{Activations, GROUP, Input, ProductWorkspace};
    use crate::cpu::Level;
    use crate::{BlockFormat, Matrix, ThreadPool, WeightFormat};

    integer_kernels!(emulated, "avx2,fma,f16c", dots_by_emulated_vnni);

    // `dots_by_vnni` on processors that have no `vpdpbusd`.
    dots_by_digits!(dots_by_emulated_vnni, "avx2", |dot, units, quant| {
        let [even, odd] = words(units);
        let quants = [_mm256_slli_epi16::<8>(quant), quant].map(|q| _mm256_srai_epi16::<8>(q));
        let products =
            _mm256_add_epi32(_mm256_madd_epi16(even, quants[0]), _mm256_madd_epi16(odd, quants[1]));
        _mm256_add_epi32(dot, products)
    });

    /// What AVX-VNNI does beside its one instruction, on every processor that has AVX2.
    #[test]
    fn digits_give_what_the_formula_gives() {
        use BlockFormat::*;
        if Level::Avx2.clamp() != Level::Avx2 {
            return;
        }
        let (pool, cols) = (ThreadPool::new(1), 512);
        for format in [Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, Q2_K, Q3_K, IQ4_NL, IQ4_XS, MXFP4] {
            // Scales of any such bytes are finite.
            let bytes = LANES * format.row_bytes(cols).unwrap();
            let bytes: Vec<u8> =
                (0..bytes as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 & 0x3b).collect();
            let matrix =
                Matrix::from_blocks(format, LANES, cols, &bytes, WeightFormat::Native, &pool).unwrap();
            let segment = &matrix.segments()[0];
            let TileFormat::Integers(layout) = segment.format else { unreachable!("these are integers") };
            for activations in [Activations::Bits8, Activations::Bits16] {
                for tokens in 1..=GROUP {
                    let x: Vec<f32> = (0..tokens * cols).map(|i| (i as f32 * 0.7).sin()).collect();
                    let mut workspace = ProductWorkspace::with_level(Level::Scalar);
                    workspace.quantize(&pool, &Input::Plain(&x), tokens, cols, activations);
                    let group = workspace.group(0, tokens, cols, activations);
                    let run = |kernel: IntegerKernel| {
                        let mut sums = Sums([0.0; GROUP * LANES]);
                        // SAFETY: the machine has AVX2; tile and group have as many blocks.
                        unsafe { kernel(segment.tile(0), &group, &mut sums) };
                        sums.0
                    };
                    let expected = run(super::super::scalar::integer_kernel(layout));
                    let largest = expected.iter().fold(0.0_f32, |a, y| a.max(y.abs()));
                    for (found, expected) in run(emulated::integer_kernel(layout)).iter().zip(expected) {
                        assert!(
                            (found - expected).abs() <= 1e-5 * largest,
                            "{format:?} {activations:?}, {tokens} tokens: {found} is not {expected}"
                        );
                    }
                }
            }
        }
    }
}
