use super::{Budget, Rivals};
use crate::method::{Call, Choice, Kind, Method, Parameter};

pub(super) static METHOD: Method = Method {
    name: "adaptive",
    choice: Choice::Budget,
    summary: "all heads of the cache compete for its slots",
    formula: "importance relative to the sum over its head; evict the least of all heads of all layers together; each head \
              keeps floor·B",
    state: "0",
    paper: "ours; Ada-KV, arXiv 2407.11550, within a layer",
    differs: "",
    parameters: &[Parameter {
        name: "floor",
        kind: Kind::Real(0.0, 1.0),
        default: "0.2",
        help: "share of an equal part that no head falls below",
    }],
};

pub(super) fn build(call: &Call) -> Box<dyn Budget> {
    Box::new(Adaptive { floor: call.real("floor") })
}

struct Adaptive {
    floor: f32,
}

impl Budget for Adaptive {
    fn share(&self, _: usize, _: usize) -> f64 {
        1.0
    }

    fn competition(&self) -> Option<(Rivals, f32)> {
        Some((Rivals::InCache, self.floor))
    }
}
