//! A KV cache of bounded size for decoder-only transformers.
//!
//! A model begins a forward pass over some tokens ([`Cache::begin`]), hands their queries, keys and values, one layer at a
//! time, to [`Pass::attend`] and gets the attention output back, and commits by [`Pass::finish`]; which tokens are kept, how
//! they are stored and which of them are read is the cache's business alone. A [`Spec`] says which methods it runs.

mod admit;
mod allot;
mod attend;
pub mod budget;
mod cache;
mod cap;
mod chosen;
mod contest;
mod context;
mod cost;
mod error;
mod fit;
mod forecast;
mod format;
mod grading;
mod guess;
mod head;
mod holding;
mod judgement;
pub mod keep;
mod ledger;
mod means;
pub mod method;
mod page;
mod pass;
mod plan;
mod probe;
mod profile;
pub mod read;
pub mod refine;
pub mod registry;
mod relearn;
mod save;
mod shape;
mod slots;
mod spec;
mod stakes;
mod state;
pub mod store;
pub mod tail;
mod trial;
mod workspace;

pub use cache::{Cache, Slots};
pub use chosen::Chosen;
pub use context::{Buffers, Candidates, Context, GroupQueries, Neighbours, Partial, Sample, Softcap};
pub use error::CacheError;
pub use fit::ScorerFit;
pub use forecast::Forecast;
pub use holding::Holding;
pub use ledger::Ledger;
pub use pass::{Pass, PausedPass};
pub use probe::Attention;
pub use profile::{Part, Profile, Stopwatch};
pub use registry::Registry;
pub use shape::{CacheShape, HeadScorer, LayerShape, OutputProjection, Rotation, Scorer, Sensitivity};
pub use spec::{Cap, Spec};
pub use state::{Reader, StateError, Writer};
pub use workspace::AttentionWorkspace;
