//! Visiting the counters of many keys in all rows of a table.
//!
//! Hashing keeps the vector units busy, counting the load and store units; sixteen keys at a time are few enough
//! that a processor works on both at once. Four rows at a time are enough that their counters do not wait for each
//! other when one key comes many times in a row.

use super::Level;
use crate::hash::{LinearHash, column, scramble};

/// Keys handled at once.
pub(crate) const LANES: usize = 16;
/// Rows handled at once.
const GROUP: usize = 4;

/// Calls `f(counter, i)` for the counter of every key i in every row of a table `[row][width]`.
///
/// # Panics
/// If the table does not have `rows.len()` rows of `width` counters.
pub(crate) fn for_each_counter<C>(
    level: Level,
    rows: &[LinearHash],
    width: u32,
    table: &mut [C],
    keys: &[u64],
    f: impl FnMut(&mut C, usize),
) {
    assert_eq!(Some(table.len()), rows.len().checked_mul(width as usize));
    visit(level, rows, width, keys, &mut ForEach { table, width: width as usize, f });
}

/// `least[i]` = the least of the counters of key i over the rows of a table `[row][width]`.
///
/// # Panics
/// If the table does not have `rows.len()` rows of `width` counters, or there are not as many minima as keys.
pub(crate) fn least_counters<C: Copy + PartialOrd>(
    level: Level,
    rows: &[LinearHash],
    width: u32,
    table: &[C],
    keys: &[u64],
    least: &mut [C],
) {
    assert_eq!(Some(table.len()), rows.len().checked_mul(width as usize));
    assert_eq!(keys.len(), least.len());
    visit(level, rows, width, keys, &mut Least { table, width: width as usize, least });
}

/// What is done with the columns of a few keys in a few rows.
trait Visitor {
    /// `columns[r][i]` is the column of key `key + i` in row `row + r`, for i below `keys`.
    ///
    /// # Safety
    /// The columns are below the width of the rows.
    unsafe fn columns(&mut self, columns: &[[u32; LANES]], row: usize, key: usize, keys: usize);
}

struct ForEach<'a, C, F> {
    /// As many rows as are visited.
    table: &'a mut [C],
    width: usize,
    f: F,
}

impl<C, F: FnMut(&mut C, usize)> Visitor for ForEach<'_, C, F> {
    #[inline(always)]
    unsafe fn columns(&mut self, columns: &[[u32; LANES]], row: usize, key: usize, keys: usize) {
        for i in 0..keys.min(LANES) {
            for (r, columns) in columns.iter().enumerate() {
                // SAFETY: row + r is one of the table's rows, and the caller answers for the column.
                let counter =
                    unsafe { self.table.get_unchecked_mut((row + r) * self.width + columns[i] as usize) };
                (self.f)(counter, key + i);
            }
        }
    }
}

struct Least<'a, C> {
    /// As many rows as are visited.
    table: &'a [C],
    width: usize,
    least: &'a mut [C],
}

impl<C: Copy + PartialOrd> Visitor for Least<'_, C> {
    #[inline(always)]
    unsafe fn columns(&mut self, columns: &[[u32; LANES]], row: usize, key: usize, keys: usize) {
        let least = &mut self.least[key..][..keys.min(LANES)];
        for (r, columns) in columns.iter().enumerate() {
            for (least, &column) in least.iter_mut().zip(columns) {
                // SAFETY: row + r is one of the table's rows, and the caller answers for the column.
                let counter = unsafe { *self.table.get_unchecked((row + r) * self.width + column as usize) };
                if row + r == 0 || counter < *least {
                    *least = counter;
                }
            }
        }
    }
}

/// Shows the visitor every key in every row.
fn visit(level: Level, rows: &[LinearHash], width: u32, keys: &[u64], visitor: &mut impl Visitor) {
    match level {
        // SAFETY: a level is only ever one that the processor was found to have.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::avx512(rows, width, keys, visitor) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::avx2(rows, width, keys, visitor) },
        _ => scalar(rows, width, keys, visitor),
    }
}

