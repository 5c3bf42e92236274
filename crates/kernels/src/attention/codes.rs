//! Sign codes: inner products estimated from one bit a projection, many slots at a time.
//!
//! The code of a key k holds the sign s_j of each of its projections p_j = ⟨r_j, k⟩; with the mean |p_j| of the key
//! beside it, Σ_j ⟨r_j, q⟩·s_j·mean|p| estimates Σ_j ⟨r_j, q⟩·p_j. Four signs have 16 sums: a table that
//! fits a register and is looked up for 64 slots at once (the fast scan of product quantizers, André, Kermarrec,
//! Le Scouarnec, 2015).

use super::check_rows;
use super::layout::STRIP;
use super::simd::Simd;
use crate::Scale;
use crate::cpu::Level;
use crate::half::f16;

/// Slots whose codes lie together.
pub const CODE_PAGE: usize = 64;

/// The largest value of a table: two of them still fit a byte.
const TABLE_MAX: f32 = 127.0;
/// The most bits of a code: sums of table values fit 16 bits.
const MAX_BITS: usize = 1024;

/// Bytes of the codes of 64 slots: `bits / 8` lines of 64 bytes, line j holding byte j of every slot.
///
/// # Panics
/// When `bits` is no multiple of 8, or above 1024.
pub fn code_page_bytes(bits: usize) -> usize {
    assert!(bits.is_multiple_of(8) && bits <= MAX_BITS, "{bits} bits: a code has whole bytes, 128 at most");
    CODE_PAGE * bits / 8
}

/// Where in a line the byte of a slot lies: the even bytes are slots 0 to 31, the odd ones 32 to 63, so that both
/// halves of a register of 16-bit sums are in order.
fn place(slot: usize) -> usize {
    slot % (CODE_PAGE / 2) * 2 + slot / (CODE_PAGE / 2)
}

/// Writes the code of one slot: bit j set where projection j is not negative; returns mean |p_j|, finite where they are.
///
/// # Panics
/// When `page` is not one page of as many bits as there are projections.
pub fn put_code(page: &mut [u8], slot: usize, projections: &[f32]) -> f32 {
    assert_eq!(page.len(), code_page_bytes(projections.len()));
    for (line, eight) in page.chunks_exact_mut(CODE_PAGE).zip(projections.chunks_exact(8)) {
        let bits = eight.iter().enumerate().map(|(i, p)| ((*p >= 0.0) as u8) << i);
        line[place(slot)] = bits.fold(0, |byte, bit| byte | bit);
    }
    let share = 1.0 / projections.len() as f32;
    projections.iter().map(|p| p.abs() * share).sum()
}

/// Copies the code of a slot between pages of `bits` bits: `codes` holds whole pages.
pub fn copy_code(codes: &mut [u8], bits: usize, from: usize, to: usize) {
    let bytes = code_page_bytes(bits);
    let at = |slot: usize, line: usize| slot / CODE_PAGE * bytes + line * CODE_PAGE + place(slot % CODE_PAGE);
    for line in 0..bits / 8 {
        codes[at(to, line)] = codes[at(from, line)];
    }
}

/// Projected queries as tables of bytes: `table[x] = Σ_{i<4} ±p_i / step + 63.5`, the signs being the bits of x, and the
/// step such that the largest Σ |p_i| comes to 63.5.
#[derive(Debug, Clone, Default)]
pub struct CodeQueries {
    count: usize,
    bits: usize,
    /// `[query][bits / 4]`
    tables: Vec<[u8; 16]>,
    /// What one unit of a table is worth, per query.
    step: Vec<f32>,
    /// What a sum of table values of 0 is worth, per query.
    zero: Vec<f32>,
}

