//! Hamming distances of one packed code to many.

use super::Level;

/// `out[i] = Σ_w popcount(query[w] xor codes[i][w])`; `codes` is `[i][w]`.
///
/// # Panics
/// If `codes` is not `out.len()` codes of `query.len()` words.
pub(crate) fn hamming_many(level: Level, query: &[u64], codes: &[u64], out: &mut [u32]) {
    assert_eq!(Some(codes.len()), query.len().checked_mul(out.len()), "as many codes as outputs");
    if query.is_empty() {
        return out.fill(0);
    }
    match level {
        // SAFETY: a level is only ever one that the processor was found to have.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::avx512(query, codes, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::avx2(query, codes, out) },
        _ => scalar(query, codes, out),
    }
}

#[inline(always)]
fn scalar(query: &[u64], codes: &[u64], out: &mut [u32]) {
    match query.len() {
        1 => of_words::<1>(query, codes, out),
        2 => of_words::<2>(query, codes, out),
        4 => of_words::<4>(query, codes, out),
        words => {
            for (out, code) in out.iter_mut().zip(codes.chunks_exact(words)) {
                *out = distance(query, code);
            }
        }
    }
}

/// A length known to the compiler, for the common ones.
#[inline(always)]
fn of_words<const W: usize>(query: &[u64], codes: &[u64], out: &mut [u32]) {
    for (out, code) in out.iter_mut().zip(codes.as_chunks::<W>().0) {
        *out = distance(&query[..W], code);
    }
}

#[inline(always)]
fn distance(a: &[u64], b: &[u64]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use crate::simd::score::x86::sixteen_words;

    /// The reference with the processor's own population count, one word a cycle.
    #[target_feature(enable = "popcnt")]
    pub(super) fn avx2(query: &[u64], codes: &[u64], out: &mut [u32]) {
        super::scalar(query, codes, out);
    }

    /// Sixteen codes at a time.
    #[target_feature(enable = "avx512f,avx512vpopcntdq,popcnt")]
    pub(super) fn avx512(query: &[u64], codes: &[u64], out: &mut [u32]) {
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let words = query.len();
        let (blocks, rest) = out.as_chunks_mut::<16>();
        for (block, codes) in blocks.iter_mut().zip(codes.chunks_exact(16 * words)) {
            let (mut low, mut high) = (_mm512_setzero_si512(), _mm512_setzero_si512());
            for (w, &query) in query.iter().enumerate() {
                let query = _mm512_set1_epi64(query as i64);
                let (a, b) = sixteen_words(codes, words, w);
                low = _mm512_add_epi64(low, _mm512_popcnt_epi64(_mm512_xor_si512(a, query)));
                high = _mm512_add_epi64(high, _mm512_popcnt_epi64(_mm512_xor_si512(b, query)));
            }
            let counts = _mm512_permutex2var_epi32(low, even, high);
            // SAFETY: a block is one register wide.
            unsafe { _mm512_storeu_si512(block.as_mut_ptr().cast(), counts) };
        }
        avx2(query, &codes[words * (16 * blocks.len())..], rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn every_level_is_the_scalar_reference() {
        let mut random = Random::new(2, 2);
        for words in 0..6 {
            for n in [0, 1, 2, 15, 16, 17, 31, 32, 33, 100] {
                let mut query: Vec<u64> = (0..words).map(|_| random.next_u64()).collect();
                let codes: Vec<u64> = (0..n * words + 1).map(|_| random.next_u64()).collect();
                if n % 2 == 0 {
                    query.fill(u64::MAX);
                }
                // One word on, so that no code is aligned to its vector.
                let codes = &codes[1..];
                let distance = |i: usize| {
                    (0..words).map(|w| (query[w] ^ codes[i * words + w]).count_ones()).sum::<u32>()
                };
                let expected: Vec<u32> = (0..n).map(distance).collect();
                for level in Level::available() {
                    let mut out = vec![7; n];
                    hamming_many(level, &query, codes, &mut out);
                    assert_eq!(out, expected, "{level:?}, {n} codes of {words} words");
                }
            }
        }
    }
}
