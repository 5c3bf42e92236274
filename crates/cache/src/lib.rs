//! A KV cache of bounded size for decoder-only transformers.
//!
//! The model hands the queries, keys and values of a chunk of tokens, one layer at a time, to
//! [`LayerCache::attend`], and gets the attention output back; which tokens are kept, how they are stored
//! and which of them are read is the cache's business alone. A [`Spec`] says which methods it runs.

mod admit;
mod attend;
pub mod budget;
mod cache;
mod candidates;
mod error;
mod format;
mod head;
pub mod keep;
mod ledger;
mod means;
pub mod method;
mod page;
mod partial;
mod plan;
mod probe;
mod profile;
mod random;
pub mod read;
pub mod registry;
mod save;
mod shape;
mod spec;
mod state;
pub mod store;
pub mod tail;

pub use cache::{Cache, LayerCache, Slots};
pub use candidates::Candidates;
pub use error::CacheError;
pub use head::{GroupQueries, Neighbours};
pub use ledger::Ledger;
pub use partial::Partial;
pub use probe::Attention;
pub use profile::{Part, Profile, Stopwatch};
pub use shape::{CacheShape, OutputProjection, Rope};
pub use spec::{Cap, Spec};
pub use state::{Reader, StateError, Writer};
