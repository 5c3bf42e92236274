//! Rounding to 8 or 16 bits.

use super::Activations;
use crate::Scale;
use crate::cpu::Level;
use crate::matrix::tile::BLOCK;

/// Where the quantized blocks of one group of tokens go: `[block][token]`, see [`Group`](super::Group).
pub(super) struct Places<'a> {
    pub(super) activations: Activations,
    pub(super) tokens: usize,
    pub(super) quants: &'a mut [i8],
    pub(super) scales: &'a mut [f32],
    pub(super) sums: &'a mut [f32],
    pub(super) negative_sums: &'a mut [i32],
    pub(super) negative_halves: &'a mut [[i32; 2]],
}

impl Places<'_> {
    #[inline(always)]
    fn quants(&mut self, block: usize, token: usize) -> &mut [i8] {
        let bytes = self.activations.digits() * BLOCK;
        &mut self.quants[(block * self.tokens + token) * bytes..][..bytes]
    }

    #[inline(always)]
    fn put(&mut self, block: usize, token: usize, scale: f32, halves: [i32; 2]) {
        let sum = halves[0] + halves[1];
        let place = block * self.tokens + token;
        self.scales[place] = scale;
        self.sums[place] = sum as f32;
        self.negative_sums[place] = -sum;
        self.negative_halves[place] = halves.map(|half| -half);
    }
}

/// Rounds the blocks of `values`, the first of which is block `first` of token `token`.
pub(super) fn quantize_blocks(level: Level, values: &[f32], first: usize, token: usize, places: &mut Places) {
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    debug_assert!(rest.is_empty());
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level is only ever handed to kernels where the machine has its features.
        Level::Avx2 | Level::AvxVnni | Level::Avx512 => unsafe {
            x86::quantize(blocks, first, token, level == Level::Avx2, places)
        },
        _ => {
            let activations = places.activations;
            for (b, values) in blocks.iter().enumerate() {
                let (scale, halves) = quantize_block(activations, values, places.quants(first + b, token));
                places.put(first + b, token, scale, halves);
            }
        }
    }
}

/// Rounds a block, ties to even; returns its [`Scale`] and the sums of the halves of the quants.
///
/// As integers, absolute values of floats keep their order and put NaN above all: NaN makes the scale NaN, so that it is
/// seen in the result.
fn quantize_block(activations: Activations, values: &[f32; BLOCK], quants: &mut [i8]) -> (f32, [i32; 2]) {
    let largest = values.iter().fold(0, |a: u32, x| a.max(x.abs().to_bits()));
    let Scale { scale, inverse } = Scale::new(f32::from_bits(largest), activations.steps());
    let mut halves = [0; 2];
    for (i, x) in values.iter().enumerate() {
        let quant = (x * inverse).round_ties_even() as i32;
        match activations {
            Activations::Bits8 => quants[i] = quant as i8,
            Activations::Bits16 => {
                let high = (quant + 128) >> 8;
                quants[i] = high as i8;
                quants[BLOCK + i] = (quant - (high << 8)) as i8;
            }
        }
        halves[i / (BLOCK / 2)] += quant;
    }
    (scale, halves)
}

