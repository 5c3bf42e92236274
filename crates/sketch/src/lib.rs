//! Sketches: summaries of a stream in a fixed number of bytes, with an error that a theorem bounds.
//!
//! | type | answers | guarantee |
//! |---|---|---|
//! | [`CountMin`] | how much of this key? | never too little; too much by at most `e/width` of the stream, but for probability `e^-depth` |
//! | [`CountSketch`] | the same, amounts of either sign | unbiased; error against the ℓ2 norm |
//! | [`VectorCountSketch`] | which vector was stored under this key? | unbiased in every coordinate; noise `√(n/width)` of the signal |
//! | [`TopK`] | which keys have the most? | those of the largest estimates of a sketch |
//! | [`SpaceSaving`] | the same, without a sketch | error at most `1/capacity` of the stream, with certainty |
//! | [`SimHash`] | at what angle are two vectors? | two codes differ in each bit with probability θ/π |
//! | [`AsymmetricQuery`] | which coded vectors lie along this real one? | unbiased for the cosine |
//! | [`Race`], [`VectorRace`] | how much (or which values) near this vector? | unbiased for the collision kernel `(1-θ/π)^bits` |
//!
//! Every sketch draws its hash functions from [`SplitMix64`] and takes its seed from the caller: the same seed, parameters and stream give the same bytes on any
//! machine, and only sketches of equal seed and parameters can be merged. All of them are plain data (`Clone`,
//! `Send`, `Sync`), tell their exact heap footprint by `bytes()`, and are written and read by `to_bytes` and
//! `from_bytes` in a versioned, checksummed, little-endian format.
//!
//! ```
//! use sketchkv_sketch::CountMin;
//!
//! let mut sketch = CountMin::<u32>::new(1024, 4, 7)?;
//! for word in ["to", "be", "or", "not", "to", "be"] {
//!     sketch.update(word, 1);
//! }
//! assert!(sketch.query("to") >= 2);
//! # Ok::<(), sketchkv_sketch::SketchError>(())
//! ```

mod bytes;
mod count_min;
mod count_sketch;
mod counter;
mod error;
mod hash;
mod median;
pub mod params;
mod race;
mod random;
mod scale;
#[cfg(feature = "serde")]
mod serde_bytes;
mod simd;
mod simhash;
mod space_saving;
mod split_mix;
mod stored_key;
mod summary;
mod table;
mod top_k;
mod vector_count_sketch;
mod vector_race;

pub use count_min::CountMin;
pub use count_sketch::CountSketch;
pub use counter::{Counter, Number, SignedCounter};
pub use error::SketchError;
pub use race::Race;
pub use simd::Level;
pub use simhash::{AsymmetricQuery, Projection, SimHash, hamming, hamming_many};
pub use space_saving::{Hitter, SpaceSaving};
pub use split_mix::{SplitMix64, mix};
pub use stored_key::StoredKey;
pub use top_k::{FrequencySketch, TopK};
pub use vector_count_sketch::VectorCountSketch;
pub use vector_race::VectorRace;
