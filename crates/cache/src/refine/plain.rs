use super::Refine;
use crate::CacheError;
use crate::context::Context;
use crate::method::{Call, Choice, Method};

pub(super) static METHOD: Method = Method {
    name: "plain",
    choice: Choice::Refine,
    summary: "importance as the keep gives it",
    formula: "evict argmin s",
    state: "0",
    paper: "",
    differs: "",
    parameters: &[],
};

pub(super) fn build(_: &Call, _: &Context<'_>, _: bool) -> Result<Option<Box<dyn Refine>>, CacheError> {
    Ok(None)
}
