/// What can go wrong between a spec and a running cache.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CacheError {
    /// The spec does not parse or contradicts itself; the message says where and what to write instead.
    #[error("{0}")]
    Spec(String),
    /// The cap is below what the spec needs to work at all.
    #[error(
        "a cap of {cap} bytes is below the minimum of {minimum} bytes for `{spec}` on this model: raise the cap"
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
}
