use super::{Budget, Competition, FLOOR, Rivals};
use crate::method::{Call, Choice, Method};

pub(super) static METHOD: Method = Method {
    name: "adaptive",
    choice: Choice::Budget,
    summary: "all heads of the cache compete for its bytes",
    formula: "at a price λ of a byte head h is left with the rung r and without the tokens i for which \
              w_h·Σ_i a_i + c_h·D(r) + λ·bytes is least, D(r) = (4^(2−bits of K) + 4^(2−bits of V))/2; λ is the lowest at which all heads \
              fit; w_h, c_h: KL by which the model answers to a unit of evicted attention and to two bits in that head alone; each head keeps \
              floor·B",
    state: "0",
    paper: "ours; Ada-KV, arXiv 2407.11550, within a layer; head budgets by measured loss: LU-KV, arXiv 2602.08585",
    differs: "w and c are from the model's profile, the same for all heads without one. Of keeps other than foreseen importance is no attention \
              to come: all bits fall first, then the least important of all heads together go, attention relative to the sum over its head, \
              and layers with sliding windows take no part.",
    parameters: &[FLOOR],
};

pub(super) fn build(call: &Call) -> Box<dyn Budget> {
    Competition::build(call, Rivals::InCache)
}
