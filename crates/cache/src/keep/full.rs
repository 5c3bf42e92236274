use super::{Context, Keep};
use crate::context::Candidates;
use crate::method::{Call, Choice, Method};

pub(super) static METHOD: Method = Method {
    name: "full",
    choice: Choice::Keep,
    summary: "nothing is evicted",
    formula: "—",
    state: "0",
    paper: "",
    differs: "",
    parameters: &[],
};

pub(super) fn build(_: &Call, _: &Context<'_>) -> Box<dyn Keep> {
    Box::new(Full)
}

struct Full;

impl Keep for Full {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(Full)
    }

    fn importance(&mut self, _: &Candidates<'_>, _: &mut [f32]) {
        unreachable!("a spec with a cap on `full` is refused")
    }
}
