//! Universal hashing over the field of the Mersenne prime p = 2^61 - 1.
//!
//! The theorems on sketches ask for hash functions drawn at random from a family of known independence, not for
//! functions that look random. Three families serve them, all computed with 64 by 64 bit products:
//!
//! - [`LinearHash`]: strongly 2-universal on all of `u64` (the key as two 32-bit limbs, multilinear in the field),
//!   which is what Count-Min asks for;
//! - [`CubicHash`]: 4-wise independent on the field (a random polynomial of degree 3), which is what the signs of a
//!   Count-Sketch ask for;
//! - [`KeyHasher`]: turns any [`Hash`](std::hash::Hash) key into a `u64` by a polynomial whose point is random, so
//!   that two long keys meet with probability at most `length / p` whatever they are. A key that is a single
//!   integer passes through unchanged and loses nothing at all.
//!
//! Source: Carter and Wegman, Universal classes of hash functions, 1979; Thorup, High speed hashing for integers
//! and strings, arXiv 1504.06804 (multilinear limbs, Mersenne reduction).

use std::hash::{Hash, Hasher};
use std::ops::Range;

use crate::random::Random;

/// The prime 2^61 - 1.
pub(crate) const P: u64 = (1 << 61) - 1;

/// `x mod p`.
#[inline]
pub(crate) fn reduce(x: u64) -> u64 {
    let folded = (x & P) + (x >> 61);
    if folded >= P { folded - P } else { folded }
}

/// A number below `a + 2^61` that is `a · x` modulo p, for `x` below 2^61.
///
/// With x shifted by three places the product falls apart at 2^61 along the boundary of its two words, and
/// 2^61 = 1 in the field.
#[inline]
fn product(a: u64, x: u64) -> u64 {
    let product = a as u128 * (x << 3) as u128;
    (product >> 64) as u64 + (product as u64 >> 3)
}

/// Maps the upper 52 bits of a field element onto `0..width`, each column as often as any other to within one part
/// in `2^52 / width`. (52 bits are what one vector multiplication takes.)
#[inline]
pub(crate) fn column(value: u64, width: u32) -> u32 {
    (((value >> 9 << 12) as u128 * width as u128) >> 64) as u32
}

/// A fixed bijection of each 32-bit half of a key, which leaves 0 alone.
///
/// No theorem needs it, for a bijection keeps distinct keys distinct. But on keys in arithmetic progression (which
/// positions and identifiers are) a linear hash fills the columns more evenly than chance, all rows alike, and the
/// least of several rows then gains less over one row than it does on scrambled keys.
///
/// Constants: the best two-round 32-bit mixers known by search (Wellons, Hash prospecting, 2018 and after).
#[inline]
pub(crate) fn scramble(key: u64) -> u64 {
    u64::from(scramble_half((key >> 32) as u32)) << 32 | u64::from(scramble_half(key as u32))
}

pub(crate) const SCRAMBLE: [u32; 2] = [0x21f0_aaad, 0xd35a_2d97];

#[inline]
fn scramble_half(mut x: u32) -> u32 {
    x = (x ^ x >> 16).wrapping_mul(SCRAMBLE[0]);
    x = (x ^ x >> 15).wrapping_mul(SCRAMBLE[1]);
    x ^ x >> 15
}

/// `(low·x_low + high·x_high + offset) mod p` with `x = x_high·2^32 + x_low`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinearHash {
    pub(crate) low: u64,
    pub(crate) high: u64,
    pub(crate) offset: u64,
}

impl LinearHash {
    pub(crate) fn new(random: &mut Random) -> Self {
        Self { low: random.field(), high: random.field(), offset: random.field() }
    }

    #[inline]
    pub(crate) fn hash(&self, x: u64) -> u64 {
        reduce(product(self.low, x & 0xffff_ffff) + product(self.high, x >> 32) + self.offset)
    }
}

/// `c0 + c1 x + c2 x² + c3 x³ mod p` for a field element `x`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CubicHash {
    pub(crate) coefficients: [u64; 4],
}

impl CubicHash {
    pub(crate) fn new(random: &mut Random) -> Self {
        Self { coefficients: [random.field(), random.field(), random.field(), random.field()] }
    }

