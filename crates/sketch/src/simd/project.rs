//! Linear projections and their signs.

use super::Level;

/// The columns a dense projection computes at once: what a word of code holds.
pub(crate) const BLOCK: usize = 64;

/// `out[j] = Σ_i x[i] · basis[i][j]` for the first `out.len()` columns of a basis with rows of `stride` floats.
///
/// # Panics
/// If `out.len()` is not 16, 32, 48 or 64, or the basis is too short.
pub(crate) fn dense(level: Level, basis: &[f32], stride: usize, x: &[f32], out: &mut [f32]) {
    assert!(out.len() <= BLOCK && out.len().is_multiple_of(16) && out.len() <= stride);
    assert!(x.is_empty() || (x.len() - 1) * stride + out.len() <= basis.len());
    let _ = level;
    dense_scalar(basis, stride, x, out);
}

fn dense_scalar(basis: &[f32], stride: usize, x: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for (x, row) in x.iter().zip(basis.chunks(stride)) {
        for (out, b) in out.iter_mut().zip(row) {
            *out += x * b;
        }
    }
}

/// The unnormalised Walsh-Hadamard transform in place; `x.len()` is a power of two.
pub(crate) fn hadamard(level: Level, x: &mut [f32]) {
    debug_assert!(x.len().is_power_of_two());
    let _ = level;
    hadamard_scalar(x);
}

fn hadamard_scalar(x: &mut [f32]) {
    let mut half = 1;
    while half < x.len() {
        for pair in x.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

/// Bit j is set where `x[j] >= 0`; at most 64 values.
pub(crate) fn signs(level: Level, x: &[f32]) -> u64 {
    debug_assert!(x.len() <= 64);
    let _ = level;
    x.iter().rev().fold(0, |word, &x| word << 1 | u64::from(x >= 0.0))
}
