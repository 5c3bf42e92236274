//! Attention over the pages of a cache: scores, softmax and weighted sums for every way of storing keys and values.
//!
//! Everything works on strips of 16 slots of one KV head (see [`layout`]): decode multiplies the codes as they lie
//! ([`key_scores`], [`value_sums`]); prefill decodes a page once and uses it for a block of queries
//! ([`decode_keys`], [`dense_scores`], [`decode_values`], [`dense_values`]). [`codes`] estimates which strips are worth it.

/// Runs a kernel generic over [`simd::Simd`] at a level, inside a function that has that level's instructions.
macro_rules! dispatch {
    ($level:expr, $kernel:ident($($arg:expr),* $(,)?)) => {{
        use crate::attention::simd;
        match $level.clamp() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                // SAFETY: `clamp` gives a level that this machine runs.
                unsafe { simd::avx512::run(#[inline(always)] || $kernel::<simd::avx512::Avx512>($($arg),*)) }
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::AvxVnni => {
                // SAFETY: `clamp` gives a level that this machine runs.
                unsafe { simd::avx2::run(#[inline(always)] || $kernel::<simd::avx2::Avx2>($($arg),*)) }
            }
            // SAFETY: no special instructions.
            _ => unsafe { $kernel::<simd::scalar::Scalar>($($arg),*) },
        }
    }};
}

pub mod codes;
mod dense;
mod floats;
mod keys;
pub mod layout;
mod packed;
mod simd;
mod softmax;
mod strips;
mod values;

pub use dense::{dense_scores, dense_values};
pub use keys::{Queries, decode_keys, key_scores};
pub use softmax::{add_scaled, exponentials, maximum};
pub use strips::{Stream, Strips, prefetch};
pub use values::{decode_values, value_sums};

#[cfg(test)]
mod tests;