    #[inline]
    pub(crate) fn hash(&self, x: u64) -> u64 {
        let [c0, c1, c2, c3] = self.coefficients;
        // Below 3, 5 and 7 times 2^61: no reduction is needed on the way.
        let value = product(c3, x) + c2;
        let value = product(value, x) + c1;
        reduce(product(value, x) + c0)
    }
}

/// Draws the point at which keys longer than one integer are evaluated.
pub(crate) fn digest_point(seed: u64) -> u64 {
    Random::new(seed, 0x6b65_7973).field()
}

/// The 64-bit digest of a key, the same on every machine of either endianness for keys made of integers, strings,
/// byte slices, tuples and derived structs of these.
#[inline]
pub(crate) fn digest<K: Hash + ?Sized>(point: u64, key: &K) -> u64 {
    let mut hasher = KeyHasher { point, state: 0, words: Words::None };
    key.hash(&mut hasher);
    hasher.state
}

/// Calls `f` with a range of `keys` and the digests of these, until it has seen all.
#[inline]
pub(crate) fn for_digests<K: Hash>(point: u64, keys: &[K], mut f: impl FnMut(Range<usize>, &[u64])) {
    const BATCH: usize = 256;
    let mut digests = [0; BATCH];
    for (i, keys) in keys.chunks(BATCH).enumerate() {
        let digests = &mut digests[..keys.len()];
        digests.iter_mut().zip(keys).for_each(|(hash, key)| *hash = digest(point, key));
        f(i * BATCH..i * BATCH + keys.len(), digests);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    None,
    /// `state` is the one integer itself.
    One,
    /// `state` is the value so far of a monic polynomial at `point`.
    Many,
}

/// Hashes a sequence of writes as the coefficients of a monic polynomial over the field.
#[derive(Debug, Clone)]
struct KeyHasher {
    point: u64,
    state: u64,
    words: Words,
}

impl KeyHasher {
    #[inline]
    fn absorb(&mut self, limb: u64) {
        self.state = reduce(product(self.state, self.point) + limb);
    }

    #[inline]
    fn absorb_integer(&mut self, x: u64) {
        self.absorb(x & 0xffff_ffff);
        self.absorb(x >> 32);
    }

    /// Leaves the single-integer form: from here on the state is a polynomial.
    #[inline]
    fn become_many(&mut self) {
        let first = self.state;
        match self.words {
            Words::None => self.state = 1,
            Words::One => {
                self.state = 1;
                self.absorb_integer(first);
            }
            Words::Many => {}
        }
        self.words = Words::Many;
    }
}

impl Hasher for KeyHasher {
    /// Seven bytes make a limb below p; the last, shorter one carries a mark above its bytes, so that the number
    /// of trailing zero bytes counts.
    fn write(&mut self, bytes: &[u8]) {
        self.become_many();
        let mut chunks = bytes.chunks_exact(7);
        for chunk in &mut chunks {
            let mut limb = [0; 8];
            limb[..7].copy_from_slice(chunk);
            self.absorb(u64::from_le_bytes(limb));
        }
        let rest = chunks.remainder();
        let mut limb = [0; 8];
        limb[..rest.len()].copy_from_slice(rest);
        limb[rest.len()] = 1;
        self.absorb(u64::from_le_bytes(limb));
    }

    #[inline]
    fn write_u64(&mut self, x: u64) {
        if self.words == Words::None {
            self.words = Words::One;
            self.state = x;
        } else {
            self.become_many();
            self.absorb_integer(x);
        }
    }

    #[inline]
    fn write_u8(&mut self, x: u8) {
        self.write_u64(u64::from(x));
    }

    #[inline]
    fn write_u16(&mut self, x: u16) {
        self.write_u64(u64::from(x));
    }

    #[inline]
    fn write_u32(&mut self, x: u32) {
        self.write_u64(u64::from(x));
    }

    fn write_u128(&mut self, x: u128) {
        self.write_u64(x as u64);
        self.write_u64((x >> 64) as u64);
    }

    #[inline]
    fn write_usize(&mut self, x: usize) {
        self.write_u64(x as u64);
    }

    // Signed integers are widened by sign, so that an `isize` means the same on 32 and 64 bit machines.
    #[inline]
    fn write_i8(&mut self, x: i8) {
        self.write_u64(i64::from(x) as u64);
    }

    #[inline]
    fn write_i16(&mut self, x: i16) {
        self.write_u64(i64::from(x) as u64);
    }

    #[inline]
    fn write_i32(&mut self, x: i32) {
        self.write_u64(i64::from(x) as u64);
    }

    #[inline]
    fn write_i64(&mut self, x: i64) {
        self.write_u64(x as u64);
    }

    #[inline]
    fn write_isize(&mut self, x: isize) {
        self.write_u64(x as i64 as u64);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value by arbitrary-precision steps that cannot overflow, to check the folded arithmetic against.
    fn mul_mod(a: u64, b: u64) -> u64 {
        (a as u128 * b as u128 % P as u128) as u64
    }

    #[test]
    fn reduction_is_exact_at_the_corners() {
        let corners = [0, 1, 2, P - 2, P - 1];
        for a in corners.into_iter().chain([P, 5 * (P + 1), u64::MAX]) {
            assert_eq!(reduce(a), a % P);
            for x in corners {
                let product = product(a, x);
                assert_eq!(product % P, mul_mod(a, x), "{a} {x}");
                assert!(u128::from(product) < u128::from(a) + (1 << 61));
            }
        }
        for c in corners {
            for x in corners {
                let expected = (0..3).fold(c, |value, _| (mul_mod(value, x) + c) % P);
                assert_eq!(CubicHash { coefficients: [c; 4] }.hash(x), expected, "{c} {x}");
            }
        }
    }

    #[test]
    fn linear_and_cubic_hashes_are_the_polynomials_they_claim() {
        let mut random = Random::new(3, 4);
        for _ in 0..1000 {
            let (linear, cubic) = (LinearHash::new(&mut random), CubicHash::new(&mut random));
            let x = random.next_u64();
            let expected =
                (mul_mod(linear.low, x & 0xffff_ffff) + mul_mod(linear.high, x >> 32)) % P + linear.offset;
            assert_eq!(linear.hash(x), expected % P);
            let x = random.field();
            let [c0, c1, c2, c3] = cubic.coefficients;
            let (x2, x3) = (mul_mod(x, x), mul_mod(x, mul_mod(x, x)));
            let expected = (c0 + mul_mod(c1, x)) % P + (mul_mod(c2, x2) + mul_mod(c3, x3)) % P;
            assert_eq!(cubic.hash(x), expected % P);
        }
    }

    #[test]
    fn scrambling_is_a_bijection_of_each_half_that_fixes_zero() {
        let mut seen: Vec<u32> = (0..1 << 16).map(|x| scramble_half(x * 65_537)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1 << 16);
        assert_eq!(scramble(0), 0);
        assert_eq!(scramble(5) >> 32, 0);
        assert_eq!(scramble(5 << 32 | 7), scramble(5) << 32 | scramble(7));
    }

    #[test]
    fn columns_cover_the_width_evenly() {
        assert_eq!(column(0, 10), 0);
        assert_eq!(column(P - 1, 10), 9);
        assert_eq!(column(P - 1, u32::MAX), u32::MAX - 1);
        let mut random = Random::new(5, 6);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[column(random.field(), 7) as usize] += 1;
        }
        assert!(counts.iter().all(|&c| c.abs_diff(10_000) < 500), "{counts:?}");
    }

    #[test]
    fn a_single_integer_is_its_own_digest() {
        assert_eq!(digest(17, &u64::MAX), u64::MAX);
        assert_eq!(digest(17, &5u8), 5);
        assert_eq!(digest(17, &-1i32), u64::MAX);
        assert_eq!(digest(17, &'a'), 97);
    }

    #[test]
    fn longer_keys_differ_by_content_length_and_order() {
        let point = digest_point(9);
        let keys: Vec<u64> = ["", "\0", "\0\0", "a", "ab", "ba", "abcdefg", "abcdefgh", "\0\0\0\0\0\0\0"]
            .iter()
            .map(|key| digest(point, *key))
            .chain([digest(point, &(1u32, 2u32)), digest(point, &(2u32, 1u32)), digest(point, &1u128)])
            .chain([digest(point, &[0u8; 7][..]), digest(point, &[0u8; 14][..])])
            .collect();
        for (i, a) in keys.iter().enumerate() {
            for (j, b) in keys.iter().enumerate() {
                assert!(i == j || a != b, "{i} and {j}");
            }
        }
    }

    #[test]
    fn the_point_decides_the_digest_of_a_string() {
        assert_ne!(digest(digest_point(1), "key"), digest(digest_point(2), "key"));
    }
}
