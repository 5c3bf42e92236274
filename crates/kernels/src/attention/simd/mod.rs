//! Sixteen lanes, one per slot of a strip: the small set of vector operations attention is written in.
//!
//! Every kernel of this module is written once, generically over [`Simd`], and compiled for each instruction
//! set inside a function that enables it. [`scalar::Scalar`] is the reference: plain arrays and loops.
//!
//! An intrinsic is inlined only into code compiled with its features, and a kernel gets them by being inlined itself:
//! so kernels hold no closures, not even in `array::from_fn`, which would be compiled alone.

pub(crate) mod scalar;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;

/// Sixteen signed bytes, the way the instruction sets multiply them with four bytes of a lane.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Multipliers {
    /// Four bytes a word, little-endian.
    words: [i32; 4],
    /// Bytes 0 and 2 of each word, widened to 16 bits.
    even: [i32; 4],
    /// Bytes 1 and 3.
    odd: [i32; 4],
}

impl Multipliers {
    pub(crate) fn new(bytes: [i8; 16]) -> Self {
        let mut all = Multipliers::default();
        let pair = |low: i8, high: i8| low as i16 as u16 as i32 | (high as i32) << 16;
        for (n, word) in bytes.as_chunks().0.iter().enumerate() {
            let &[a, b, c, d] = word;
            all.words[n] = i32::from_le_bytes([a, b, c, d].map(|x| x as u8));
            (all.even[n], all.odd[n]) = (pair(a, c), pair(b, d));
        }
        all
    }
}

/// Vector operations on 16 lanes.
///
/// # Safety
/// Every method requires that the CPU has the instruction set of the implementing type, and pointer arguments
/// valid for the number of elements that the name says. No alignment is needed.
pub(crate) trait Simd: Copy {
    /// How many values the registers hold.
    const VALUES: usize;
    /// How many queries are served at once.
    const QUERIES: usize;
    /// How many products with small bytes [`Simd::dot4_small`] can add up.
    const SMALL: usize;

    /// 16 `f32`.
    type F: Copy;
    /// 16 `i32`.
    type I: Copy;
    /// 64 bytes: 4 per lane.
    type B: Copy;
    /// 64 sums of 16 bits, one per byte.
    ///
    /// Vectors hold the sums of bytes taken in pairs, as if they were `u16`, and those of the odd bytes alone: modulo
    /// 2^16 the former are the sums of the even bytes and 256 times those of the odd ones.
    type W: Copy;

    /// Runs `f`, compiled with this instruction set where it is inlined.
    unsafe fn run<R>(f: impl FnOnce() -> R) -> R;

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn store(p: *mut f32, x: Self::F);
    unsafe fn load_f16(p: *const u16) -> Self::F;
    unsafe fn load_bf16(p: *const u16) -> Self::F;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn abs(x: Self::F) -> Self::F;
    /// a·b + c, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    unsafe fn round(x: Self::F) -> Self::F;
    /// 2^x for integers −126 ≤ x ≤ 127; 0 for −127.
    unsafe fn exp2i(x: Self::F) -> Self::F;
    unsafe fn sum(a: Self::F) -> f32;
    /// The sum of each.
    #[inline(always)]
    unsafe fn sums(a: [Self::F; 4]) -> [f32; 4] {
        // SAFETY: as this function.
        a.map(|a| unsafe { Self::sum(a) })
    }
    unsafe fn maximum(a: Self::F) -> f32;

    unsafe fn zero_i() -> Self::I;
    unsafe fn splat_i(x: i32) -> Self::I;
    unsafe fn to_f(a: Self::I) -> Self::F;
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    /// 16 integers of magnitude 127 at most.
    unsafe fn multipliers(x: Self::F) -> Multipliers;
    /// Lane-wise `acc + Σ_{i<4} bytes[lane][i]·x[4n + i]`, bytes unsigned.
    unsafe fn dot4(acc: Self::I, bytes: Self::B, x: &Multipliers, n: usize) -> Self::I;
    /// The same of bytes below 16, in a form of its own: at most [`Simd::SMALL`] may be added to zero before
    /// [`Simd::widen`] makes the sum an ordinary one.
    unsafe fn dot4_small(acc: Self::I, bytes: Self::B, x: &Multipliers, n: usize) -> Self::I;
    unsafe fn widen(acc: Self::I) -> Self::I;

