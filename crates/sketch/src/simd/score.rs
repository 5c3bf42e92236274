//! Scores of one real query against many sign codes, by table lookup.
//!
//! `Σ_j y_j s_j` over the 64 signs of a code word is a sum of few numbers, each a function of a few bits of the
//! code. How many bits is the number of entries that a register-wide lookup has: 16 floats under AVX-512, so that
//! 16 lookups of 4 bits replace 64 additions, and 8 under AVX2, 22 lookups of 3 bits (and 2 at the end of each half).

use super::Level;

/// The lookup tables of a query for one level.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    level: Level,
    words: usize,
    /// `[word][lookup][entry]`: 16 lookups of 16 entries, or 22 of 8 under AVX2.
    sums: Vec<f32>,
}

impl Tables {
    /// The tables of projections `y`, one per bit; bits beyond them count nothing.
    pub(crate) fn new(level: Level, y: &[f32]) -> Self {
        let words = y.len().div_ceil(64);
        let sums = match level {
            Level::Avx2 => build::<8>(22, y),
            _ => build::<16>(16, y),
        };
        Self { level, words, sums }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.sums.capacity() * size_of::<f32>()
    }

    /// `out[i] = Σ_j y_j s_j(codes[i])`; `codes` is `[i][word]`.
    ///
    /// # Panics
    /// If `codes` is not `out.len()` codes.
    pub(crate) fn score_many(&self, codes: &[u64], out: &mut [f32]) {
        assert_eq!(Some(codes.len()), self.words.checked_mul(out.len()), "as many codes as outputs");
        if self.words == 0 {
            return out.fill(0.0);
        }
        match self.level {
            // SAFETY: a level is only ever one that the processor was found to have.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { x86::avx512(&self.sums, self.words, codes, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { x86::avx2(&self.sums, self.words, codes, out) },
            _ => self.scalar(codes, out),
        }
    }

    fn scalar(&self, codes: &[u64], out: &mut [f32]) {
        for (out, code) in out.iter_mut().zip(codes.chunks_exact(self.words)) {
            *out = 0.0;
            for (&word, tables) in code.iter().zip(self.sums.as_chunks::<256>().0) {
                for (lookup, table) in tables.as_chunks::<16>().0.iter().enumerate() {
                    *out += table[(word >> (4 * lookup) & 15) as usize];
                }
            }
        }
    }
}

