//! Who gets how many bytes.

mod ada;
mod pyramid;
mod uniform;

use crate::method::{Call, Method};

/// How a cap is shared out over layers and heads.
pub trait Budget: Send + Sync {
    /// The share of a layer, relative to the other layers.
    fn share(&self, layer: usize, layers: usize) -> f64;

    /// Whether the heads of a layer compete for its slots, and the share of an equal part that each head keeps.
    fn pooled(&self) -> Option<f32> {
        None
    }
}

/// Builds a budget from its call.
pub type Build = fn(&Call) -> Box<dyn Budget>;

/// All budgets.
pub(crate) static BUDGETS: &[(&Method, Build)] =
    &[(&uniform::METHOD, uniform::build), (&pyramid::METHOD, pyramid::build), (&ada::METHOD, ada::build)];