impl CodeQueries {
    /// Takes the projections of some queries, `[query][bits]`.
    ///
    /// Queries so large that their estimates might be beyond f32 have them smaller, in the same order.
    ///
    /// # Panics
    /// When `bits` is no multiple of 8, or above 1024, or there are no whole queries.
    pub fn set(&mut self, level: Level, projections: &[f32], bits: usize) {
        assert!(bits > 0 && bits.is_multiple_of(8) && bits <= MAX_BITS, "{bits} bits");
        assert!(
            projections.len().is_multiple_of(bits),
            "{} numbers are no codes of {bits}",
            projections.len()
        );
        (self.count, self.bits) = (projections.len() / bits, bits);
        self.tables.resize(projections.len() / 4, [0; 16]);
        self.step.clear();
        self.zero.clear();
        let rows = projections.chunks_exact(bits).zip(self.tables.chunks_exact_mut(bits / 4));
        for (p, tables) in rows {
            // Half a step, taken of each summand, since their sum might be beyond f32.
            let half = p.chunks_exact(4).map(|p| p.iter().map(|p| p.abs() / TABLE_MAX).sum());
            let Scale { scale, inverse } = Scale::new(half.fold(0.0, f32::max), 0.5);
            let step = scale.min(f32::MAX / (TABLE_MAX * tables.len() as f32));
            self.step.push(step);
            self.zero.push(-TABLE_MAX / 2.0 * step * tables.len() as f32);
            // SAFETY: the level was detected on this CPU.
            dispatch!(level, fill_tables(p, inverse, tables))
        }
    }

    /// Number of queries.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Heap bytes.
    pub fn bytes(&self) -> usize {
        self.tables.capacity() * size_of::<[u8; 16]>()
            + (self.step.capacity() + self.zero.capacity()) * size_of::<f32>()
    }
}

/// The sign of summand i in entry x.
const SIGNS: [[f32; 16]; 4] = {
    let mut signs = [[-1.0; 16]; 4];
    let mut x = 0;
    while x < 16 {
        let mut i = 0;
        while i < 4 {
            if x >> i & 1 == 1 {
                signs[i][x] = 1.0;
            }
            i += 1;
        }
        x += 1;
    }
    signs
};

#[inline(always)]
unsafe fn fill_tables<S: Simd>(p: &[f32], inverse: f32, tables: &mut [[u8; 16]]) {
    for (table, p) in tables.iter_mut().zip(p.chunks_exact(4)) {
        let mut entries = [0.0f32; 16];
        // SAFETY: 16 floats each.
        unsafe {
            let mut sum = S::splat(TABLE_MAX / 2.0);
            for (signs, p) in SIGNS.iter().zip(p) {
                sum = S::fma(S::load(signs.as_ptr()), S::splat(*p * inverse), sum);
            }
            S::store(entries.as_mut_ptr(), S::round(sum));
        }
        for (byte, entry) in table.iter_mut().zip(entries) {
            *byte = entry as u8;
        }
    }
}

/// `out[query · stride + slot] = factor(slot) · Σ_j p_j · s_j(slot)`, the projections rounded to table values.
///
/// `codes` holds whole pages of 64 slots, `factors` one number for each slot. Finite queries and factors give no NaN.
///
/// # Panics
/// When sizes do not fit.
pub fn code_scores(
    level: Level,
    queries: &CodeQueries,
    codes: &[u8],
    factors: &[f16],
    out: &mut [f32],
    stride: usize,
) {
    if queries.count == 0 {
        return;
    }
    let (pages, rest) =
        (codes.len() / code_page_bytes(queries.bits), codes.len() % code_page_bytes(queries.bits));
    assert!(rest == 0, "{} bytes are no whole pages of codes of {} bits", codes.len(), queries.bits);
    let slots = pages * CODE_PAGE;
    assert!(factors.len() == slots, "{} factors for {slots} slots", factors.len());
    check_rows("estimates", out.len(), queries.count, stride, slots);
    // SAFETY: the level was detected on this CPU, and the sizes are checked above.
    for_level!(level, |S| {
        for first in (0..queries.count).step_by(S::QUERIES) {
            let out = &mut out[first * stride..];
            for_queries!(S, queries.count - first, |G| S::run(
                #[inline(always)]
                || group_scores::<S, G>(queries, first, codes, factors, out, stride)
            ))
        }
    })
}

