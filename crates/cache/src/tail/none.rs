use super::Tail;
use crate::context::Context;
use crate::method::{Call, Choice, Method};

pub(super) static METHOD: Method = Method {
    name: "none",
    choice: Choice::Tail,
    summary: "evicted tokens are forgotten",
    formula: "—",
    state: "0",
    paper: "",
    differs: "",
    parameters: &[],
};

pub(super) fn build(_: &Call, _: &Context<'_>) -> Option<Box<dyn Tail>> {
    None
}