fn scalar(rows: &[LinearHash], width: u32, keys: &[u64], visitor: &mut impl Visitor) {
    let mut columns = [[0; LANES]; GROUP];
    for (group, rows) in rows.chunks(GROUP).enumerate() {
        for (batch, keys) in keys.chunks(LANES).enumerate() {
            // Keys outside, rows inside: the other way round compilers vectorise 64-bit multiplications that the
            // baseline does not have, and lose by it.
            for (i, &key) in keys.iter().enumerate() {
                let key = scramble(key);
                for (columns, hash) in columns.iter_mut().zip(rows) {
                    columns[i] = column(hash.hash(key), width);
                }
            }
            // SAFETY: `column` is below the width.
            unsafe { visitor.columns(&columns[..rows.len()], group * GROUP, batch * LANES, keys.len()) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    use super::{GROUP, LANES, Visitor};
    use crate::hash::{LinearHash, P, SCRAMBLE};

    const LOW_52: u64 = (1 << 52) - 1;
    const LOW_31: u64 = (1 << 31) - 1;

    /// The keys from `first` on: in place where there are enough of them, else copied into `rest`.
    #[inline(always)]
    pub(in crate::simd) fn sixteen<'a>(
        keys: &'a [u64],
        first: usize,
        rest: &'a mut [u64; LANES],
    ) -> &'a [u64; LANES] {
        match keys[first..].first_chunk() {
            Some(keys) => keys,
            None => {
                rest[..keys.len() - first].copy_from_slice(&keys[first..]);
                rest
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn avx512(rows: &[LinearHash], width: u32, keys: &[u64], visitor: &mut impl Visitor) {
        // Keys of 32 bits need only half of the products.
        let short = keys.iter().fold(0, |all, key| all | key) >> 32 == 0;
        let (groups, rest) = rows.as_chunks::<GROUP>();
        for (group, rows) in groups.iter().enumerate() {
            if short {
                avx512_rows::<GROUP, true>(rows, width, keys, group * GROUP, visitor);
            } else {
                avx512_rows::<GROUP, false>(rows, width, keys, group * GROUP, visitor);
            }
        }
        for (row, hash) in rest.iter().enumerate() {
            avx512_rows::<1, false>(&[*hash], width, keys, groups.len() * GROUP + row, visitor);
        }
    }

    /// [`scramble`](crate::hash::scramble), both halves of eight keys at once.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn scramble_avx512(x: __m512i) -> __m512i {
        let [m0, m1] = SCRAMBLE.map(|m| _mm512_set1_epi32(m as i32));
        let x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32::<16>(x)), m0);
        let x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32::<15>(x)), m1);
        _mm512_xor_si512(x, _mm512_srli_epi32::<15>(x))
    }

    /// [`scramble`](crate::hash::scramble), both halves of four keys at once.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn scramble_avx2(x: __m256i) -> __m256i {
        let [m0, m1] = SCRAMBLE.map(|m| _mm256_set1_epi32(m as i32));
        let x = _mm256_mullo_epi32(_mm256_xor_si256(x, _mm256_srli_epi32::<16>(x)), m0);
        let x = _mm256_mullo_epi32(_mm256_xor_si256(x, _mm256_srli_epi32::<15>(x)), m1);
        _mm256_xor_si256(x, _mm256_srli_epi32::<15>(x))
    }

    /// One row's multipliers in limbs of 52 and 9 bits, one register each.
    struct Row {
        low: [__m512i; 2],
        high: [__m512i; 2],
        offset: [__m512i; 2],
    }

    /// Eight keys in a register, with 52-bit multiply-and-add.
    ///
    /// With a = a1·2^52 + a0 and the key's 32-bit halves x and y, the sum `a·x + c·y + b` is `A + 2^52·B` where A
    /// gathers the lower halves of the 52-bit products and B the upper ones, both far from overflow. Since
    /// 2^61 = 1 in the field, 2^52·B is (B mod 2^9)·2^52 + (B >> 9), and one subtraction completes the reduction.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn avx512_rows<const R: usize, const SHORT: bool>(
        rows: &[LinearHash; R],
        width: u32,
        keys: &[u64],
        first_row: usize,
        visitor: &mut impl Visitor,
    ) {
        let (zero, prime) = (_mm512_setzero_si512(), _mm512_set1_epi64(P as i64));
        let width = _mm512_set1_epi64(i64::from(width));
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let limbs = |a: u64| [(a & LOW_52) as i64, (a >> 52) as i64].map(|limb| _mm512_set1_epi64(limb));
        let rows: [Row; R] = std::array::from_fn(|r| Row {
            low: limbs(rows[r].low),
            high: limbs(rows[r].high),
            offset: limbs(rows[r].offset),
        });
        let eight = |key: __m512i, row: &Row| {
            let x = if SHORT { key } else { _mm512_and_si512(key, _mm512_set1_epi64(0xffff_ffff)) };
            let mut a = _mm512_madd52lo_epu64(row.offset[0], row.low[0], x);
            let mut b = _mm512_madd52hi_epu64(row.offset[1], row.low[0], x);
            b = _mm512_madd52lo_epu64(b, row.low[1], x);
            if !SHORT {
                let y = _mm512_srli_epi64::<32>(key);
                a = _mm512_madd52lo_epu64(a, row.high[0], y);
                b = _mm512_madd52hi_epu64(b, row.high[0], y);
                b = _mm512_madd52lo_epu64(b, row.high[1], y);
            }
            let wrapped = _mm512_add_epi64(a, _mm512_srli_epi64::<9>(b));
            let t = _mm512_add_epi64(wrapped, _mm512_and_si512(_mm512_slli_epi64::<52>(b), prime));
            // Where t < p the difference wraps around and is the greater of the two.
            let value = _mm512_min_epu64(t, _mm512_sub_epi64(t, prime));
            _mm512_madd52hi_epu64(zero, _mm512_srli_epi64::<9>(value), width)
        };
        let mut rest = [0; LANES];
        // The columns of the keys at hand and of those before them: while these are visited, which waits for
        // memory, those are computed.
        let mut columns = [[[0; LANES]; R]; 2];
        let blocks = keys.len().div_ceil(LANES);
        for block in 0..=blocks {
            if block < blocks {
                let keys16 = sixteen(keys, block * LANES, &mut rest);
                // SAFETY: the array is two registers wide.
                let (k0, k1) = unsafe {
                    let keys = keys16.as_ptr();
                    (_mm512_loadu_si512(keys.cast()), _mm512_loadu_si512(keys.add(8).cast()))
                };
                let (k0, k1) = (scramble_avx512(k0), scramble_avx512(k1));
                for (columns, row) in columns[block % 2].iter_mut().zip(&rows) {
                    let both = _mm512_permutex2var_epi32(eight(k0, row), even, eight(k1, row));
                    // SAFETY: the array is one register wide.
                    unsafe { _mm512_storeu_si512(columns.as_mut_ptr().cast(), both) };
                }
            }
            if let Some(before) = block.checked_sub(1) {
                let first = before * LANES;
                // SAFETY: 52 bits times the width, shifted by 52 bits, are below the width.
                unsafe { visitor.columns(&columns[before % 2], first_row, first, keys.len() - first) };
            }
        }
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn avx2(rows: &[LinearHash], width: u32, keys: &[u64], visitor: &mut impl Visitor) {
        let (groups, rest) = rows.as_chunks::<GROUP>();
        for (group, rows) in groups.iter().enumerate() {
            avx2_rows(rows, width, keys, group * GROUP, visitor);
        }
        for (row, hash) in rest.iter().enumerate() {
            avx2_rows(&[*hash], width, keys, groups.len() * GROUP + row, visitor);
        }
    }

    /// Four keys in a register, with 32-bit multiplications.
    ///
    /// With a = a1·2^31 + a0 the sum is `L + 2^31·M`, L of products below 2^63 and M of products below 2^62; 2^31·M
    /// is (M mod 2^30)·2^31 + (M >> 30) in the field.
    #[target_feature(enable = "avx2")]
    fn avx2_rows<const R: usize>(
        rows: &[LinearHash; R],
        width: u32,
        keys: &[u64],
        first_row: usize,
        visitor: &mut impl Visitor,
    ) {
        let prime = _mm256_set1_epi64x(P as i64);
        let width = _mm256_set1_epi64x(i64::from(width));
        let even = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
        let limbs = |a: u64| [(a & LOW_31) as i64, (a >> 31) as i64].map(|limb| _mm256_set1_epi64x(limb));
        let mut rest = [0; LANES];
        let mut columns = [[0; LANES]; R];
        for first in (0..keys.len()).step_by(LANES) {
            let keys16 = sixteen(keys, first, &mut rest);
            let mut scrambled = [_mm256_setzero_si256(); LANES / 4];
            for (x, keys) in scrambled.iter_mut().zip(keys16.as_chunks::<4>().0) {
                // SAFETY: the array is one register wide.
                *x = scramble_avx2(unsafe { _mm256_loadu_si256(keys.as_ptr().cast()) });
            }
            for (columns, hash) in columns.iter_mut().zip(rows) {
                let (low, high) = (limbs(hash.low), limbs(hash.high));
                let offset = _mm256_set1_epi64x(hash.offset as i64);
                for (&x, columns) in scrambled.iter().zip(columns.as_chunks_mut::<4>().0) {
                    // A 32-bit multiplication reads the lower half of each lane only.
                    let y = _mm256_srli_epi64::<32>(x);
                    let l = _mm256_add_epi64(_mm256_mul_epu32(low[0], x), _mm256_mul_epu32(high[0], y));
                    let m = _mm256_add_epi64(_mm256_mul_epu32(low[1], x), _mm256_mul_epu32(high[1], y));
                    let mut t = _mm256_add_epi64(_mm256_and_si256(l, prime), _mm256_srli_epi64::<61>(l));
                    t = _mm256_add_epi64(t, _mm256_and_si256(_mm256_slli_epi64::<31>(m), prime));
                    t = _mm256_add_epi64(t, _mm256_add_epi64(_mm256_srli_epi64::<30>(m), offset));
                    t = _mm256_add_epi64(_mm256_and_si256(t, prime), _mm256_srli_epi64::<61>(t));
                    // Below 2^63 a signed comparison will do.
                    let small = _mm256_cmpgt_epi64(prime, t);
                    let value = _mm256_sub_epi64(t, _mm256_andnot_si256(small, prime));
                    // (v·width) >> 52 for v of 52 bits in limbs of 20 and 32.
                    let v = _mm256_srli_epi64::<9>(value);
                    let lower = _mm256_srli_epi64::<32>(_mm256_mul_epu32(v, width));
                    let upper = _mm256_mul_epu32(_mm256_srli_epi64::<32>(v), width);
                    let column = _mm256_srli_epi64::<20>(_mm256_add_epi64(upper, lower));
                    let packed = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(column, even));
                    // SAFETY: the array is one register wide.
                    unsafe { _mm_storeu_si128(columns.as_mut_ptr().cast(), packed) };
                }
            }
            // SAFETY: 52 bits times the width, shifted by 52 bits, are below the width.
            unsafe { visitor.columns(&columns, first_row, first, keys.len() - first) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::P;
    use crate::random::Random;

    /// Keeps every column it is shown.
    struct Collect(Vec<Vec<u32>>);

    impl Visitor for Collect {
        unsafe fn columns(&mut self, columns: &[[u32; LANES]], row: usize, key: usize, keys: usize) {
            for (r, columns) in columns.iter().enumerate() {
                for (i, &column) in columns.iter().enumerate().take(keys) {
                    assert_eq!(self.0[row + r][key + i], u32::MAX, "seen once");
                    self.0[row + r][key + i] = column;
                }
            }
        }
    }

    #[test]
    fn every_level_visits_the_columns_of_the_hashes() {
        let mut random = Random::new(1, 1);
        let extremes = [0, 1, P - 1, P, P + 1, u64::MAX, u64::MAX - 1, 0xffff_ffff, 1 << 32, 1 << 63];
        let extreme = |x: u64| LinearHash { low: x, high: x, offset: x };
        for width in [1, 2, 3, 1000, 1024, 65_537, u32::MAX - 1] {
            for (n, shift) in (0..20).chain([31, 32, 33, 127]).flat_map(|n| [(n, 0), (n, 32)]) {
                let key = |i: usize| extremes.get(i).copied().unwrap_or_else(|| random.next_u64()) >> shift;
                let keys: Vec<u64> = (0..n).map(key).collect();
                let mut rows: Vec<LinearHash> = (0..7).map(|_| LinearHash::new(&mut random)).collect();
                rows.extend([extreme(0), extreme(1), extreme(P - 1)]);
                let columns_of = |hash: &LinearHash| {
                    keys.iter().map(|&key| column(hash.hash(scramble(key)), width)).collect()
                };
                let expected: Vec<Vec<u32>> = rows.iter().map(columns_of).collect();
                for level in Level::available() {
                    let mut seen = Collect(vec![vec![u32::MAX; n]; rows.len()]);
                    visit(level, &rows, width, &keys, &mut seen);
                    assert_eq!(seen.0, expected, "{level:?}, width {width}, {n} keys");
                }
            }
        }
    }
}
