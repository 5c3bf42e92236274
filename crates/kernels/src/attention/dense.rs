//! Products of many queries with decoded keys and values: prefill, and a chunk's own tokens.

use super::layout::STRIP;
use super::simd::Simd;
use crate::cpu::Level;

/// `out[query · stride + slot] = query · key(slot)`: queries `[query][dim]`, keys `[strip][dim][16]`.
///
/// # Panics
/// When sizes do not fit.
pub fn dense_scores(level: Level, dim: usize, queries: &[f32], keys: &[f32], out: &mut [f32], stride: usize) {
    let (count, strips) = (queries.len() / dim, keys.len() / (dim * STRIP));
    assert!(keys.len() == strips * dim * STRIP);
    assert!(count == 0 || out.len() >= (count - 1) * stride + strips * STRIP);
    // SAFETY: the level was detected on this CPU, and the sizes are checked above.
    dispatch!(level, dense_scores_kernel(dim, queries, keys, out, stride))
}

#[inline(always)]
unsafe fn dense_scores_kernel<S: Simd>(
    dim: usize,
    queries: &[f32],
    keys: &[f32],
    out: &mut [f32],
    stride: usize,
) {
    let (count, strips) = (queries.len() / dim, keys.len() / (dim * STRIP));
    // SAFETY: as checked by the caller; a tile is within the queries and strips left.
    unsafe {
        for strip in (0..strips).step_by(4) {
            for query in (0..count).step_by(4) {
                let q = queries.as_ptr().add(query * dim);
                let k = keys.as_ptr().add(strip * dim * STRIP);
                let out = out.as_mut_ptr().add(query * stride + strip * STRIP);
                match ((count - query).min(4), (strips - strip).min(4)) {
                    (4, 4) => scores_tile::<S, 4, 4>(dim, q, k, out, stride),
                    (rows, columns) => {
                        for row in 0..rows {
                            for column in 0..columns {
                                let (q, k) = (q.add(row * dim), k.add(column * dim * STRIP));
                                let out = out.add(row * stride + column * STRIP);
                                scores_tile::<S, 1, 1>(dim, q, k, out, stride);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn scores_tile<S: Simd, const Q: usize, const K: usize>(
    dim: usize,
    queries: *const f32,
    keys: *const f32,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller vouches for Q queries and K strips.
    unsafe {
        let mut sums = [[S::splat(0.0); K]; Q];
        for i in 0..dim {
            let mut k = [S::splat(0.0); K];
            for (s, k) in k.iter_mut().enumerate() {
                *k = S::load(keys.add((s * dim + i) * STRIP));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let q = S::splat(*queries.add(row * dim + i));
                for (sum, k) in sums.iter_mut().zip(k) {
                    *sum = S::fma(k, q, *sum);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (s, sum) in sums.iter().enumerate() {
                S::store(out.add(row * stride + s * STRIP), *sum);
            }
        }
    }
}

/// `out[query][dim] += Σ_slot weights[query · stride + slot] · value(slot)`, slots below `slots`; the value of a slot is
/// `values[slot · value_stride ..][.. dim]`.
///
/// # Panics
/// When sizes do not fit or `dim` is no multiple of 16.
pub fn dense_values(
    level: Level,
    dim: usize,
    weights: &[f32],
    stride: usize,
    values: &[f32],
    value_stride: usize,
    slots: usize,
    out: &mut [f32],
) {
    let count = out.len() / dim;
    assert!(dim.is_multiple_of(16));
    assert!(slots == 0 || values.len() >= (slots - 1) * value_stride + dim);
    assert!(count == 0 || weights.len() >= (count - 1) * stride + slots);
    // SAFETY: the level was detected on this CPU, and the sizes are checked above.
    dispatch!(level, dense_values_kernel(dim, weights, stride, values, value_stride, slots, out))
}

#[inline(always)]
unsafe fn dense_values_kernel<S: Simd>(
    dim: usize,
    weights: &[f32],
    stride: usize,
    values: &[f32],
    value_stride: usize,
    slots: usize,
    out: &mut [f32],
) {
    let count = out.len() / dim;
    // SAFETY: as checked by the caller; a tile is within the queries and dimensions left.
    unsafe {
        for query in (0..count).step_by(4) {
            let w = weights.as_ptr().add(query * stride);
            for first in (0..dim).step_by(64) {
                let v = values.as_ptr().add(first);
                let out = out.as_mut_ptr().add(query * dim + first);
                match ((count - query).min(4), (dim - first).min(64) / 16) {
                    (4, 4) => values_tile::<S, 4, 4>(dim, w, stride, v, value_stride, slots, out),
                    (rows, 4) => {
                        for row in 0..rows {
                            let (w, out) = (w.add(row * stride), out.add(row * dim));
                            values_tile::<S, 1, 4>(dim, w, stride, v, value_stride, slots, out);
                        }
                    }
                    (rows, chunks) => {
                        for row in 0..rows {
                            for c in 0..chunks {
                                let (w, v) = (w.add(row * stride), v.add(16 * c));
                                let out = out.add(row * dim + 16 * c);
                                values_tile::<S, 1, 1>(dim, w, stride, v, value_stride, slots, out);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn values_tile<S: Simd, const Q: usize, const C: usize>(
    dim: usize,
    weights: *const f32,
    stride: usize,
    values: *const f32,
    value_stride: usize,
    slots: usize,
    out: *mut f32,
) {
    // SAFETY: the caller vouches for Q queries, C chunks of 16 dimensions and the slots.
    unsafe {
        let mut sums = [[S::splat(0.0); C]; Q];
        for (row, sums) in sums.iter_mut().enumerate() {
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum = S::load(out.add(row * dim + 16 * c));
            }
        }
        for slot in 0..slots {
            let mut v = [S::splat(0.0); C];
            for (c, v) in v.iter_mut().enumerate() {
                *v = S::load(values.add(slot * value_stride + 16 * c));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let w = S::splat(*weights.add(row * stride + slot));
                for (sum, v) in sums.iter_mut().zip(v) {
                    *sum = S::fma(v, w, *sum);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (c, sum) in sums.iter().enumerate() {
                S::store(out.add(row * dim + 16 * c), *sum);
            }
        }
    }
}