#[inline(always)]
unsafe fn group_scores<S: Simd, const G: usize>(
    queries: &CodeQueries,
    first: usize,
    codes: &[u8],
    factors: &[f16],
    out: &mut [f32],
    stride: usize,
) {
    let (lines, nibbles) = (queries.bits / 8, queries.bits / 4);
    let tables = &queries.tables[first * nibbles..];
    let pages = codes.len() / (lines * CODE_PAGE);
    // SAFETY: codes, factors and out are as long as `code_scores` checked, and G queries are left.
    unsafe {
        for page in 0..pages {
            let codes = codes.as_ptr().add(page * lines * CODE_PAGE);
            let mut sums = [S::zero_w(); G];
            for line in 0..lines {
                let byte = S::load_bytes(codes.add(line * CODE_PAGE));
                let (low, high) = (S::field(byte, 0, 15), S::field(byte, 4, 15));
                for (g, sum) in sums.iter_mut().enumerate() {
                    let table = tables.as_ptr().add(g * nibbles + 2 * line);
                    let a = S::lookup(S::table(&*table), low);
                    let b = S::lookup(S::table(&*table.add(1)), high);
                    *sum = S::add_w(*sum, S::add_bytes(a, b));
                }
            }
            let mut wide = [0u16; CODE_PAGE];
            for (g, sum) in sums.iter().enumerate() {
                S::store_w(wide.as_mut_ptr(), *sum);
                let step = S::splat(*queries.step.get_unchecked(first + g));
                let zero = S::splat(*queries.zero.get_unchecked(first + g));
                for strip in 0..CODE_PAGE / STRIP {
                    let at = page * CODE_PAGE + strip * STRIP;
                    let sum = S::to_f(S::load_u16(wide.as_ptr().add(strip * STRIP)));
                    let factor = S::load_f16(factors.as_ptr().cast::<u16>().add(at));
                    let score = S::mul(S::fma(sum, step, zero), factor);
                    S::store(out.as_mut_ptr().add(g * stride + at), score);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(seed: u64, n: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn scores_equal_the_formula(
            count in 1usize..7, pages in 1usize..4, lines in 1usize..17, scale in -20i32..20, seed: u64,
        ) {
            let (bits, slots) = (8 * lines, pages * CODE_PAGE);
            let p: Vec<f32> = numbers(seed, count * bits).iter().map(|x| x * 2f32.powi(scale)).collect();
            let keys = numbers(!seed, slots * bits);
            let mut codes = vec![0; pages * code_page_bytes(bits)];
            let mut factors = vec![];
            for (slot, key) in keys.chunks_exact(bits).enumerate() {
                let page = slot / CODE_PAGE * code_page_bytes(bits);
                let page = &mut codes[page..][..code_page_bytes(bits)];
                let mean = put_code(page, slot % CODE_PAGE, key);
                prop_assert!((mean - key.iter().map(|x| x.abs()).sum::<f32>() / bits as f32).abs() < 1e-6);
                factors.push(f16::from_f32(mean));
            }
            let stride = slots + 3;
            let mut first = None;
            for &level in Level::available() {
                let mut queries = CodeQueries::default();
                queries.set(level, &p, bits);
                let mut out = vec![f32::NAN; count * stride];
                code_scores(level, &queries, &codes, &factors, &mut out, stride);
                for (query, p) in p.chunks_exact(bits).enumerate() {
                    let reach = p.chunks_exact(4).map(|p| p.iter().map(|p| p.abs()).sum::<f32>());
                    // Half a step of rounding in each of the tables.
                    let step = 2.0 * reach.fold(0.0, f32::max) / TABLE_MAX;
                    for (slot, key) in keys.chunks_exact(bits).enumerate() {
                        let sum: f64 = p
                            .iter()
                            .zip(key)
                            .map(|(p, x)| if *x >= 0.0 { *p as f64 } else { -*p as f64 })
                            .sum();
                        let factor = factors[slot].to_f64();
                        let bound = (0.5 * step * (bits / 4) as f32) as f64 * factor * 1.001;
                        let got = out[query * stride + slot] as f64;
                        prop_assert!((got - factor * sum).abs() <= bound, "{level:?}: {got}, {}", factor * sum);
                    }
                }
                // The same operations in the same order on every level.
                let out: Vec<u32> = out.iter().map(|x| x.to_bits()).collect();
                prop_assert_eq!(first.get_or_insert(out.clone()), &out);
            }
        }
    }

    #[test]
    fn codes_move_with_their_slots() {
        let bits = 24;
        let keys = numbers(5, 128 * bits);
        let mut codes = vec![0; 2 * code_page_bytes(bits)];
        let put = |codes: &mut [u8], slot: usize, key: usize| {
            let bytes = code_page_bytes(bits);
            put_code(
                &mut codes[slot / CODE_PAGE * bytes..][..bytes],
                slot % CODE_PAGE,
                &keys[key * bits..][..bits],
            );
        };
        for slot in 0..128 {
            put(&mut codes, slot, slot);
        }
        let mut moved = codes.clone();
        copy_code(&mut moved, bits, 100, 31);
        put(&mut codes, 31, 100);
        assert_eq!(moved, codes);
    }
}
