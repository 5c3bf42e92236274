use super::{Budget, Rivals};
use crate::method::{Call, Choice, Kind, Method, Parameter};

pub(super) static METHOD: Method = Method {
    name: "ada",
    choice: Choice::Budget,
    summary: "the heads of a layer compete for its slots",
    formula: "evict the worst-scored slots of all heads of a layer together; each head keeps floor·B",
    state: "0",
    paper: "Ada-KV, arXiv 2407.11550",
    differs: "Holds in decode, too; heads really own different numbers of pages, and give whole strips of 16 slots back.",
    parameters: &[Parameter {
        name: "floor",
        kind: Kind::Real(0.0, 1.0),
        default: "0.2",
        help: "share of an equal part that no head falls below",
    }],
};

pub(super) fn build(call: &Call) -> Box<dyn Budget> {
    Box::new(Ada { floor: call.real("floor") })
}

struct Ada {
    floor: f32,
}

impl Budget for Ada {
    fn share(&self, _: usize, _: usize) -> f64 {
        1.0
    }

    fn competition(&self) -> Option<(Rivals, f32)> {
        Some((Rivals::InLayer, self.floor))
    }
}