    unsafe fn load_bytes(p: *const u8) -> Self::B;
    /// Each byte shifted right by `n` < 8 and masked by `mask`.
    unsafe fn field(b: Self::B, n: u32, mask: u8) -> Self::B;
    /// Byte `n` of each lane, unsigned.
    unsafe fn byte(b: Self::B, n: u32) -> Self::F;
    /// `low | high << 2`, byte by byte.
    unsafe fn join(low: Self::B, high: Self::B) -> Self::B;
    /// A table of 16 bytes, made ready for [`Simd::lookup`].
    unsafe fn table(table: &[u8; 16]) -> Self::B;
    /// `table[index]`, byte by byte; indexes below 16.
    unsafe fn lookup(table: Self::B, index: Self::B) -> Self::B;

    /// Byte by byte, without carry.
    unsafe fn add_bytes(a: Self::B, b: Self::B) -> Self::B;
    unsafe fn zero_w() -> Self::W;
    /// Each byte added to its sum, which must stay below 65,536.
    unsafe fn add_w(acc: Self::W, bytes: Self::B) -> Self::W;
    /// Stores 64 sums: those of the even bytes, then those of the odd ones.
    unsafe fn store_w(p: *mut u16, x: Self::W);
    /// 16 `u16`, each widened to a lane.
    unsafe fn load_u16(p: *const u16) -> Self::I;
}

/// What a line is asked for into.
///
/// Whole bytes and floats are multiplied faster than memory gives them: what holds them up is that the first-level cache
/// waits for some twenty lines at a time, and the second for more. Fewer bits take longer to unpack than that.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Cache {
    First,
    Second,
}

/// Asks for the cache line at `p`, which need not be valid.
#[inline(always)]
pub(crate) fn fetch(p: *const u8, cache: Cache) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instructions, and they fault on no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        match cache {
            Cache::First => _mm_prefetch::<_MM_HINT_T0>(p.cast()),
            Cache::Second => _mm_prefetch::<_MM_HINT_T1>(p.cast()),
        }
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: hints, which fault on no address.
    unsafe {
        use std::arch::asm;
        match cache {
            Cache::First => {
                asm!("prfm pldl1keep, [{p}]", p = in(reg) p, options(readonly, nostack, preserves_flags))
            }
            Cache::Second => {
                asm!("prfm pldl2keep, [{p}]", p = in(reg) p, options(readonly, nostack, preserves_flags))
            }
        }
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = (p, cache);
}

/// e^x for x of at most 0, in sums that choose between things: relative error below 8e-5; 0 below −88.
///
/// 2^n · p(r) with n = round(x·log2 e), r the rest, and the minimax polynomial of degree 3.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn exp_near<S: Simd>(x: S::F) -> S::F {
    // SAFETY: register operations only; the caller vouches for the instruction set.
    unsafe {
        let x = S::max(S::mul(x, S::splat(std::f32::consts::LOG2_E)), S::splat(-127.0));
        let n = S::round(x);
        let r = S::sub(x, n);
        let mut p = S::splat(0.055_171_67);
        for c in [0.242_611_12, 0.693_261, 0.999_928_1] {
            p = S::fma(p, r, S::splat(c));
        }
        S::mul(S::exp2i(n), p)
    }
}

/// e^x, relative error below 3e-7 for x in [-87, 88]; 0 below −88 (so that −∞ gives 0).
///
/// 2^n · p(r) with n = round(x·log2 e), r = x − n·ln 2 in two pieces, and the Taylor polynomial of degree 6.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    // SAFETY: register operations only; the caller vouches for the instruction set.
    unsafe {
        let x = S::max(x, S::splat(-88.1));
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        let r = S::fma(n, S::splat(-0.693_145_75), x);
        let r = S::fma(n, S::splat(-1.428_606_8e-6), r);
        let mut p = S::splat(1.0 / 720.0);
        for c in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = S::fma(p, r, S::splat(c));
        }
        S::mul(S::exp2i(n), p)
    }
}
