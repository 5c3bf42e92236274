//! Who gets how many bytes.

mod ada;
mod adaptive;
mod pyramid;
mod uniform;

use crate::method::{Call, Kind, Method, Parameter};

/// Heads that compete for slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rivals {
    /// Those of a layer.
    InLayer,
    /// Those of all layers; of layers with sliding windows where the keep foresees attention.
    InCache,
}

/// How a cap is shared out over layers and heads.
pub trait Budget: Send + Sync {
    /// The share of a layer, relative to the other layers.
    fn share(&self, _layer: usize, _layers: usize) -> f64 {
        1.0
    }

    /// Which heads compete, and the share of an equal part that each keeps.
    fn competition(&self) -> Option<(Rivals, f32)> {
        None
    }
}

/// What a head keeps where heads compete: of a budget that declares this, no head falls below it.
const FLOOR: Parameter = Parameter {
    name: "floor",
    kind: Kind::Real(0.0, 1.0),
    default: "0.2",
    help: "share of an equal part that no head falls below",
};

/// Equal parts, for which heads compete.
struct Competition {
    rivals: Rivals,
    floor: f32,
}

impl Competition {
    fn build(call: &Call, rivals: Rivals) -> Box<dyn Budget> {
        Box::new(Competition { rivals, floor: call.real(FLOOR.name) })
    }
}

impl Budget for Competition {
    fn competition(&self) -> Option<(Rivals, f32)> {
        Some((self.rivals, self.floor))
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
