use super::{Arrival, Context, Feedback, Keep, RECENT, SINKS, Step};
use crate::context::Candidates;
use crate::method::{Call, Choice, Kind, Method, Parameter};

pub(super) static METHOD: Method = Method {
    name: "h2o",
    choice: Choice::Keep,
    summary: "heavy hitters: the tokens that have drawn most attention",
    formula: "S_i ← γ·S_i + w_i; evict argmin S",
    state: "4 B a slot",
    paper: "H2O, arXiv 2306.14048",
    differs: "The decay γ is ours: old attention counts less and less, so that the past can be let go.",
    parameters: &[
        Parameter {
            name: "decay",
            kind: Kind::Real(0.0, 1.0),
            default: "0.99",
            help: "γ, per token; 1 is the paper's sum over all time",
        },
        SINKS,
        RECENT,
    ],
};

pub(super) fn build(call: &Call, _: &Context<'_>) -> Box<dyn Keep> {
    Box::new(HeavyHitters { decay: call.real("decay") })
}

#[derive(Clone)]
struct HeavyHitters {
    decay: f32,
}

impl Keep for HeavyHitters {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(self.clone())
    }

    fn words(&self) -> usize {
        1
    }

    fn feedback(&self, _tokens: usize) -> Option<Feedback> {
        Some(Feedback::Sum(self.decay))
    }

    fn observe(&mut self, step: &Step<'_>, state: &mut [u32]) {
        let decay = self.decay.powi(step.tokens as i32);
        for (score, mass) in state.iter_mut().zip(step.mass) {
            *score = (decay * f32::from_bits(*score) + mass).to_bits();
        }
    }

    fn arrive(&mut self, token: &Arrival<'_>, state: &mut [u32]) {
        state[0] = token.mass.to_bits();
    }

    fn importance(&mut self, candidates: &Candidates<'_>, out: &mut [f32]) {
        for (out, &score) in out.iter_mut().zip(&*candidates.state) {
            *out = f32::from_bits(score);
        }
    }
}
