//! A KV cache of bounded size for decoder-only transformers.
//!
//! The model hands the queries, keys and values of a chunk of tokens, one layer at a time, to
//! [`LayerCache::attend`], and gets the attention output back; which tokens are kept, how they are stored
//! and which of them are read is the cache's business alone.
#![warn(missing_docs)]

mod cache;
mod error;
mod ledger;
mod shape;
mod spec;

pub use cache::{Cache, LayerCache};
pub use error::CacheError;
pub use ledger::Ledger;
pub use shape::{CacheShape, Rope};
pub use spec::Spec;
