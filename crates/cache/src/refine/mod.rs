//! How the importance that a keep gives is refined before the least important go.

mod critical;
mod plain;

use crate::CacheError;
use crate::context::Context;
use crate::method::{Call, Method};

/// A second look at importance, the same for all heads of a cache.
///
/// When tokens must go, the first half of those that will stay are the most important by the keep alone; this says what
/// all others are worth.
pub trait Refine: Send + Sync {
    /// What a token is worth whose keep says `importance` and whose value, `[value_dim]`, is given.
    fn importance(&self, importance: f32, layer: usize, kv_head: usize, value: &[f32]) -> f32;

    /// The fewest tokens evicted at a time, for values are weighed anew each time.
    fn batch(&self) -> usize;
}

/// Builds a refinement from its call; `None` to leave importance as it is. `is_attention` says whether importance is
/// attention, seen or expected.
pub type Build = fn(&Call, &Context<'_>, is_attention: bool) -> Result<Option<Box<dyn Refine>>, CacheError>;

/// All refinements.
pub(crate) static REFINES: &[(&Method, Build)] =
    &[(&plain::METHOD, plain::build), (&critical::METHOD, critical::build)];
