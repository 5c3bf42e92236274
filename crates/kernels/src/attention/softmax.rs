//! Exponentials, maxima and sums over rows of scores.

use super::layout::STRIP;
use super::simd::{Simd, exp, exp_near};
use crate::cpu::Level;

/// The largest of `x`; −∞ when empty.
pub fn maximum(level: Level, x: &[f32]) -> f32 {
    // SAFETY: the level was detected on this CPU.
    dispatch!(level, maximum_kernel(x))
}

#[inline(always)]
unsafe fn maximum_kernel<S: Simd>(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<16>();
    // SAFETY: chunks of 16.
    unsafe {
        let mut max = S::splat(f32::NEG_INFINITY);
        for chunk in chunks {
            max = S::max(S::load(chunk.as_ptr()), max);
        }
        rest.iter().copied().fold(S::maximum(max), f32::max)
    }
}

/// Replaces each score s, none above `max`, by e^(s − max) and returns their sum. A score of −∞ becomes 0, and where `max`
/// is −∞ all do.
pub fn exponentials(level: Level, scores: &mut [f32], max: f32) -> f32 {
    // SAFETY: the level was detected on this CPU.
    dispatch!(level, exponentials_kernel(scores, max))
}

#[inline(always)]
unsafe fn exponentials_kernel<S: Simd>(scores: &mut [f32], max: f32) -> f32 {
    // All scores −∞: nothing was visible, and ∞ − ∞ must not become NaN.
    if max == f32::NEG_INFINITY {
        scores.fill(0.0);
        return 0.0;
    }
    let (chunks, rest) = scores.as_chunks_mut::<16>();
    // SAFETY: chunks of 16, and a padded copy of the rest.
    unsafe {
        let mut sum = S::splat(0.0);
        for chunk in chunks {
            let e = exp::<S>(S::sub(S::load(chunk.as_ptr()), S::splat(max)));
            S::store(chunk.as_mut_ptr(), e);
            sum = S::add(sum, e);
        }
        if !rest.is_empty() {
            let mut padded = [f32::NEG_INFINITY; 16];
            padded[..rest.len()].copy_from_slice(rest);
            let e = exp::<S>(S::sub(S::load(padded.as_ptr()), S::splat(max)));
            S::store(padded.as_mut_ptr(), e);
            rest.copy_from_slice(&padded[..rest.len()]);
            sum = S::add(sum, e);
        }
        S::sum(sum)
    }
}

/// `sums[strip]` = the sum of e^(s − max) over the 16 scores s of the strip, none above `max`; returns the sum of all.
/// Exact to 1e-4, which is enough to choose strips by.
///
/// # Panics
/// When the lengths do not fit.
pub fn strip_exponentials(level: Level, scores: &[f32], max: f32, sums: &mut [f32]) -> f32 {
    assert_eq!(scores.len(), sums.len() * STRIP);
    // SAFETY: the level was detected on this CPU, and the sizes are checked above.
    dispatch!(level, strip_exponentials_kernel(scores, max, sums))
}

#[inline(always)]
unsafe fn strip_exponentials_kernel<S: Simd>(scores: &[f32], max: f32, sums: &mut [f32]) -> f32 {
    if max == f32::NEG_INFINITY {
        sums.fill(0.0);
        return 0.0;
    }
    // SAFETY: chunks of 16.
    unsafe {
        let mut all = S::splat(0.0);
        let (fours, rest) = sums.as_chunks_mut::<4>();
        let (strips, _) = scores.as_chunks::<STRIP>();
        for (sums, strips) in fours.iter_mut().zip(strips.as_chunks::<4>().0) {
            let mut e = [S::splat(0.0); 4];
            for (e, scores) in e.iter_mut().zip(strips) {
                *e = exp_near::<S>(S::sub(S::load(scores.as_ptr()), S::splat(max)));
                all = S::add(all, *e);
            }
            *sums = S::sums(e);
        }
        for (sum, scores) in rest.iter_mut().zip(&strips[4 * fours.len()..]) {
            let e = exp_near::<S>(S::sub(S::load(scores.as_ptr()), S::splat(max)));
            *sum = S::sum(e);
            all = S::add(all, e);
        }
        S::sum(all)
    }
}

/// `y += a · x`.
///
/// # Panics
/// When the lengths differ.
pub fn add_scaled(level: Level, y: &mut [f32], a: f32, x: &[f32]) {
    assert_eq!(x.len(), y.len());
    // SAFETY: the level was detected on this CPU.
    dispatch!(level, add_scaled_kernel(y, a, x))
}

#[inline(always)]
unsafe fn add_scaled_kernel<S: Simd>(y: &mut [f32], a: f32, x: &[f32]) {
    let (chunks, rest) = y.as_chunks_mut::<16>();
    let (xs, x_rest) = x.as_chunks::<16>();
    // SAFETY: chunks of 16.
    unsafe {
        for (y, x) in chunks.iter_mut().zip(xs) {
            S::store(y.as_mut_ptr(), S::fma(S::load(x.as_ptr()), S::splat(a), S::load(y.as_ptr())));
        }
    }
    for (y, x) in rest.iter_mut().zip(x_rest) {
        *y = x.mul_add(a, *y);
    }
}
