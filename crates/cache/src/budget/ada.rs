use super::{Budget, Competition, FLOOR, Rivals};
use crate::method::{Call, Choice, Method};

pub(super) static METHOD: Method = Method {
    name: "ada",
    choice: Choice::Budget,
    summary: "the heads of a layer compete for its slots",
    formula: "evict the worst-scored slots of all heads of a layer together; each head keeps floor·B",
    state: "0",
    paper: "Ada-KV, arXiv 2407.11550",
    differs: "Holds in decode, too; heads really own different numbers of pages, and give whole strips of 16 slots back.",
    parameters: &[FLOOR],
};

pub(super) fn build(call: &Call) -> Box<dyn Budget> {
    Competition::build(call, Rivals::InLayer)
}
