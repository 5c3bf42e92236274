//! Visiting the signed counters of many keys in all rows of a Count-Sketch.

use super::Level;
use super::columns::LANES;
use crate::hash::{CubicHash, LinearHash, column};

/// The hash functions of a Count-Sketch: `fold` takes a key into the field, for all rows, and each row's value of
/// that is its column in the upper bits and its sign in the lowest.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SignedRows {
    pub(crate) fold: LinearHash,
    pub(crate) rows: Vec<CubicHash>,
}

impl SignedRows {
    /// The column of a key in every row, and whether its sign there is negative.
    #[inline]
    pub(crate) fn places(&self, key: u64, width: usize) -> impl Iterator<Item = (usize, bool)> {
        let key = self.fold.hash(key);
        self.rows.iter().map(move |hash| {
            let value = hash.hash(key);
            (column(value, width as u32) as usize, value & 1 == 1)
        })
    }
}

/// The columns and signs of up to [`LANES`] keys in one row.
pub(crate) struct Places {
    columns: [u32; LANES],
    /// Bit i: the sign of key i is negative.
    negative: u16,
    keys: usize,
    width: usize,
}

impl Places {
    /// Of no keys yet.
    fn new(width: u32) -> Self {
        Self { columns: [0; LANES], negative: 0, keys: 0, width: width as usize }
    }

    /// Calls `f(counter, i, negative)` for the counter of every key i in `row`.
    ///
    /// # Panics
    /// If the row is not of the width that the columns are for.
    #[inline(always)]
    pub(crate) fn for_each<C>(&self, row: &mut [C], mut f: impl FnMut(&mut C, usize, bool)) {
        assert_eq!(row.len(), self.width);
        for (i, &column) in self.columns[..self.keys].iter().enumerate() {
            // SAFETY: the columns of the keys are below the width, the length of the row.
            f(unsafe { row.get_unchecked_mut(column as usize) }, i, self.negative >> i & 1 == 1);
        }
    }

    /// The counters of the keys in `row`, with a flag for a negative sign.
    ///
    /// # Panics
    /// If the row is not of the width that the columns are for.
    #[inline(always)]
    pub(crate) fn read<'a, C: Copy>(&'a self, row: &'a [C]) -> impl Iterator<Item = (C, bool)> + 'a {
        assert_eq!(row.len(), self.width);
        self.columns[..self.keys].iter().enumerate().map(|(i, &column)| {
            // SAFETY: as above.
            (unsafe { *row.get_unchecked(column as usize) }, self.negative >> i & 1 == 1)
        })
    }
}

/// Calls `f(places, row, first key)` for all rows of all keys, [`LANES`] keys at a time.
pub(crate) fn visit(
    level: Level,
    hashes: &SignedRows,
    width: u32,
    keys: &[u64],
    f: &mut impl FnMut(&Places, usize, usize),
) {
    match level {
        // SAFETY: a level is only ever one that the processor was found to have.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::avx512(hashes, width, keys, f) },
        // 32-bit multiplications make too many parts of a field element: AVX2 gains nothing.
        _ => scalar(hashes, width, keys, f),
    }
}

