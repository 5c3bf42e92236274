use super::{Evicted, Tail};
use crate::context::{Buffers, Context, Neighbours, Partial, Softcap, dot};
use crate::method::{Call, Choice, Kind, Method, Parameter};
use crate::state::{Reader, StateError, Writer};
use sketchkv_sketch::{SplitMix64, VectorCountSketch, mix};
use std::mem::size_of;

pub(super) static METHOD: Method = Method {
    name: "countsketch",
    choice: Choice::Tail,
    summary: "evicted keys and values in a Count-Sketch, reconstructed to be attended to",
    formula: "m = mean of the n evicted (k, v); in every row r, B_r[h_r(p)] += s_r(p)·((k, v) − m); \
              (k̂, v̂)_p = m + median_r s_r(p)·B_r[h_r(p)] / (1 + (n − 1)/width) are attended to for the newest evicted \
              positions p",
    state: "(width·depth + 1)·8d + 4·newest B a head",
    paper: "KVReviver, arXiv 2512.17917",
    differs: "Only the newest evicted positions are reconstructed, which bounds the time of a step; the older ones are \
              noise in the buckets. With n evicted tokens a row returns a vector plus n/width others of like length: the \
              cosine with the true one is about 1/√(1 + n/width), which `sketchkv distortion` measures. Attended to as \
              they come back, keys so much too long draw all attention (KL above 20 nats on SmolLM2); so what is \
              sketched are differences from the mean, and they are shrunk by what is noise in them.",
    parameters: &[
        Parameter { name: "width", kind: Kind::Integer(1, 1 << 16), default: "16", help: "buckets a row" },
        Parameter { name: "depth", kind: Kind::Integer(1, 9), default: "3", help: "rows" },
        Parameter {
            name: "newest",
            kind: Kind::Integer(1, 1 << 16),
            default: "64",
            help: "evicted positions that are reconstructed at every step",
        },
    ],
};

pub(super) fn build(call: &Call, context: &Context<'_>) -> Option<Box<dyn Tail>> {
    let (width, depth) = (call.count("width"), call.count("depth"));
    let (key_dim, both) = (context.layer().key_dim, context.layer().key_dim + context.layer().value_dim);
    let sketch = VectorCountSketch::new(width, depth, both, context.own_seed())
        .expect("the parameters are within the bounds of the sketch");
    let ring = vec![NONE; call.count("newest")].into();
    let softcap = context.softcap();
    Some(Box::new(Sketched {
        key_dim,
        softcap,
        sketch,
        mean: vec![0.0; both].into(),
        seen: 0,
        ring,
        next: 0,
    }))
}

/// A place of the ring that no position has taken yet.
const NONE: u32 = u32::MAX;

#[derive(Clone)]
struct Sketched {
    key_dim: usize,
    softcap: Softcap,
    /// Keys and values side by side, less the mean as it was then, by position.
    sketch: VectorCountSketch,
    /// Of all that were evicted.
    mean: Box<[f32]>,
    /// How many were evicted.
    seen: u64,
    /// Positions evicted last.
    ring: Box<[u32]>,
    /// The place of the ring that is written next.
    next: usize,
}

