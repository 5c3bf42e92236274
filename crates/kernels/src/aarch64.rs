//! Instructions of aarch64 whose intrinsics are not stable yet.

use std::arch::aarch64::*;
use std::arch::asm;

/// `sum[lane] + Σ_i a[lane][i] · b[lane][i]`, four bytes a lane.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn dot_bytes(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: touches nothing but the registers named.
    unsafe {
        asm!("sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// `sum[lane] + Σ_i a[lane][i] · b[WORD][i]`: the same four bytes for every lane.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn dot_word<const WORD: i32>(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: touches nothing but the registers named.
    unsafe {
        asm!("sdot {sum:v}.4s, {a:v}.16b, {b:v}.4b[{word}]",
            sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b, word = const WORD,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// `sum[2i + j] + Σ_k a[8i + k] · b[8j + k]`: two rows of eight bytes with two others.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(crate) fn multiply_matrices(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: touches nothing but the registers named.
    unsafe {
        asm!("smmla {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Four f16 as f32.
///
/// # Safety
/// Eight bytes lie at `halves`.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) unsafe fn load_halves(halves: *const u8) -> float32x4_t {
    let values: float32x4_t;
    // SAFETY: the bytes are there; nothing else is touched.
    unsafe {
        asm!("ldr {v:d}, [{at}]", "fcvtl {v:v}.4s, {v:v}.4h", at = in(reg) halves, v = out(vreg) values,
            options(pure, readonly, nostack, preserves_flags));
    }
    values
}
