use super::Budget;
use crate::method::{Call, Choice, Kind, Method, Parameter};

pub(super) static METHOD: Method = Method {
    name: "pyramid",
    choice: Choice::Budget,
    summary: "lower layers get more, linearly; the sum is unchanged",
    formula: "B_top = B/β, B_bottom = 2B − B/β, linear between",
    state: "0",
    paper: "PyramidKV, arXiv 2406.02069",
    differs: "Bytes instead of tokens; holds in decode, too.",
    parameters: &[Parameter {
        name: "beta",
        kind: Kind::Real(0.51, 1000.0),
        default: "20",
        help: "how much less than the average the top layer gets; below 1 it gets more",
    }],
};

pub(super) fn build(call: &Call) -> Box<dyn Budget> {
    Box::new(Pyramid { beta: call.real("beta") as f64 })
}

struct Pyramid {
    beta: f64,
}

impl Budget for Pyramid {
    fn share(&self, layer: usize, layers: usize) -> f64 {
        if layers == 1 {
            return 1.0;
        }
        let (top, bottom) = (1.0 / self.beta, 2.0 - 1.0 / self.beta);
        bottom + (top - bottom) * layer as f64 / (layers - 1) as f64
    }
}
