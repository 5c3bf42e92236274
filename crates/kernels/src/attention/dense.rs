//! Products of many queries with decoded keys and values: prefill, and a chunk's own tokens.

use super::check_rows;
use super::layout::STRIP;
use super::simd::Simd;
use crate::cpu::Level;

/// `out[query · stride + slot] = query · key(slot)`: queries `[query][dim]`, keys `[strip][dim][16]`.
///
/// # Panics
/// When sizes do not fit.
pub fn dense_scores(level: Level, dim: usize, queries: &[f32], keys: &[f32], out: &mut [f32], stride: usize) {
    let (count, strips) = (queries.len() / dim, keys.len() / dim / STRIP);
    assert!(
        keys.len() == strips * dim * STRIP,
        "{} numbers are no whole strips of {dim} dimensions",
        keys.len()
    );
    check_rows("scores", out.len(), count, stride, strips * STRIP);
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
    // SAFETY: the caller's. The sums of a tile stay in registers.
    unsafe {
        if const { S::VALUES >= 32 } {
            score_tiles::<S, 4, 4>(dim, queries, keys, out, stride)
        } else {
            score_tiles::<S, 6, 1>(dim, queries, keys, out, stride)
        }
    }
}

/// In tiles of `Q` queries and `K` strips; what is left over one by one.
#[inline(always)]
unsafe fn score_tiles<S: Simd, const Q: usize, const K: usize>(
    dim: usize,
    queries: &[f32],
    keys: &[f32],
    out: &mut [f32],
    stride: usize,
) {
    let (count, strips) = (queries.len() / dim, keys.len() / (dim * STRIP));
    // SAFETY: as checked by the caller; a tile is within the queries and strips left.
    unsafe {
        for strip in (0..strips).step_by(K) {
            for query in (0..count).step_by(Q) {
                let q = queries.as_ptr().add(query * dim);
                let k = keys.as_ptr().add(strip * dim * STRIP);
                let out = out.as_mut_ptr().add(query * stride + strip * STRIP);
                if query + Q <= count && strip + K <= strips {
                    scores_tile::<S, Q, K>(dim, q, k, out, stride);
                    continue;
                }
                for row in 0..Q.min(count - query) {
                    for column in 0..K.min(strips - strip) {
                        let (q, k) = (q.add(row * dim), k.add(column * dim * STRIP));
                        scores_tile::<S, 1, 1>(dim, q, k, out.add(row * stride + column * STRIP), stride);
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
    assert!(dim.is_multiple_of(16), "{dim} dimensions: values are summed 16 at a time");
    check_rows("values", values.len(), slots, value_stride, dim);
    check_rows("weights", weights.len(), count, stride, slots);
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
    // SAFETY: the caller's. The sums of a tile stay in registers.
    unsafe {
        if const { S::VALUES >= 32 } {
            value_tiles::<S, 4, 4>(dim, weights, stride, values, value_stride, slots, out)
        } else {
            value_tiles::<S, 6, 1>(dim, weights, stride, values, value_stride, slots, out)
        }
    }
}

/// In tiles of `Q` queries and `C` times 16 dimensions; what is left over in smaller ones.
#[inline(always)]
unsafe fn value_tiles<S: Simd, const Q: usize, const C: usize>(
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
        for query in (0..count).step_by(Q) {
            let (w, rows) = (weights.as_ptr().add(query * stride), Q.min(count - query));
            for first in (0..dim).step_by(16 * C) {
                let v = values.as_ptr().add(first);
                let out = out.as_mut_ptr().add(query * dim + first);
                if rows == Q && first + 16 * C <= dim {
                    values_tile::<S, Q, C>(dim, w, stride, v, value_stride, slots, out);
                    continue;
                }
                for row in 0..rows {
                    let (w, out) = (w.add(row * stride), out.add(row * dim));
                    if first + 16 * C <= dim {
                        values_tile::<S, 1, C>(dim, w, stride, v, value_stride, slots, out);
                        continue;
                    }
                    for at in (0..dim - first).step_by(16) {
                        values_tile::<S, 1, 1>(dim, w, stride, v.add(at), value_stride, slots, out.add(at));
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
