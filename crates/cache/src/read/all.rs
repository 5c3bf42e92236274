use super::{PROMPT, Read};
use crate::context::Context;
use crate::method::{Call, Choice, Method};

pub(super) static METHOD: Method = Method {
    name: "all",
    choice: Choice::Read,
    summary: "every slot: dense attention",
    formula: "—",
    state: "0",
    paper: "",
    differs: "",
    parameters: &[PROMPT],
};

pub(super) fn build(_: &Call, _: &Context<'_>) -> Option<Box<dyn Read>> {
    None
}