/// Tables of `ENTRIES` sums, `lookups` for every 64 projections.
fn build<const ENTRIES: usize>(lookups: usize, y: &[f32]) -> Vec<f32> {
    let bits = ENTRIES.ilog2() as usize;
    let mut sums = vec![0.0; y.len().div_ceil(64) * lookups * ENTRIES];
    for (table, lookup) in sums.as_chunks_mut::<ENTRIES>().0.iter_mut().zip(0..) {
        // Both halves of a word begin a lookup of their own, and none reaches over the end of its half.
        let (word_half, first) = (lookup / (lookups / 2), bits * (lookup % (lookups / 2)));
        for bit in 0..bits.min(32 - first) {
            let y = y.get(32 * word_half + first + bit).copied().unwrap_or(0.0);
            for (entry, sum) in table.iter_mut().enumerate() {
                *sum += if entry >> bit & 1 == 1 { y } else { -y };
            }
        }
    }
    sums
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    /// Word w of each of the first sixteen codes of `words` words.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(in crate::simd) fn sixteen_words(codes: &[u64], words: usize, w: usize) -> (__m512i, __m512i) {
        assert!(codes.len() >= 16 * words && w < words);
        let first = codes[w..].as_ptr();
        if words == 1 {
            // SAFETY: sixteen codes of one word are two registers.
            return unsafe { (_mm512_loadu_si512(first.cast()), _mm512_loadu_si512(first.add(8).cast())) };
        }
        if words == 2 {
            let every_other = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
            let places = _mm512_add_epi64(every_other, _mm512_set1_epi64(w as i64));
            let codes = codes.as_ptr();
            // SAFETY: sixteen codes of two words are four registers.
            let [a, b, c, d] =
                unsafe { [0, 8, 16, 24].map(|first| _mm512_loadu_si512(codes.add(first).cast())) };
            return (_mm512_permutex2var_epi64(a, places, b), _mm512_permutex2var_epi64(c, places, d));
        }
        let places = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
        // Both factors are far below 2^32.
        let places = _mm512_mul_epu32(places, _mm512_set1_epi64(words as i64));
        // SAFETY: the last place read is 15 · words + w, below 16 · words.
        unsafe {
            let (low, high) = (first.cast(), first.add(8 * words).cast());
            (_mm512_i64gather_epi64::<8>(places, low), _mm512_i64gather_epi64::<8>(places, high))
        }
    }

    /// Sixteen codes at a time, sixteen lookups a word: shift the wanted four bits down, permute the table by them
    /// (the permutation ignores the bits above), add.
    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(sums: &[f32], words: usize, codes: &[u64], out: &mut [f32]) {
        let mut blocks = out.chunks_exact_mut(16);
        let mut codes = codes.chunks_exact(16 * words);
        for (out, codes) in (&mut blocks).zip(&mut codes) {
            sixteen(sums, words, codes, out);
        }
        let rest = blocks.into_remainder();
        if !rest.is_empty() {
            let (mut padded, mut scores) = (vec![0; 16 * words], [0.0; 16]);
            padded[..codes.remainder().len()].copy_from_slice(codes.remainder());
            sixteen(sums, words, &padded, &mut scores);
            rest.copy_from_slice(&scores[..rest.len()]);
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn sixteen(sums: &[f32], words: usize, codes: &[u64], out: &mut [f32]) {
        assert_eq!(out.len(), 16);
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
        let (mut low_sum, mut high_sum) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        for (w, tables) in sums.as_chunks::<256>().0.iter().enumerate() {
            let (a, b) = sixteen_words(codes, words, w);
            let mut low = _mm512_permutex2var_epi32(a, even, b);
            let mut high = _mm512_permutex2var_epi32(a, odd, b);
            for lookup in 0..8 {
                // SAFETY: 16 tables of 16 entries are 256 floats.
                let (t0, t1) = unsafe {
                    let table = tables.as_ptr().add(16 * lookup);
                    (_mm512_loadu_ps(table), _mm512_loadu_ps(table.add(128)))
                };
                low_sum = _mm512_add_ps(low_sum, _mm512_permutexvar_ps(low, t0));
                high_sum = _mm512_add_ps(high_sum, _mm512_permutexvar_ps(high, t1));
                low = _mm512_srli_epi32::<4>(low);
                high = _mm512_srli_epi32::<4>(high);
            }
        }
        // SAFETY: the output is one register wide.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), _mm512_add_ps(low_sum, high_sum)) };
    }

    /// Eight codes at a time, eleven lookups of three bits for each half of a word.
    #[target_feature(enable = "avx2")]
    pub(super) fn avx2(sums: &[f32], words: usize, codes: &[u64], out: &mut [f32]) {
        let mut blocks = out.chunks_exact_mut(8);
        let mut codes = codes.chunks_exact(8 * words);
        for (out, codes) in (&mut blocks).zip(&mut codes) {
            eight(sums, words, codes, out);
        }
        let rest = blocks.into_remainder();
        if !rest.is_empty() {
            let (mut padded, mut scores) = (vec![0; 8 * words], [0.0; 8]);
            padded[..codes.remainder().len()].copy_from_slice(codes.remainder());
            eight(sums, words, &padded, &mut scores);
            rest.copy_from_slice(&scores[..rest.len()]);
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn eight(sums: &[f32], words: usize, codes: &[u64], out: &mut [f32]) {
        assert_eq!(out.len(), 8);
        assert_eq!(codes.len(), 8 * words);
        let (mut low_sum, mut high_sum) = (_mm256_setzero_ps(), _mm256_setzero_ps());
        for (w, tables) in sums.as_chunks::<176>().0.iter().enumerate() {
            let (a, b) = if words == 1 {
                // SAFETY: eight codes of one word are two registers.
                unsafe {
                    let codes = codes.as_ptr();
                    (_mm256_loadu_si256(codes.cast()), _mm256_loadu_si256(codes.add(4).cast()))
                }
            } else {
                let at = |i: usize| codes[i * words + w] as i64;
                (
                    _mm256_setr_epi64x(at(0), at(1), at(2), at(3)),
                    _mm256_setr_epi64x(at(4), at(5), at(6), at(7)),
                )
            };
            let (a, b) = (_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
            // The halves of codes 0 1 4 5 2 3 6 7, in this order.
            let mut low = _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(a, b));
            let mut high = _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(a, b));
            for lookup in 0..11 {
                // SAFETY: 22 tables of 8 entries are 176 floats.
                let (t0, t1) = unsafe {
                    let table = tables.as_ptr().add(8 * lookup);
                    (_mm256_loadu_ps(table), _mm256_loadu_ps(table.add(88)))
                };
                low_sum = _mm256_add_ps(low_sum, _mm256_permutevar8x32_ps(t0, low));
                high_sum = _mm256_add_ps(high_sum, _mm256_permutevar8x32_ps(t1, high));
                low = _mm256_srli_epi32::<3>(low);
                high = _mm256_srli_epi32::<3>(high);
            }
        }
        let sum = _mm256_castps_pd(_mm256_add_ps(low_sum, high_sum));
        let ordered = _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(sum));
        // SAFETY: the output is one register wide.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), ordered) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn every_level_is_the_signed_sum() {
        let mut random = Random::new(3, 3);
        for bits in [0usize, 1, 2, 3, 5, 31, 32, 33, 63, 64, 65, 100, 128, 200, 256] {
            for n in [0, 1, 7, 8, 9, 15, 16, 17, 50] {
                let y: Vec<f32> = (0..bits).map(|_| random.normal() as f32).collect();
                let words = bits.div_ceil(64);
                let codes: Vec<u64> = (0..n * words).map(|_| random.next_u64()).collect();
                let sign = |i: usize, j: usize| codes[i * words + j / 64] >> (j % 64) & 1 == 1;
                for level in Level::available() {
                    let mut out = vec![f32::NAN; n];
                    Tables::new(level, &y).score_many(&codes, &mut out);
                    for (i, &score) in out.iter().enumerate() {
                        let signed = |j: usize| if sign(i, j) { f64::from(y[j]) } else { -f64::from(y[j]) };
                        let expected: f64 = (0..bits).map(signed).sum();
                        assert!(
                            (f64::from(score) - expected).abs() < 1e-4,
                            "{level:?}, {bits} bits, code {i} of {n}"
                        );
                    }
                }
            }
        }
    }
}
