//! Conversions between `f32` and the 16-bit formats, whole slices at a time.
//!
//! Rounding is to nearest, ties to even. What is finite stays finite: beyond the largest number of a format it becomes
//! that number. Infinity stays infinite and NaN stays NaN.

use crate::cpu::{self, Level, per_level};
pub use ::half::{bf16, f16};

/// Widens `source` into `target`.
///
/// # Panics
/// When the lengths differ, as all functions of this module.
pub fn f16_to_f32(source: &[f16], target: &mut [f32]) {
    f16_to_f32_at(cpu::level(), source, target);
}

/// Narrows `source` into `target`.
pub fn f32_to_f16(source: &[f32], target: &mut [f16]) {
    f32_to_f16_at(cpu::level(), source, target);
}

/// Widens `source` into `target`; exact.
pub fn bf16_to_f32(source: &[bf16], target: &mut [f32]) {
    check(source.len(), target.len());
    widen_bf16(cpu::level(), source, target);
}

/// Narrows `source` into `target`.
pub fn f32_to_bf16(source: &[f32], target: &mut [bf16]) {
    check(source.len(), target.len());
    narrow_bf16(cpu::level(), source, target);
}

/// The nearest f16; finite where `x` is.
pub fn to_f16(x: f32) -> f16 {
    f16::from_bits(kept_finite(f16::from_f32(x).to_bits(), f16::INFINITY.to_bits(), x))
}

/// The nearest bf16; finite where `x` is.
pub fn to_bf16(x: f32) -> bf16 {
    bf16::from_bits(kept_finite(bf16::from_f32(x).to_bits(), bf16::INFINITY.to_bits(), x))
}

/// The bits of what `x` was rounded to, or those of the largest number, which come before those of infinity.
#[inline(always)]
fn kept_finite(rounded: u16, infinity: u16, x: f32) -> u16 {
    rounded - u16::from(rounded & 0x7fff == infinity && x.is_finite())
}

fn check(source: usize, target: usize) {
    assert_eq!(source, target, "source and target of a conversion differ in length");
}

fn f16_to_f32_at(level: Level, source: &[f16], target: &mut [f32]) {
    check(source.len(), target.len());
    let done = match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level is only ever handed to kernels where the machine has its features.
        Level::Avx2 | Level::AvxVnni | Level::Avx512 => unsafe { x86::widen(source, target) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Level::Neon | Level::I8mm => unsafe { neon::widen(source, target) },
        _ => 0,
    };
    target[done..].iter_mut().zip(&source[done..]).for_each(|(t, s)| *t = s.to_f32());
}

fn f32_to_f16_at(level: Level, source: &[f32], target: &mut [f16]) {
    check(source.len(), target.len());
    let done = match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level is only ever handed to kernels where the machine has its features.
        Level::Avx2 | Level::AvxVnni | Level::Avx512 => unsafe { x86::narrow(source, target) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Level::Neon | Level::I8mm => unsafe { neon::narrow(source, target) },
        _ => 0,
    };
    keep_finite(level, &source[..done], &mut target[..done]);
    target[done..].iter_mut().zip(&source[done..]).for_each(|(t, s)| *t = to_f16(*s));
}

per_level! {
    /// Takes back what the instructions made infinite.
    fn keep_finite(source: &[f32], target: &mut [f16]) {
        for (t, s) in target.iter_mut().zip(source) {
            *t = f16::from_bits(kept_finite(t.to_bits(), 0x7c00, *s));
        }
    }
}

per_level! {
    fn widen_bf16(source: &[bf16], target: &mut [f32]) {
        for (t, s) in target.iter_mut().zip(source) {
            *t = f32::from_bits(u32::from(s.to_bits()) << 16);
        }
    }
}