impl Tail for Sketched {
    fn clone_box(&self) -> Box<dyn Tail> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        self.sketch.bytes() + self.mean.len() * size_of::<f32>() + self.ring.len() * size_of::<u32>()
    }

    fn absorb(&mut self, token: &Evicted<'_>, _: &mut dyn Neighbours, buffers: &mut Buffers) {
        let mut pair = buffers.floats(token.key.len() + token.value.len());
        pair[..token.key.len()].copy_from_slice(token.key);
        pair[token.key.len()..].copy_from_slice(token.value);
        self.seen += 1;
        let rate = 1.0 / self.seen as f32;
        for (x, mean) in pair.iter_mut().zip(&mut self.mean) {
            *mean += (*x - *mean) * rate;
            *x -= *mean;
        }
        self.sketch.update_hash(token.position as u64, &pair, 1.0);
        self.ring[self.next] = token.position as u32;
        self.next = (self.next + 1) % self.ring.len();
        buffers.give_floats([pair]);
    }

    fn attend(&self, queries: &[f32], partial: &mut Partial, buffers: &mut Buffers) {
        let d = self.key_dim;
        let mut pair = buffers.floats(self.sketch.dim());
        // The least mean squared error of a row that holds all evicted tokens evenly.
        let share = 1.0 / (1.0 + self.seen.saturating_sub(1) as f32 / self.sketch.width() as f32);
        for &position in self.ring.iter().filter(|&&position| position != NONE) {
            self.sketch.reconstruct_hash(position.into(), &mut pair);
            pair.iter_mut().zip(&self.mean).for_each(|(x, mean)| *x = *x * share + mean);
            let (key, value) = pair.split_at(d);
            for (query, q) in queries.chunks_exact(d).enumerate() {
                partial.add(query, self.softcap.of(dot(q, key)), 1.0, value);
            }
        }
        buffers.give_floats([pair]);
    }

    fn save(&self, out: &mut Writer) {
        out.u64(self.seen);
        out.floats(&self.mean);
        out.words(&self.ring);
        out.u64(self.next as u64);
        out.blob(&self.sketch.to_bytes());
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.seen = from.u64()?;
        self.mean = from.floats(self.mean.len())?.into();
        self.ring = from.words(self.ring.len())?.into();
        self.next = from.length(self.ring.len() - 1)?;
        let sketch = VectorCountSketch::from_bytes(from.blob()?);
        let sketch = sketch.map_err(|error| StateError::Corrupt(error.to_string()))?;
        let shape = |s: &VectorCountSketch| (s.width(), s.depth(), s.dim(), s.seed());
        if shape(&sketch) != shape(&self.sketch) {
            return Err(StateError::Mismatch("its Count-Sketch has another shape or seed".to_owned()));
        }
        self.sketch = sketch;
        Ok(())
    }
}

/// The mean cosine of `n` random vectors of `dim` dimensions with what a Count-Sketch of `depth` rows of `width` buckets
/// that holds them all returns for them: near 1 only where there are more buckets than vectors.
///
/// # Errors
/// When the sketch refuses its parameters.
///
/// ```
/// use sketchkv_cache::tail::countsketch_cosine;
/// let roomy = countsketch_cosine(100, 4096, 3, 64, 1)?;
/// let crowded = countsketch_cosine(1000, 64, 3, 64, 1)?;
/// assert!(roomy > 0.97 && crowded < 0.45);
/// # Ok::<(), sketchkv_sketch::SketchError>(())
/// ```
pub fn countsketch_cosine(
    n: usize,
    width: usize,
    depth: usize,
    dim: usize,
    seed: u64,
) -> Result<f64, sketchkv_sketch::SketchError> {
    let mut sketch = VectorCountSketch::new(width, depth, dim, seed)?;
    let vector = |i: usize| -> Vec<f32> {
        let mut random = SplitMix64::new(mix(seed.wrapping_add(1)) ^ i as u64);
        // Sums of twelve uniform numbers: near enough to normal for their direction.
        let mut uniform = || (random.next_u64() >> 40) as f32 / (1u64 << 24) as f32;
        (0..dim).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
    };
    (0..n).for_each(|i| sketch.update_hash(i as u64, &vector(i), 1.0));
    let mut out = vec![0.0; dim];
    let mut sum = 0.0;
    for i in 0..n {
        sketch.reconstruct_hash(i as u64, &mut out);
        let truth = vector(i);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a * b) as f64).sum::<f64>();
        sum += dot(&truth, &out) / (dot(&truth, &truth) * dot(&out, &out)).sqrt().max(f64::MIN_POSITIVE);
    }
    Ok(sum / n.max(1) as f64)
}
