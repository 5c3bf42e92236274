/// What can go wrong between a spec and a running cache.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CacheError {
    /// The spec does not parse or contradicts itself; the message says where and what to write instead.
    #[error("{0}")]
    Spec(String),
    /// The cap is below what the spec needs to work at all.
    #[error(
        "a cap of {cap} bytes is below the minimum of {minimum} bytes for `{spec}` on this model: raise it to @{}KiB",
        minimum.div_ceil(1024)
    )]
    CapTooSmall {
        /// The spec as given.
        spec: String,
        /// The cap asked for, in bytes.
        cap: usize,
        /// The smallest cap that works, in bytes.
        minimum: usize,
    },
    /// The operation is not defined for this composition.
    #[error("{0}")]
    Unsupported(String),
    /// A call that does not fit the cache or the pass.
    #[error("{0}")]
    Argument(String),
    /// A number is not finite. The cache is as it was before the pass.
    #[error("{what} that are not finite in layer {layer} at position {position} with the cache `{spec}`")]
    NotFinite {
        /// The spec of the cache.
        spec: String,
        /// Layer where it was first seen.
        layer: usize,
        /// Position of the token.
        position: usize,
        /// What is not finite.
        what: &'static str,
    },
    /// A number is beyond what the store can hold. The cache is as it was before the pass.
    #[error(
        "{what} of {largest:e} in layer {layer} at position {position} are beyond the {most:e} that the store of \
         `{spec}` holds: store them as bf16 or f32"
    )]
    OutOfRange {
        /// The spec of the cache.
        spec: String,
        /// Layer.
        layer: usize,
        /// Position of the token.
        position: usize,
        /// What is out of range.
        what: &'static str,
        /// The largest magnitude.
        largest: f32,
        /// The largest magnitude that can be held.
        most: f32,
    },
    /// A pass was torn apart while it committed, by a panic of a method.
    #[error(
        "the cache `{spec}` was torn apart at position {position} by a failure: reset it, or load a saved one"
    )]
    Torn {
        /// The spec of the cache.
        spec: String,
        /// Tokens seen before.
        position: usize,
    },
}
