use super::{Context, Keep, RECENT, SINKS};
use crate::context::Candidates;
use crate::method::{Call, Choice, Method};
use sketchkv_sketch::mix;

pub(super) static METHOD: Method = Method {
    name: "random",
    choice: Choice::Keep,
    summary: "a seeded uniform choice: the control that any method must beat",
    formula: "evict argmin of a hash of (seed, position)",
    state: "0",
    paper: "",
    differs: "",
    parameters: &[SINKS, RECENT],
};

pub(super) fn build(_: &Call, context: &Context<'_>) -> Box<dyn Keep> {
    Box::new(Random { seed: context.own_seed() })
}

#[derive(Clone)]
struct Random {
    seed: u64,
}

impl Keep for Random {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(self.clone())
    }

    /// Keeping the largest hashes of all tokens seen is a uniform sample of them (reservoir sampling by priority).
    fn importance(&mut self, candidates: &Candidates<'_>, out: &mut [f32]) {
        for (out, &position) in out.iter_mut().zip(candidates.positions) {
            *out = (mix(self.seed ^ position as u64) >> 40) as f32;
        }
    }
}
