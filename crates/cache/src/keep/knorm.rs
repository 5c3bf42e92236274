use super::{Arrival, Context, Keep, RECENT, SINKS};
use crate::context::Candidates;
use crate::method::{Call, Choice, Method};

pub(super) static METHOD: Method = Method {
    name: "knorm",
    choice: Choice::Keep,
    summary: "the tokens whose keys are short",
    formula: "evict argmax ‖k_i‖",
    state: "4 B a slot",
    paper: "Devoto et al., arXiv 2406.11430",
    differs: "Runs in every layer (the paper spares the first two) and while decoding. \
              The tokens kept do not depend on the chunk.",
    parameters: &[SINKS, RECENT],
};

pub(super) fn build(_: &Call, _: &Context<'_>) -> Box<dyn Keep> {
    Box::new(KeyNorm)
}

struct KeyNorm;

impl Keep for KeyNorm {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(KeyNorm)
    }

    fn words(&self) -> usize {
        1
    }

    fn arrive(&mut self, token: &Arrival<'_>, state: &mut [u32]) {
        state[0] = super::norm(token.key).to_bits();
    }

    fn importance(&mut self, candidates: &Candidates<'_>, out: &mut [f32]) {
        for (out, &norm) in out.iter_mut().zip(&*candidates.state) {
            *out = -f32::from_bits(norm);
        }
    }
}
