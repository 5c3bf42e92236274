//! Hamming distances of one packed code to many.

use super::Level;

/// `out[i] = Σ_w popcount(query[w] xor codes[i][w])`; `codes` is `[i][w]`.
///
/// # Panics
/// If `codes` is not `out.len()` codes of `query.len()` words.
pub(crate) fn hamming_many(level: Level, query: &[u64], codes: &[u64], out: &mut [u32]) {
    assert_eq!(Some(codes.len()), query.len().checked_mul(out.len()), "as many codes as outputs");
    let _ = level;
    scalar(query, codes, out);
}

fn scalar(query: &[u64], codes: &[u64], out: &mut [u32]) {
    if query.is_empty() {
        return out.fill(0);
    }
    for (out, code) in out.iter_mut().zip(codes.chunks_exact(query.len())) {
        *out = code.iter().zip(query).map(|(a, b)| (a ^ b).count_ones()).sum();
    }
}
