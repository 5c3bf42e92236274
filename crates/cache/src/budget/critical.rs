use super::Budget;
use crate::keep::{Arrival, Context, Keep, Step};
use crate::method::{Call, Choice, Kind, Method, Parameter};
use crate::state::{Reader, StateError, Writer};
use crate::{CacheError, Candidates, OutputProjection};

pub(super) static METHOD: Method = Method {
    name: "critical",
    choice: Choice::Budget,
    summary: "half of the slots by attention, the others by attention times what the value does to the output",
    formula: "the better half by importance s stays; of the others, argmin s_i·√(Σ_h ‖W_O,h·v_i‖²) is evicted, h over the \
              query heads of the group",
    state: "0; of the model, once for all caches, 4d² B a KV head",
    paper: "CriticalKV, arXiv 2502.03805",
    differs: "The paper sums absolute values, ‖W_O·v‖₁, which for projections that look normal is the same up to a \
              factor. Norms are computed when tokens are evicted, `interval` at a time, instead of stored. Needs a keep whose \
              importance is attention, and a model that says what its output projection is.",
    parameters: &[Parameter {
        name: "interval",
        kind: Kind::Integer(1, 4096),
        default: "32",
        help: "tokens evicted at a time, at most a quarter of those that may be; more is cheaper, and holds fewer",
    }],
};

pub(super) fn build(call: &Call) -> Box<dyn Budget> {
    Box::new(Critical { interval: call.count("interval") })
}

struct Critical {
    interval: usize,
}

impl Budget for Critical {
    fn share(&self, _: usize, _: usize) -> f64 {
        1.0
    }

    fn refine(&self, keep: Box<dyn Keep>, context: &Context<'_>) -> Result<Box<dyn Keep>, CacheError> {
        if !keep.is_attention() {
            return Err(CacheError::Unsupported(
                "`critical` multiplies attention, which this keep does not look at: choose another, as `h2o`, \
                 `snapkv` or `expected`"
                    .to_owned(),
            ));
        }
        let Some(output) = context.shape.output.clone() else {
            return Err(CacheError::Unsupported(
                "`critical` needs the model's output projection, which was not given: choose another budget"
                    .to_owned(),
            ));
        };
        let index = context.layer * context.shape.kv_heads + context.head;
        Ok(Box::new(TwoStages {
            keep,
            output,
            index,
            head_dim: context.shape.head_dim,
            interval: self.interval,
        }))
    }
}

/// A keep whose less important half is judged a second time.
struct TwoStages {
    keep: Box<dyn Keep>,
    output: OutputProjection,
    /// KV head, counted over all layers.
    index: usize,
    head_dim: usize,
    interval: usize,
}

impl Keep for TwoStages {
    fn clone_box(&self) -> Box<dyn Keep> {
        let (keep, output) = (self.keep.clone_box(), self.output.clone());
        Box::new(TwoStages { keep, output, ..*self })
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.keep) + self.keep.bytes()
    }

    fn words(&self) -> usize {
        self.keep.words()
    }

    fn feedback(&self) -> Option<f32> {
        self.keep.feedback()
    }

    fn is_attention(&self) -> bool {
        true
    }

    fn batch(&self) -> usize {
        self.keep.batch().max(self.interval)
    }

    fn same_in_all_heads(&self) -> bool {
        self.keep.same_in_all_heads()
    }

    fn observe(&mut self, step: &Step<'_>, state: &mut [u32]) {
        self.keep.observe(step, state);
    }

    fn arrive(&mut self, token: &Arrival<'_>, state: &mut [u32]) {
        self.keep.arrive(token, state);
    }

    fn weigh(&mut self, candidates: &mut [Candidates<'_>; 2], out: &mut [f32]) {
        self.keep.weigh(candidates, out);
        let (first, second) = (candidates[0].positions.iter(), candidates[1].positions.iter());
        let mut order: Vec<usize> =
            first.chain(second).enumerate().filter(|(_, p)| **p != u32::MAX).map(|(i, _)| i).collect();
        let less = order.len() / 2;
        if less == 0 {
            return;
        }
        order.select_nth_unstable_by(less, |&a, &b| out[a].total_cmp(&out[b]).then(a.cmp(&b)));
        let slots = candidates[0].len();
        let mut value = vec![0.0; self.head_dim];
        for (rank, i) in order.into_iter().enumerate() {
            if rank >= less {
                // Stays whatever its value is.
                out[i] = f32::MAX;
                continue;
            }
            match i.checked_sub(slots) {
                None => candidates[0].value(i, &mut value),
                Some(token) => candidates[1].value(token, &mut value),
            }
            out[i] = out[i].max(0.0) * self.output.norm(self.index, &value);
        }
    }

    fn save(&self, out: &mut Writer) {
        self.keep.save(out);
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.keep.load(from)
    }
}
