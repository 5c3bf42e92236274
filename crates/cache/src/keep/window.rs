use super::{Context, Keep, SINKS};
use crate::context::Candidates;
use crate::method::{Call, Choice, Method};

pub(super) static METHOD: Method = Method {
    name: "window",
    choice: Choice::Keep,
    summary: "the first tokens and the newest",
    formula: "evict the oldest token that is no sink",
    state: "0",
    paper: "StreamingLLM, arXiv 2309.17453",
    differs: "Keys keep the rotation of their original position instead of one within the window.",
    parameters: &[SINKS],
};

pub(super) fn build(_: &Call, _: &Context<'_>) -> Box<dyn Keep> {
    Box::new(Window)
}

struct Window;

impl Keep for Window {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(Window)
    }

    fn importance(&mut self, candidates: &Candidates<'_>, out: &mut [f32]) {
        for (out, &position) in out.iter_mut().zip(candidates.positions) {
            *out = position as f32;
        }
    }
}
