//! AVX-512 with VNNI: one register holds four columns of 16 rows as bytes; `vpdpbusd` multiplies them with four
//! activation bytes broadcast from memory and adds up 32-bit sums, a row in each lane.

use super::{FloatKernel, IntegerKernel, Sums, for_tokens, instance};
use crate::activations::Group;
use crate::matrix::tile::{
    BLOCK, Codes, IntegerFormat, LANES, LINE, Layout, SHARING, Scales, TileFormat, for_layout,
};
use std::arch::x86_64::*;
use std::ops::Range;

/// How far ahead of its use a tile is fetched. The hardware follows the stream as well, but stops at every page.
const PREFETCH_BYTES: usize = 2048;

pub(super) fn integer_kernel(format: IntegerFormat) -> IntegerKernel {
    for_layout!(format, instance!(integers))
}

pub(super) fn float_kernel(format: TileFormat, tokens: usize) -> FloatKernel {
    match format {
        TileFormat::F16 => for_tokens!(tokens, halves),
        TileFormat::BF16 => for_tokens!(tokens, brains),
        _ => for_tokens!(tokens, singles),
    }
}

/// # Safety
/// See [`IntegerKernel`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
unsafe fn integers<L: Layout>(tile: &[u8], x: &Group, sums: &mut Sums) {
    let kernel: IntegerKernel = match x.digits {
        1 => for_tokens!(x.tokens, some_tokens, 1, L),
        _ => for_tokens!(x.tokens, some_tokens, 2, L),
    };
    // SAFETY: as promised to this function; the group has so many tokens and digits.
    unsafe { kernel(tile, x, sums) }
}

/// The tile with the tokens of a group.
///
/// # Safety
/// See [`IntegerKernel`]; the group has `TOKENS` tokens of `DIGITS` digits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
unsafe fn some_tokens<const TOKENS: usize, const DIGITS: usize, L: Layout>(
    tile: &[u8],
    x: &Group,
    sums: &mut Sums,
) {
    let blocks = L::FORMAT.blocks(tile.len());
    debug_assert_eq!(x.scales.len(), blocks * TOKENS);
    let mut at = tile.as_ptr();
    let mut shared = Factors { d: [_mm512_setzero_ps(); 2], m: [_mm512_setzero_ps(); 2] };
    let mut total = [_mm512_setzero_ps(); TOKENS];
    for block in 0..blocks {
        // SAFETY: `at` runs over the headers and blocks of the tile and `place` over `[block][token]`, both as long as the
        // caller promises; a prefetch may name any address.
        unsafe {
            if L::SCALES.are_shared() && block % SHARING == 0 {
                shared = own_factors::<L>(at);
                at = at.add(L::SCALES.header_bytes());
            }
            for line in (0..L::FORMAT.block_bytes()).step_by(64) {
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(PREFETCH_BYTES + line).cast());
            }
            let Factors { d, m } = match L::SCALES {
                Scales::Own | Scales::OwnAffine => own_factors::<L>(at),
                Scales::Power => Factors { d: [powers(at); 2], m: shared.m },
                _ => shared.times::<L>(at),
            };
            let weights = load_units::<L>(at.add(L::SCALES.block_bytes()));
            let place = block * TOKENS;
            let quants = x.quants.as_ptr().add(place * DIGITS * BLOCK).cast::<i32>();
            let quad = |token: usize, digit: usize, j: usize| {
                let at = quants.add((token * DIGITS + digit) * (BLOCK / 4) + j);
                _mm512_set1_epi32(at.read_unaligned())
            };
            // Columns 4j to 4j + 3 for every j of `columns`, begun at a number for each token. Tokens take turns, for each
            // addition has to wait for the one before it: the sums of eight tokens keep the multipliers busy.
            let dots = |columns: Range<usize>, begin: [__m512i; TOKENS]| {
                let mut first = [_mm512_setzero_si512(); TOKENS];
                let mut last = begin;
                if DIGITS == 2 {
                    for j in columns.clone() {
                        for (token, first) in first.iter_mut().enumerate() {
                            *first = _mm512_dpbusd_epi32(*first, weights[j], quad(token, 0, j));
                        }
                    }
                    for (first, last) in first.iter_mut().zip(&mut last) {
                        *last = _mm512_add_epi32(_mm512_slli_epi32::<8>(*first), *last);
                    }
                }
                for j in columns {
                    for (token, last) in last.iter_mut().enumerate() {
                        *last = _mm512_dpbusd_epi32(*last, weights[j], quad(token, DIGITS - 1, j));
                    }
                }
                last.map(|dot| _mm512_cvtepi32_ps(dot))
            };
            // In tiles without m, begun at −offset·Σq.
            let begin = |negative_sum: i32| {
                if L::SCALES.are_affine() {
                    _mm512_setzero_si512()
                } else {
                    let bits = _mm_cvtsi32_si128(L::CODES.offset_bits() as i32);
                    _mm512_sll_epi32(_mm512_set1_epi32(negative_sum), bits)
                }
            };
            let each = std::array::from_fn::<usize, TOKENS, _>(|token| place + token);
            let mut product;
            // The scale of the activations comes last: products of the others do not leave f32.
            if L::SCALES.parts() == 1 {
                product = dots(0..8, each.map(|place| begin(*x.negative_sums.get_unchecked(place))))
                    .map(|dot| _mm512_mul_ps(d[0], dot));
                if L::SCALES.are_affine() {
                    for (product, place) in product.iter_mut().zip(each) {
                        let sum = _mm512_set1_ps(*x.sums.get_unchecked(place));
                        *product = _mm512_fmadd_ps(m[0], sum, *product);
                    }
                }
            } else {
                let halves = each.map(|place| *x.negative_halves.get_unchecked(place));
                product =
                    dots(0..4, halves.map(|[early, _]| begin(early))).map(|dot| _mm512_mul_ps(d[0], dot));
                let late = dots(4..8, halves.map(|[_, late]| begin(late)));
                for (product, late) in product.iter_mut().zip(late) {
                    *product = _mm512_fmadd_ps(d[1], late, *product);
                }
                if L::SCALES.are_affine() {
                    for (product, [early, late]) in product.iter_mut().zip(halves) {
                        *product = _mm512_fnmadd_ps(m[0], _mm512_set1_ps(early as f32), *product);
                        *product = _mm512_fnmadd_ps(m[1], _mm512_set1_ps(late as f32), *product);
                    }
                }
            }
            for ((total, product), place) in total.iter_mut().zip(product).zip(each) {
                *total = _mm512_fmadd_ps(product, _mm512_set1_ps(*x.scales.get_unchecked(place)), *total);
            }
            at = at.add(L::FORMAT.block_bytes());
        }
    }
    store(&total, sums);
}

