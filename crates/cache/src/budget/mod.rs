//! Who gets how many bytes.

mod ada;
mod adaptive;
mod pyramid;
mod uniform;

use crate::method::{Call, Method};

/// Heads that compete for slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rivals {
    /// Those of a layer.
    InLayer,
    /// Those of all layers without sliding windows.
    InCache,
}

/// How a cap is shared out over layers and heads.
pub trait Budget: Send + Sync {
    /// The share of a layer, relative to the other layers.
    fn share(&self, layer: usize, layers: usize) -> f64;

    /// Which heads compete, and the share of an equal part that each keeps.
    fn competition(&self) -> Option<(Rivals, f32)> {
        None
    }
}

/// Builds a budget from its call.
pub type Build = fn(&Call) -> Box<dyn Budget>;

/// All budgets.
pub(crate) static BUDGETS: &[(&Method, Build)] = &[
    (&uniform::METHOD, uniform::build),
    (&pyramid::METHOD, pyramid::build),
    (&ada::METHOD, ada::build),
    (&adaptive::METHOD, adaptive::build),
];
