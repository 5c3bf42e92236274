use super::Budget;
use crate::method::{Call, Choice, Method};

pub(super) static METHOD: Method = Method {
    name: "uniform",
    choice: Choice::Budget,
    summary: "every layer and head gets the same",
    formula: "B_l = B",
    state: "0",
    paper: "",
    differs: "",
    parameters: &[],
};

pub(super) fn build(_: &Call) -> Box<dyn Budget> {
    Box::new(Uniform)
}

struct Uniform;

impl Budget for Uniform {}
