use super::{Arrival, Context, Keep, RECENT, SINKS, interval};
use crate::context::{Buffers, Candidates};
use crate::method::{Call, Choice, Method};
use crate::state::{Reader, StateError, Writer};

pub(super) static METHOD: Method = Method {
    name: "keydiff",
    choice: Choice::Keep,
    summary: "the tokens whose keys are unlike the typical key",
    formula: "m = mean of k/‖k‖ over all tokens seen; evict argmax cos(k_i, m)",
    state: "4 B a slot, 4·d B a head",
    paper: "KeyDiff, arXiv 2504.15364",
    differs: "The typical key is the mean over all tokens seen, not over those still kept. \
              Keys are compared as they are stored; `interval` tokens are evicted at a time.",
    parameters: &[interval("8"), SINKS, RECENT],
};

pub(super) fn build(call: &Call, context: &Context<'_>) -> Box<dyn Keep> {
    Box::new(KeyDifference {
        interval: call.count("interval"),
        mean: vec![0.0; context.layer().key_dim],
        seen: 0,
    })
}

#[derive(Clone)]
struct KeyDifference {
    interval: usize,
    /// Mean of the unit keys, `[head_dim]`.
    mean: Vec<f32>,
    seen: u64,
}

impl Keep for KeyDifference {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        self.mean.capacity() * size_of::<f32>()
    }

    /// The norm of the key.
    fn words(&self) -> usize {
        1
    }

    fn batch(&self) -> usize {
        self.interval
    }

    fn arrive(&mut self, token: &Arrival<'_>, state: &mut [u32]) {
        let norm = super::norm(token.key);
        state[0] = norm.to_bits();
        self.seen += 1;
        let inverse = if norm > 0.0 { 1.0 / norm } else { 0.0 };
        let share = 1.0 / self.seen as f32;
        for (mean, key) in self.mean.iter_mut().zip(token.key) {
            *mean += (key * inverse - *mean) * share;
        }
    }

    /// −cos(k_i, m).
    fn weigh(&mut self, candidates: &mut [Candidates<'_>; 2], out: &mut [f32], buffers: &mut Buffers) {
        let mean = super::norm(&self.mean);
        let (old, new) = out.split_at_mut(candidates[0].len());
        for (candidates, out) in candidates.iter().zip([old, new]) {
            candidates.dot(&self.mean, out, buffers);
            for (out, &norm) in out.iter_mut().zip(&*candidates.state) {
                let norms = mean * f32::from_bits(norm);
                *out = if norms > 0.0 { -*out / norms } else { 0.0 };
            }
        }
    }

    fn save(&self, out: &mut Writer) {
        out.floats(&self.mean);
        out.u64(self.seen);
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.mean = from.floats(self.mean.len())?;
        self.seen = from.u64()?;
        Ok(())
    }
}