/// The quants of a block that `level` stores as `bytes`.
#[cfg(test)]
pub(super) fn whole(level: Level, bytes: &[i8]) -> Vec<i32> {
    let digit = |index: usize| i32::from(bytes[index]);
    let word =
        |index: usize| i32::from(i16::from_le_bytes([2 * index, 2 * index + 1].map(|i| bytes[i] as u8)));
    match (bytes.len() / BLOCK, level) {
        (1, _) => (0..BLOCK).map(digit).collect(),
        (_, Level::Avx2) => (0..BLOCK).map(|i| word(i / 4 * 4 + [0, 2, 1, 3][i % 4])).collect(),
        _ => (0..BLOCK).map(|i| 256 * digit(i) + digit(BLOCK + i)).collect(),
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Activations, BLOCK, Places, Scale};
    use std::arch::x86_64::*;

    /// Blocks taken at a time: the way from a block to its scale is a long chain of short operations, so eight are taken
    /// side by side, with their scales in one register.
    const SIDE_BY_SIDE: usize = 8;

    /// With `words`, quants of 16 bits are words, not two digits.
    #[target_feature(enable = "avx2")]
    pub(super) fn quantize(
        blocks: &[[f32; BLOCK]],
        first: usize,
        token: usize,
        words: bool,
        places: &mut Places,
    ) {
        let activations = places.activations;
        for (i, blocks) in blocks.chunks(SIDE_BY_SIDE).enumerate() {
            let mut largest = [_mm256_setzero_si256(); SIDE_BY_SIDE];
            for (largest, block) in largest.iter_mut().zip(blocks) {
                *largest = largest_bits(block);
            }
            let [low, high] = reduce(largest, |a, b| _mm256_max_epu32(a, b));
            let largest = to_array(_mm256_max_epu32(low, high));
            // One vector of divisions.
            let mut scales = [Scale::default(); SIDE_BY_SIDE];
            for (scale, largest) in scales.iter_mut().zip(largest) {
                *scale = Scale::new(f32::from_bits(largest), activations.steps());
            }
            let mut sums = [_mm256_setzero_si256(); SIDE_BY_SIDE];
            for (b, block) in blocks.iter().enumerate() {
                let quants = round(block, scales[b].inverse);
                let place = places.quants(first + i * SIDE_BY_SIDE + b, token);
                match activations {
                    Activations::Bits8 => store_bytes(quants, place),
                    Activations::Bits16 if words => store_words(quants, place),
                    Activations::Bits16 => {
                        let high = quants.map(|quants| {
                            _mm256_srai_epi16::<8>(_mm256_add_epi16(quants, _mm256_set1_epi16(128)))
                        });
                        let low = [0, 1]
                            .map(|half| _mm256_sub_epi16(quants[half], _mm256_slli_epi16::<8>(high[half])));
                        store_bytes(high, &mut place[..BLOCK]);
                        store_bytes(low, &mut place[BLOCK..]);
                    }
                }
                // Four sums of four for each half.
                let [early, late] = quants.map(|half| _mm256_madd_epi16(half, _mm256_set1_epi16(1)));
                sums[b] = _mm256_add_epi32(
                    _mm256_permute2x128_si256::<0x20>(early, late),
                    _mm256_permute2x128_si256::<0x31>(early, late),
                );
            }
            let halves = reduce(sums, |a, b| _mm256_add_epi32(a, b)).map(|half| to_array(half));
            for b in 0..blocks.len() {
                let halves = halves.map(|half| half[b] as i32);
                places.put(first + i * SIDE_BY_SIDE + b, token, scales[b].scale, halves);
            }
        }
    }

    #[target_feature(enable = "avx2")]
    fn load(block: &[f32; BLOCK]) -> [__m256; 4] {
        // SAFETY: a block has 32 values.
        std::array::from_fn(|i| unsafe { _mm256_loadu_ps(block.as_ptr().add(8 * i)) })
    }

    /// Eight partial maxima of the absolute values' bits.
    #[target_feature(enable = "avx2")]
    fn largest_bits(block: &[f32; BLOCK]) -> __m256i {
        let absolute = _mm256_set1_epi32(0x7fff_ffff);
        let [a, b, c, d] = load(block).map(|x| _mm256_and_si256(_mm256_castps_si256(x), absolute));
        _mm256_max_epu32(_mm256_max_epu32(a, b), _mm256_max_epu32(c, d))
    }

    /// The quants of the halves of a block, each in the order that `vpackssdw` leaves.
    #[target_feature(enable = "avx2")]
    fn round(block: &[f32; BLOCK], inverse: f32) -> [__m256i; 2] {
        let inverse = _mm256_set1_ps(inverse);
        let [a, b, c, d] = load(block).map(|x| _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse)));
        [_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d)]
    }

    /// Puts the values of [`round`], which are bytes, in their order.
    #[target_feature(enable = "avx2")]
    fn store_bytes([early, late]: [__m256i; 2], place: &mut [i8]) {
        assert_eq!(place.len(), BLOCK);
        // The packs work within halves; this brings their groups of four back in order.
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(early, late), order);
        // SAFETY: 32 bytes have a place of 32.
        unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast(), bytes) };
    }

    /// Puts the values of [`round`] in the order in which bytes of weights become words: of four columns first the even ones.
    #[target_feature(enable = "avx2")]
    fn store_words(quants: [__m256i; 2], place: &mut [i8]) {
        assert_eq!(place.len(), 2 * BLOCK);
        for (half, quants) in quants.into_iter().enumerate() {
            // The pack works within halves; this brings its groups of four back in order.
            let quads = _mm256_permute4x64_epi64::<0b11_01_10_00>(quants);
            let words =
                _mm256_shufflehi_epi16::<0b11_01_10_00>(_mm256_shufflelo_epi16::<0b11_01_10_00>(quads));
            // SAFETY: two times 32 bytes have a place of 64.
            unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast::<__m256i>().add(half), words) };
        }
    }

    /// Lane i of the results is the lower and the upper four lanes of register i put together by `join`.
    #[target_feature(enable = "avx2")]
    fn reduce(rows: [__m256i; 8], join: impl Fn(__m256i, __m256i) -> __m256i) -> [__m256i; 2] {
        let [a, b, c, d, e, f, g, h] = rows;
        let pair = |a, b| join(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let quad = |a, b| join(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
        let (low, high) = (quad(pair(a, b), pair(c, d)), quad(pair(e, f), pair(g, h)));
        [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)]
    }

    #[target_feature(enable = "avx2")]
    fn to_array(values: __m256i) -> [u32; 8] {
        let mut array = [0; 8];
        // SAFETY: eight values have a place of eight.
        unsafe { _mm256_storeu_si256(array.as_mut_ptr().cast(), values) };
        array
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_block_is_rounded_to_nearest(values in prop::array::uniform32(-1e3_f32..1e3), exponent in -45..35_i32) {
            let values = values.map(|v| (f64::from(v) * 10.0_f64.powi(exponent)) as f32);
            let largest = values.iter().fold(0.0_f32, |a, v| a.max(v.abs()));
            for activations in [Activations::Bits8, Activations::Bits16] {
                let mut digits = vec![0; activations.digits() * BLOCK];
                let (scale, halves) = quantize_block(activations, &values, &mut digits);
                prop_assert!(digits[..BLOCK].iter().all(|digit| digit.unsigned_abs() <= 127));
                let quants = whole(Level::Scalar, &digits);
                for (half, quants) in halves.iter().zip(quants.chunks_exact(BLOCK / 2)) {
                    prop_assert_eq!(*half, quants.iter().sum::<i32>());
                }
                for (q, v) in quants.iter().zip(values) {
                    let error = (*q as f32 * scale - v).abs();
                    let step = (largest / activations.steps()).max(f32::MIN_POSITIVE);
                    prop_assert!(error <= 0.501 * step + 2e-7 * v.abs(), "{v} became {q} · {scale}");
                }
            }
        }
    }

    #[test]
    fn every_level_rounds_alike() {
        let values: Vec<f32> =
            (0..5 * BLOCK).map(|i| ((i * i) as f32 * 0.37).sin() * 10.0_f32.powi(i as i32 % 9)).collect();
        // Halves, ties, tiny numbers and zeros.
        let tricky = [127.0, 0.5, 1.5, -2.5, 1e-38, -0.0, 126.5, -127.0].repeat(4);
        let tiny = [1e-42, -1e-38, f32::MIN_POSITIVE, 1e-37].repeat(BLOCK / 4);
        let values =
            [values, tricky, vec![1e-42; BLOCK], vec![-3e38; BLOCK], tiny, vec![0.0; BLOCK]].concat();
        let (blocks, tokens) = (values.len() / BLOCK, 3);
        let run = |level: Level, activations: Activations| {
            let bytes = activations.digits() * tokens * values.len();
            let (mut quants, mut negative_sums) = (vec![0; bytes], vec![0; blocks * tokens]);
            let mut negative_halves = vec![[0; 2]; blocks * tokens];
            let (mut scales, mut sums) = (vec![0.0; blocks * tokens], vec![0.0; blocks * tokens]);
            let mut places = Places {
                activations,
                tokens,
                quants: &mut quants,
                scales: &mut scales,
                sums: &mut sums,
                negative_sums: &mut negative_sums,
                negative_halves: &mut negative_halves,
            };
            quantize_blocks(level, &values[..4 * BLOCK], 0, 1, &mut places);
            quantize_blocks(level, &values[4 * BLOCK..], 4, 1, &mut places);
            let quants = quants.chunks_exact(activations.digits() * BLOCK);
            let quants: Vec<_> = quants.map(|block| whole(level, block)).collect();
            (quants, scales, sums, negative_sums, negative_halves)
        };
        for activations in [Activations::Bits8, Activations::Bits16] {
            let reference = run(Level::Scalar, activations);
            let quants = &reference.0[5 * tokens + 1];
            let expected = match activations {
                Activations::Bits8 => [127, 0, 2, -2, 0, 0, 126, -127],
                Activations::Bits16 => [32639, 128, 386, -642, 0, 0, 32510, -32639],
            };
            assert_eq!(quants[..8], expected);
            for &level in Level::available() {
                assert_eq!(run(level, activations), reference, "{level:?}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_not_hidden() {
        for activations in [Activations::Bits8, Activations::Bits16] {
            let mut digits = vec![0; activations.digits() * BLOCK];
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = [1.0; BLOCK];
                values[17] = bad;
                assert!(!quantize_block(activations, &values, &mut digits).0.is_finite());
            }
            assert_eq!(quantize_block(activations, &[0.0; BLOCK], &mut digits), (0.0, [0; 2]));
        }
    }
}
