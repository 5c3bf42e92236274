use super::{Budget, Competition, FLOOR, Rivals};
use crate::method::{Call, Choice, Method};

pub(super) static METHOD: Method = Method {
    name: "adaptive",
    choice: Choice::Budget,
    summary: "all heads of the cache compete for its slots",
    formula: "importance relative to the sum over its head; evict the least of all heads of all layers together; each head \
              keeps floor·B",
    state: "0",
    paper: "ours; Ada-KV, arXiv 2407.11550, within a layer",
    differs: "",
    parameters: &[FLOOR],
};

pub(super) fn build(call: &Call) -> Box<dyn Budget> {
    Competition::build(call, Rivals::InCache)
}