per_level! {
    fn narrow_bf16(source: &[f32], target: &mut [bf16]) {
        for (t, s) in target.iter_mut().zip(source) {
            let bits = s.to_bits();
            let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            // A NaN keeps its sign and becomes quiet; rounding could carry it into infinity.
            let quiet = bits >> 16 | 0x40;
            *t = bf16::from_bits(kept_finite(if s.is_nan() { quiet } else { rounded } as u16, 0x7f80, *s));
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::f16;
    use std::arch::x86_64::*;

    /// Widens whole vectors and returns how many values that were.
    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn widen(source: &[f16], target: &mut [f32]) -> usize {
        for (s, t) in source.chunks_exact(8).zip(target.chunks_exact_mut(8)) {
            // SAFETY: both chunks hold eight values.
            unsafe { _mm256_storeu_ps(t.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(s.as_ptr().cast()))) };
        }
        source.len() / 8 * 8
    }

    /// Narrows whole vectors and returns how many values that were.
    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn narrow(source: &[f32], target: &mut [f16]) -> usize {
        for (s, t) in source.chunks_exact(8).zip(target.chunks_exact_mut(8)) {
            // SAFETY: both chunks hold eight values.
            unsafe {
                let halves = _mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(_mm256_loadu_ps(s.as_ptr()));
                _mm_storeu_si128(t.as_mut_ptr().cast(), halves);
            }
        }
        source.len() / 8 * 8
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::f16;
    use crate::aarch64::load_halves;
    use std::arch::{aarch64::vst1q_f32, asm};

    /// Widens whole vectors and returns how many values that were.
    #[target_feature(enable = "neon")]
    pub(super) fn widen(source: &[f16], target: &mut [f32]) -> usize {
        for (s, t) in source.chunks_exact(4).zip(target.chunks_exact_mut(4)) {
            // SAFETY: both chunks hold four values.
            unsafe { vst1q_f32(t.as_mut_ptr(), load_halves(s.as_ptr().cast())) };
        }
        source.len() / 4 * 4
    }

    /// Narrows whole vectors and returns how many values that were.
    #[target_feature(enable = "neon")]
    pub(super) fn narrow(source: &[f32], target: &mut [f16]) -> usize {
        for (s, t) in source.chunks_exact(4).zip(target.chunks_exact_mut(4)) {
            // SAFETY: both chunks hold four values; nothing else is touched.
            unsafe {
                asm!("ldr {v:q}, [{s}]", "fcvtn {v}.4h, {v}.4s", "str {v:d}, [{t}]",
                    s = in(reg) s.as_ptr(), t = in(reg) t.as_mut_ptr(), v = out(vreg) _, options(nostack));
            }
        }
        source.len() / 4 * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every 16-bit pattern, and an odd count so that the tail is reached.
    fn patterns() -> Vec<u16> {
        (0..=u16::MAX).chain(0..5).collect()
    }

    fn same(a: f32, b: f32) -> bool {
        a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
    }

    #[test]
    fn every_half_widens_exactly_and_comes_back() {
        let halves: Vec<f16> = patterns().into_iter().map(f16::from_bits).collect();
        for &level in Level::available() {
            let (mut wide, mut back) = (vec![0.0; halves.len()], vec![f16::ZERO; halves.len()]);
            f16_to_f32_at(level, &halves, &mut wide);
            f32_to_f16_at(level, &wide, &mut back);
            for ((h, w), b) in halves.iter().zip(&wide).zip(&back) {
                assert!(same(h.to_f32(), *w), "{h:?} became {w}");
                assert!(h.to_bits() == b.to_bits() || h.is_nan() && b.is_nan(), "{h:?} came back as {b:?}");
            }
        }
    }

    #[test]
    fn narrowing_rounds_as_the_reference_does() {
        let tricky =
            patterns().into_iter().flat_map(|p| [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| (p, low)));
        let values: Vec<f32> = tricky.map(|(p, low)| f32::from_bits(u32::from(p) << 16 | low)).collect();
        for &level in Level::available() {
            let (mut f, mut b) = (vec![f16::ZERO; values.len()], vec![bf16::ZERO; values.len()]);
            f32_to_f16_at(level, &values, &mut f);
            narrow_bf16(level, &values, &mut b);
            let mut wide = vec![0.0; values.len()];
            widen_bf16(level, &b, &mut wide);
            for (i, v) in values.iter().enumerate() {
                // What is finite stays so.
                let largest = |max: f32| if v.is_finite() { max } else { f32::INFINITY };
                let clamped = |x: f32, max: f32| if x.is_nan() { x } else { x.clamp(-max, max) };
                let half = clamped(f16::from_f32(*v).to_f32(), largest(65_504.0));
                let brain = clamped(bf16::from_f32(*v).to_f32(), largest(bf16::MAX.to_f32()));
                assert!(same(f[i].to_f32(), half), "f16 of {v}: {:?}", f[i]);
                assert!(same(b[i].to_f32(), brain), "bf16 of {v}: {:?}", b[i]);
                assert!(same(to_f16(*v).to_f32(), half) && same(to_bf16(*v).to_f32(), brain), "of {v} alone");
                assert!(same(wide[i], b[i].to_f32()));
            }
        }
    }
}