/// d and m of the halves of a block, a row in each lane.
#[derive(Clone, Copy)]
struct Factors {
    d: [__m512; 2],
    m: [__m512; 2],
}

impl Factors {
    /// D and M times what lies before a block.
    ///
    /// # Safety
    /// The scales of a block lie at `at`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn times<L: Layout>(self, at: *const u8) -> Factors {
        let parts = L::SCALES.parts();
        let small = |index: usize| {
            // SAFETY: see above.
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(at.add(index * LANES).cast()) }))
        };
        let last = parts - 1;
        let mut factors = Factors { d: [_mm512_mul_ps(self.d[0], small(0)); 2], ..self };
        if parts == 2 {
            factors.d[1] = _mm512_mul_ps(self.d[0], small(1));
        }
        if L::SCALES.are_affine() {
            factors.m =
                [_mm512_mul_ps(self.m[0], small(parts)), _mm512_mul_ps(self.m[0], small(parts + last))];
        }
        factors
    }
}

/// The f16 that lie at `at`: before a block, or before the eight that share them.
///
/// # Safety
/// They lie there.
#[inline]
#[target_feature(enable = "avx512f,f16c")]
unsafe fn own_factors<L: Layout>(at: *const u8) -> Factors {
    // SAFETY: see above.
    let half = |kind: usize| unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.add(2 * LANES * kind).cast())) };
    let d = match L::CODES {
        Codes::Eighths => _mm512_mul_ps(half(0), _mm512_set1_ps(L::CODES.scale_unit())),
        _ => half(0),
    };
    let m = if L::SCALES.are_affine() { half(1) } else { _mm512_setzero_ps() };
    Factors { d: [d; 2], m: [m; 2] }
}

/// 2^(e − 128) of the bytes at `at`.
///
/// # Safety
/// Sixteen lie there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn powers(at: *const u8) -> __m512 {
    // SAFETY: see above.
    let exponents = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(at.cast()) });
    let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(exponents, _mm512_set1_epi32(1)));
    let subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x0020_0000), exponents);
    let is_subnormal = _mm512_cmplt_epi32_mask(exponents, _mm512_set1_epi32(2));
    _mm512_castsi512_ps(_mm512_mask_blend_epi32(is_subnormal, normal, subnormal))
}

