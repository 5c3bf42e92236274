use super::{Evicted, Tail};
use crate::context::{Buffers, Context, Neighbours, Partial};
use crate::means::Means;
use crate::method::{Call, Choice, Kind, Method, Parameter};
use crate::state::{Reader, StateError, Writer};
use sketchkv_kernels::attention::layout::STRIP;
use std::mem::size_of;

pub(super) static METHOD: Method = Method {
    name: "buckets",
    choice: Choice::Tail,
    summary: "clusters of evicted keys, each attended to as one token",
    formula: "(k, v) joins the bucket b of least ‖k − k̄_b‖²·c_b/(c_b + 1), an empty one first: c_b, k̄_b, v̄_b, r_b² are \
              its count, means and mean ‖k − k̄_b‖²; at attention, a token of value v̄_b and logit \
              q·k̄_b/√d + ln c_b + β·r_b²‖q‖²/2d²",
    state: "n·(4d + 12) B a head",
    paper: "ours; online k-means after MacQueen 1967 with the cost of Ward 1963",
    differs: "A mean of exponentials exceeds the exponential of the mean, by e^(σ²/2) where logits are normal with \
              variance σ². A bucket knows the spread of its keys and adds the share β of it: on real keys and queries \
              that took a quarter off the error of the output.",
    parameters: &[
        Parameter {
            name: "n",
            kind: Kind::Integer(16, 4096),
            default: "32",
            help: "buckets a head, rounded up to a multiple of 16",
        },
        Parameter {
            name: "spread",
            kind: Kind::Real(0.0, 1.0),
            default: "0.5",
            help: "β, the share of a bucket's variance of logits that counts",
        },
    ],
};

pub(super) fn build(call: &Call, context: &Context<'_>) -> Option<Box<dyn Tail>> {
    let n = call.count("n").next_multiple_of(STRIP);
    let (share, means) = (call.real("spread"), Means::new(n, context));
    Some(Box::new(Buckets { share, counts: vec![0; n].into(), means }))
}

#[derive(Clone)]
struct Buckets {
    /// β
    share: f32,
    /// Tokens in each bucket.
    counts: Box<[u32]>,
    means: Means,
}

impl Tail for Buckets {
    fn clone_box(&self) -> Box<dyn Tail> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        let n = self.counts.len();
        self.means.bytes_of(n) + n * size_of::<u32>()
    }

    fn absorb(&mut self, token: &Evicted<'_>, _: &mut dyn Neighbours, buffers: &mut Buffers) {
        let empty = self.counts.iter().position(|&count| count == 0);
        let (bucket, distance) = empty.map_or_else(|| self.nearest(token.key, buffers), |empty| (empty, 0.0));
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        let rate = 1.0 / self.counts[bucket] as f32;
        self.means.join(bucket, token.key, token.value, rate, distance);
    }

    fn attend(&self, queries: &[f32], partial: &mut Partial, buffers: &mut Buffers) {
        // Buckets fill from the first.
        if self.counts[0] > 0 {
            // ln 0 = −∞ leaves an empty bucket out.
            let mut logs = buffers.floats(self.counts.len());
            logs.iter_mut().zip(&self.counts).for_each(|(log, &count)| *log = (count as f32).ln());
            self.means.attend(queries, &logs, self.share, partial, buffers);
            buffers.give_floats([logs]);
        }
    }

    fn save(&self, out: &mut Writer) {
        out.words(&self.counts);
        self.means.save(out);
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.counts = from.words(self.counts.len())?.into();
        self.means.load(from)
    }
}

impl Buckets {
    /// The bucket that a key widens least, and ‖k − k̄‖² there.
    fn nearest(&self, key: &[f32], buffers: &mut Buffers) -> (usize, f32) {
        let distances = self.means.distances(key, buffers);
        let mut best = (0, 0.0, f32::INFINITY);
        for (bucket, (&distance, &count)) in distances.iter().zip(&self.counts).enumerate() {
            let cost = distance * count as f32 / (count as f32 + 1.0);
            if cost < best.2 {
                best = (bucket, distance, cost);
            }
        }
        buffers.give_floats([distances]);
        (best.0, best.1)
    }
}
