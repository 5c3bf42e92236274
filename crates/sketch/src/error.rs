//! What can go wrong: a parameter out of range, two sketches that do not fit together, bytes that are no sketch.

use thiserror::Error;

/// An error of any sketch of this crate: what was wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SketchError {
    /// A parameter is outside what the sketch can be built with.
    #[error("{what} is {got}, but must be {expected}")]
    Parameter {
        /// The parameter's name.
        what: &'static str,
        /// What was given.
        got: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// The tables would not fit into the memory there is.
    #[error("a sketch of {what} needs more memory than there is: choose smaller dimensions")]
    OutOfMemory {
        /// The dimensions asked for.
        what: String,
    },
    /// Two sketches were to be combined that were not made alike.
    #[error(
        "cannot combine two sketches whose {what} differs: make both with the same parameters and the same seed"
    )]
    Incompatible {
        /// The first thing found different.
        what: &'static str,
    },
    /// An operation that only a linear sketch allows was asked of one that is no longer linear.
    #[error(
        "{operation} needs a linear sketch, but this one has seen {cause}: keep a second sketch with plain updates \
         for it"
    )]
    NotLinear {
        /// What was asked for.
        operation: &'static str,
        /// What ended linearity.
        cause: &'static str,
    },
    /// A sketch was to be subtracted from one whose stream does not contain it.
    #[error(
        "cannot subtract: a counter would fall below zero, so the other stream is not a part of this one; nothing \
         was changed"
    )]
    NotAPart,
    /// Bytes that are not a sketch of the kind asked for.
    #[error("these bytes are no readable {kind}: {why}")]
    Decode {
        /// The sketch that was to be read.
        kind: &'static str,
        /// What was found instead.
        why: String,
    },
}

impl SketchError {
    pub(crate) fn parameter(what: &'static str, got: impl ToString, expected: &'static str) -> Self {
        Self::Parameter { what, got: got.to_string(), expected }
    }
}

/// A vector of `n` default values, or an error where the memory for it is not to be had.
pub(crate) fn try_table<T: Clone + Default>(
    n: Option<usize>,
    what: impl FnOnce() -> String,
) -> Result<Vec<T>, SketchError> {
    let mut table = Vec::new();
    match n {
        Some(n) if table.try_reserve_exact(n).is_ok() => {
            table.resize(n, T::default());
            Ok(table)
        }
        _ => Err(SketchError::OutOfMemory { what: what() }),
    }
}