/// The units of a block: register j has columns 4j to 4j + 3.
///
/// # Safety
/// A whole block of codes lies at `codes`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn load_units<L: Layout>(codes: *const u8) -> [__m512i; 8] {
    // SAFETY: as many lines lie there as the codes have.
    let line = |j: usize| unsafe { _mm512_loadu_si512(codes.add(LINE * j).cast()) };
    if L::CODES.are_bytes() {
        return std::array::from_fn(line);
    }
    let low_bits = _mm512_set1_epi8(15);
    std::array::from_fn(|j| {
        let pairs = line(j % Codes::NIBBLE_LINES);
        let pairs = if j < Codes::NIBBLE_LINES { pairs } else { _mm512_srli_epi16::<4>(pairs) };
        let low = _mm512_and_si512(pairs, low_bits);
        let bits = L::CODES.high_bits();
        if let Some(table) = L::CODES.table() {
            // SAFETY: the table has sixteen bytes.
            let table = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(table.as_ptr().cast()) });
            return _mm512_shuffle_epi8(table, low);
        }
        if bits == 0 {
            return low;
        }
        let high = line(Codes::NIBBLE_LINES + j * bits / 8);
        // To bit 4 and up of the same byte: what comes from its neighbour is masked.
        let from = (j * bits % 8) as i32;
        let high = if from <= 4 {
            _mm512_sll_epi16(high, _mm_cvtsi32_si128(4 - from))
        } else {
            _mm512_srl_epi16(high, _mm_cvtsi32_si128(from - 4))
        };
        let mask = _mm512_set1_epi8(((1 << bits) - 1) << 4);
        // low | high & mask
        _mm512_ternarylogic_epi32::<0xf8>(low, high, mask)
    })
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store<const TOKENS: usize>(total: &[__m512; TOKENS], sums: &mut Sums) {
    for (total, sums) in total.iter().zip(sums.0.chunks_exact_mut(LANES)) {
        // SAFETY: the chunk holds 16 values.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), *total) };
    }
}

/// # Safety
/// See [`FloatKernel`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
unsafe fn singles<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 4 bytes.
    unsafe { floats::<TOKENS, { 4 * LANES }>(tile, x, sums, |block| _mm512_loadu_ps(block.cast())) }
}

/// # Safety
/// See [`FloatKernel`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
unsafe fn halves<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 2 bytes.
    unsafe {
        floats::<TOKENS, { 2 * LANES }>(tile, x, sums, |block| {
            _mm512_cvtph_ps(_mm256_loadu_si256(block.cast()))
        })
    }
}

/// # Safety
/// See [`FloatKernel`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
unsafe fn brains<const TOKENS: usize>(tile: &[u8], x: &[f32], sums: &mut Sums) {
    // SAFETY: every block has 16 values of 2 bytes.
    unsafe {
        floats::<TOKENS, { 2 * LANES }>(tile, x, sums, |block| {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(block.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        })
    }
}

/// Even and odd columns are summed apart, to halve the wait for each addition.
///
/// # Safety
/// `tile` is made of blocks of `BYTES` bytes that `load` reads one of; `x` has a value for each block and token.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn floats<const TOKENS: usize, const BYTES: usize>(
    tile: &[u8],
    x: &[f32],
    sums: &mut Sums,
    load: impl Fn(*const u8) -> __m512,
) {
    let cols = tile.len() / BYTES;
    debug_assert_eq!(x.len(), cols * TOKENS);
    let mut even = [_mm512_setzero_ps(); TOKENS];
    let mut odd = even;
    let step = |col: usize, total: &mut [__m512; TOKENS]| {
        // SAFETY: within the tile and the rows, see above; a prefetch may name any address.
        unsafe {
            let block = tile.as_ptr().add(col * BYTES);
            _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(PREFETCH_BYTES).cast());
            let weights = load(block);
            for (token, total) in total.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*x.get_unchecked(token * cols + col));
                *total = _mm512_fmadd_ps(weights, x, *total);
            }
        }
    };
    for pair in 0..cols / 2 {
        step(2 * pair, &mut even);
        step(2 * pair + 1, &mut odd);
    }
    if cols % 2 == 1 {
        step(cols - 1, &mut even);
    }
    store::<TOKENS>(&std::array::from_fn(|token| _mm512_add_ps(even[token], odd[token])), sums);
}
