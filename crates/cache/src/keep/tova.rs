use super::{Context, Feedback, Keep, RECENT, SINKS};
use crate::context::Candidates;
use crate::method::{Call, Choice, Method};

pub(super) static METHOD: Method = Method {
    name: "tova",
    choice: Choice::Keep,
    summary: "the tokens that the newest query looks at, the same in every head",
    formula: "w_i of the newest query, mean over all heads of the layer; evict argmin w",
    state: "0",
    paper: "TOVA, arXiv 2401.06104",
    differs: "Sinks and the newest tokens are protected (the paper: sinks=0, recent=1). \
              In a chunk of several tokens only the last one's query counts.",
    parameters: &[SINKS, RECENT],
};

pub(super) fn build(_: &Call, _: &Context<'_>) -> Box<dyn Keep> {
    Box::new(Tova)
}

struct Tova;

impl Keep for Tova {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(Tova)
    }

    fn feedback(&self, _tokens: usize) -> Option<Feedback> {
        Some(Feedback::Sum(0.0))
    }

    fn same_in_all_heads(&self) -> bool {
        true
    }

    fn importance(&mut self, candidates: &Candidates<'_>, out: &mut [f32]) {
        // Between two tokens nothing is attended to: the oldest go.
        match candidates.mass {
            [] => out.fill(0.0),
            mass => out.copy_from_slice(mass),
        }
    }
}
