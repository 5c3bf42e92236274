//! Attention over the pages of a cache: scores, softmax and weighted sums for every way of storing keys and values.
//!
//! Everything works on strips of 16 slots of one KV head (see [`layout`]): decode multiplies the codes as they lie
//! ([`key_scores`], [`value_sums`]); prefill decodes a page once and uses it for a block of queries
//! ([`decode_keys`], [`dense_scores`], [`decode_values`], [`dense_values`]). [`codes`] estimates which strips are worth it.
//!
//! Finite in, finite out: the result of a product or a sum is finite where the sum of the magnitudes of its terms is in the
//! range of f32, a code counting as the largest level that it could stand for, and a query or a weight as the largest that
//! is rounded together with it. Only beyond that may a result be infinite, or NaN.

/// Runs a kernel generic over [`simd::Simd`] at a level, compiled with that level's instructions.
macro_rules! dispatch {
    ($level:expr, $kernel:ident($($arg:expr),* $(,)?)) => {{
        use crate::attention::simd::Simd;
        for_level!($level, |S| S::run(
            #[inline(always)]
            || $kernel::<S>($($arg),*)
        ))
    }};
}

/// Evaluates `$body` with the [`simd::Simd`] of a level. What is to have the level's instructions runs in its `run`.
macro_rules! for_level {
    ($level:expr, |$simd:ident| $body:expr) => {{
        use crate::attention::simd;
        match $level.clamp() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                type $simd = simd::avx512::Avx512;
                // SAFETY: `clamp` gives a level that this machine runs.
                unsafe { $body }
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::AvxVnni => {
                type $simd = simd::avx2::Avx2;
                // SAFETY: `clamp` gives a level that this machine runs.
                unsafe { $body }
            }
            #[cfg(target_arch = "aarch64")]
            Level::Neon | Level::I8mm => {
                type $simd = simd::neon::Neon;
                // SAFETY: `clamp` gives a level that this machine runs.
                unsafe { $body }
            }
            _ => {
                type $simd = simd::scalar::Scalar;
                // SAFETY: no special instructions.
                unsafe { $body }
            }
        }
    }};
}

/// Evaluates `$body` with the number of queries, or as many as the instruction set serves at once, as a constant.
macro_rules! for_queries {
    ($simd:ident, $queries:expr, |$n:ident| $body:expr) => {{
        macro_rules! queries {
            ($count:literal) => {{
                const $n: usize = $count;
                $body
            }};
        }
        // Constants, so that only what can happen is compiled.
        match $queries.min($simd::QUERIES) {
            2 if const { $simd::QUERIES >= 2 } => queries!(2),
            3 if const { $simd::QUERIES >= 3 } => queries!(3),
            4 if const { $simd::QUERIES >= 4 } => queries!(4),
            _ => queries!(1),
        }
    }};
}

pub mod codes;
mod dense;
mod fit;
mod floats;
pub mod graded;
mod keys;
pub mod layout;
mod packed;
mod simd;
mod softmax;
mod strips;
mod values;

pub use dense::{dense_scores, dense_values};
pub use fit::{GridMut, drop_bits, fit_grid};
pub use keys::{Queries, decode_keys, key_scores};
pub use softmax::{add_scaled, exponentials, maximum, strip_exponentials};
pub use strips::{Stream, Strips, prefetch};
pub use values::{decode_values, value_sums};

/// Rows `stride` numbers apart must lie within `len` numbers, whatever the caller says of them.
///
/// # Panics
/// When `rows` rows of `width` do not.
fn check_rows(what: &str, len: usize, rows: usize, stride: usize, width: usize) {
    let needed = match rows {
        0 => Some(0),
        rows => (rows - 1).checked_mul(stride).and_then(|last| last.checked_add(width)),
    };
    assert!(
        needed.is_some_and(|needed| needed <= len),
        "{what}: {len} numbers given for {rows} rows of {width}, {stride} apart"
    );
}

#[cfg(test)]
mod tests;
