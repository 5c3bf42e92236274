//! Who gets how many bytes.

mod ada;
mod critical;
mod pyramid;
mod uniform;

use crate::CacheError;
use crate::keep::{Context, Keep};
use crate::method::{Call, Method};

/// How a cap is shared out over layers and heads.
pub trait Budget: Send + Sync {
    /// The share of a layer, relative to the other layers.
    fn share(&self, layer: usize, layers: usize) -> f64;

    /// Whether the heads of a layer compete for its slots, and the share of an equal part that each head keeps.
    fn pooled(&self) -> Option<f32> {
        None
    }

    /// The keep as this budget has it judge.
    ///
    /// # Errors
    /// When it cannot judge in this way.
    fn refine(&self, keep: Box<dyn Keep>, _context: &Context<'_>) -> Result<Box<dyn Keep>, CacheError> {
        Ok(keep)
    }
}

/// Builds a budget from its call.
pub type Build = fn(&Call) -> Box<dyn Budget>;

/// All budgets.
pub static BUDGETS: &[(&Method, Build)] = &[
    (&uniform::METHOD, uniform::build),
    (&pyramid::METHOD, pyramid::build),
    (&ada::METHOD, ada::build),
    (&critical::METHOD, critical::build),
];
