//! Texts that must be something: JSON of a schema, what a regex matches, what a grammar gives.
//!
//! [`Grammars`] makes a [`Constraint`] of what is asked for, once; each generation that keeps to it has a [`Matcher`] of its
//! own, which says before each token which ones may come.

mod compile;
mod grammars;
mod matcher;
mod reason;
mod schema;
mod vocabulary;

pub(crate) use matcher::Matcher;

pub use grammars::Grammars;

use std::{fmt, sync::Arc};

/// What a text must be; made by [`Grammars`], for the texts of one model. A clone is the same constraint and costs nothing.
#[derive(Clone)]
pub struct Constraint {
    /// What it was made from, as errors name it.
    kind: &'static str,
    /// At the beginning of a text.
    fresh: Arc<llguidance::Matcher>,
}

impl fmt::Debug for Constraint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Constraint").field("kind", &self.kind).finish_non_exhaustive()
    }
}