fn scalar(hashes: &SignedRows, width: u32, keys: &[u64], f: &mut impl FnMut(&Places, usize, usize)) {
    let mut places = Places::new(width);
    for (batch, keys) in keys.chunks(LANES).enumerate() {
        let mut folded = [0; LANES];
        folded.iter_mut().zip(keys).for_each(|(folded, &key)| *folded = hashes.fold.hash(key));
        places.keys = keys.len();
        for (row, hash) in hashes.rows.iter().enumerate() {
            places.negative = 0;
            for (i, &key) in folded[..keys.len()].iter().enumerate() {
                let value = hash.hash(key);
                places.columns[i] = column(value, width);
                places.negative |= ((value & 1) as u16) << i;
            }
            f(&places, row, batch * LANES);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Places, SignedRows};
    use crate::hash::P;
    use crate::simd::columns::LANES;
    use crate::simd::columns::x86::sixteen;

    const LOW_52: u64 = (1 << 52) - 1;

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn constant(x: u64) -> __m512i {
        _mm512_set1_epi64(x as i64)
    }

    /// The lower 52 bits and those above.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn limbs(x: __m512i) -> [__m512i; 2] {
        [_mm512_and_si512(x, constant(LOW_52)), _mm512_srli_epi64::<52>(x)]
    }

    /// A number below 2^63 that is `v·x + c` modulo p, for v below 2^63 and x, c below p.
    ///
    /// The 52-bit products have the weights 1, 2^52 and 2^104; as 2^104 is 2^43 in the field, the upper two go
    /// together as D·2^43, and that is (D mod 2^18)·2^43 + (D >> 18).
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn multiply_add(v: [__m512i; 2], x: [__m512i; 2], c: __m512i) -> __m512i {
        let zero = _mm512_setzero_si512();
        let a = _mm512_madd52lo_epu64(c, v[0], x[0]);
        let mut b = _mm512_madd52hi_epu64(zero, v[0], x[0]);
        b = _mm512_madd52lo_epu64(b, v[0], x[1]);
        b = _mm512_madd52lo_epu64(b, v[1], x[0]);
        let mut d = _mm512_madd52hi_epu64(_mm512_slli_epi64::<9>(b), v[0], x[1]);
        d = _mm512_madd52hi_epu64(d, v[1], x[0]);
        d = _mm512_madd52lo_epu64(d, v[1], x[1]);
        let upper = _mm512_and_si512(_mm512_slli_epi64::<43>(d), constant(P));
        _mm512_add_epi64(_mm512_add_epi64(a, _mm512_srli_epi64::<18>(d)), upper)
    }

    /// `t mod p` for t below 2^63.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn reduce(t: __m512i) -> __m512i {
        let t = _mm512_add_epi64(_mm512_and_si512(t, constant(P)), _mm512_srli_epi64::<61>(t));
        // Where t < p the difference wraps around and is the greater of the two.
        _mm512_min_epu64(t, _mm512_sub_epi64(t, constant(P)))
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn avx512(
        hashes: &SignedRows,
        width: u32,
        keys: &[u64],
        f: &mut impl FnMut(&Places, usize, usize),
    ) {
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let (zero, one, wide) = (_mm512_setzero_si512(), constant(1), constant(u64::from(width)));
        let fold = &hashes.fold;
        let (low, high, offset) =
            (limbs(constant(fold.low)), limbs(constant(fold.high)), constant(fold.offset));
        // The chains of multiplications are long: four rows of them at once keep the processor busy.
        let mut places = [(); 4].map(|()| Places::new(width));
        let mut rest = [0; LANES];
        for first in (0..keys.len()).step_by(LANES) {
            let keys16 = sixteen(keys, first, &mut rest);
            let folded = [0, 8].map(|half| {
                // SAFETY: the array is two registers wide.
                let key = unsafe { _mm512_loadu_si512(keys16.as_ptr().add(half).cast()) };
                let x = [_mm512_and_si512(key, constant(0xffff_ffff)), zero];
                let y = [_mm512_srli_epi64::<32>(key), zero];
                let t = reduce(multiply_add(low, x, offset));
                limbs(reduce(multiply_add(high, y, t)))
            });
            for (group, rows) in hashes.rows.chunks(4).enumerate() {
                for (hash, places) in rows.iter().zip(&mut places) {
                    let [c0, c1, c2, c3] = hash.coefficients.map(|c| constant(c));
                    let values = folded.map(|x| {
                        let t = multiply_add(limbs(c3), x, c2);
                        let t = multiply_add(limbs(t), x, c1);
                        reduce(multiply_add(limbs(t), x, c0))
                    });
                    let [a, b] =
                        values.map(|value| _mm512_madd52hi_epu64(zero, _mm512_srli_epi64::<9>(value), wide));
                    let [s, t] = values.map(|value| u16::from(_mm512_test_epi64_mask(value, one)));
                    places.negative = s | t << 8;
                    places.keys = LANES.min(keys.len() - first);
                    // SAFETY: the array is one register wide. 52 bits times the width, shifted by 52 bits, are
                    // below the width.
                    unsafe {
                        let columns = _mm512_permutex2var_epi32(a, even, b);
                        _mm512_storeu_si512(places.columns.as_mut_ptr().cast(), columns);
                    }
                }
                for (i, places) in places[..rows.len()].iter().enumerate() {
                    f(places, 4 * group + i, first);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::P;
    use crate::random::Random;

    #[test]
    fn every_level_visits_the_places_of_the_hashes() {
        let mut random = Random::new(1, 1);
        let extremes = [0, 1, P - 1, P, P + 1, u64::MAX, u64::MAX - 1, 0xffff_ffff, 1 << 32, 1 << 63];
        for width in [1, 2, 3, 1000, 1024, 65_537, u32::MAX - 1] {
            for n in (0..20).chain([31, 32, 33, 127]) {
                let key = |i: usize| extremes.get(i).copied().unwrap_or_else(|| random.next_u64());
                let keys: Vec<u64> = (0..n).map(key).collect();
                let mut rows: Vec<CubicHash> = (0..5).map(|_| CubicHash::new(&mut random)).collect();
                rows.extend([0, 1, P - 1].map(|c| CubicHash { coefficients: [c; 4] }));
                for fold in
                    [LinearHash::new(&mut random), LinearHash { low: P - 1, high: P - 1, offset: P - 1 }]
                {
                    let hashes = SignedRows { fold, rows: rows.clone() };
                    for level in Level::available() {
                        let mut seen = vec![vec![(usize::MAX, false); n]; rows.len()];
                        visit(level, &hashes, width, &keys, &mut |places, row, first| {
                            for i in 0..places.keys {
                                let place = (places.columns[i] as usize, places.negative >> i & 1 == 1);
                                seen[row][first + i] = place;
                            }
                        });
                        for (i, &key) in keys.iter().enumerate() {
                            let places: Vec<_> = hashes.places(key, width as usize).collect();
                            let seen: Vec<_> = seen.iter().map(|row| row[i]).collect();
                            assert_eq!(seen, places, "{level:?}, width {width}, key {key}");
                        }
                    }
                }
            }
        }
    }
}
