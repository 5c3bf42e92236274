//! Importance counted in a sketch: what `cms`, `countsketch` and `race` have in common.

use super::{Arrival, Context, Feedback, Keep, RECENT, SINKS, Step, interval};
use crate::context::{Buffers, Candidates, EMPTY};
use crate::method::{Call, Kind, Parameter};
use crate::state::{Reader, StateError, Writer};
use sketchkv_sketch::{CountMin, CountSketch, Projection, SimHash, SketchError, mix};

/// What a token is counted under.
pub(super) const KEY: Parameter = Parameter {
    name: "key",
    kind: Kind::Word(&["content", "position"]),
    default: "content",
    help: "what a token is counted under: the SimHash code of its key, which tokens alike share, or its position",
};

/// How fast counts fade.
pub(super) const DECAY: Parameter = Parameter {
    name: "decay",
    kind: Kind::Real(0.0, 1.0),
    default: "0.99",
    help: "γ, per token, by which counts fade; 1 counts over all time",
};

/// How often tokens are evicted.
pub(super) const INTERVAL: Parameter = interval("16");

pub(super) const DIFFERS: &str = "The original counts under positions. Keys are hashed after subtraction of the running \
     mean key, which softmax does not see and which would fix most bits. Weights wait with their slot until tokens are \
     evicted, `interval` at a time, and are counted then: as the sketch is linear, the result is the same.";

/// What `cms` and `countsketch` take in bytes.
pub(super) const STATE: &str = "4·width·depth B a KV head and, with key=content, 4·d + 12·d B (d rounded up to a power of \
     two); 4 B a slot, with key=content 8 B";

/// What `cms` and `countsketch` take as parameters.
pub(super) const fn parameters(depth: &'static str) -> [Parameter; 8] {
    let width = Parameter {
        name: "width",
        kind: Kind::Integer(1, 1 << 20),
        default: "512",
        help: "counters in a row",
    };
    let depth = Parameter { name: "depth", kind: Kind::Integer(1, 64), default: depth, help: "rows" };
    let bits = Parameter { name: "bits", kind: Kind::Integer(1, 32), default: "12", help: "bits of a code" };
    [width, depth, KEY, bits, DECAY, INTERVAL, SINKS, RECENT]
}

/// A keep that counts in a table of `width` by `depth` counters, which `new` makes from these and a seed.
pub(super) fn tabled<C: Counts>(
    call: &Call,
    context: &Context<'_>,
    new: fn(usize, usize, u64) -> Result<C, SketchError>,
) -> Box<dyn Keep> {
    let counts = new(call.count("width"), call.count("depth"), context.own_seed());
    let counts = counts.expect("width and depth are within their bounds");
    Box::new(Sketched::new(call, context, call.count("bits"), counts))
}

/// A sketch of amounts under 64-bit keys.
pub(super) trait Counts: Clone + Send + Sync + 'static {
    /// Multiplies everything counted by `factor`.
    fn decay(&mut self, factor: f32);

    /// Adds `amounts[i]` to `keys[i]`.
    fn add(&mut self, keys: &[u64], amounts: &[f32]);

    /// Estimates the amounts of keys.
    fn estimate(&self, keys: &[u64], out: &mut [f32]);

    /// Heap bytes of the counters.
    fn bytes(&self) -> usize;

    /// The hash it has of its own, if any: keys are hashed with it then.
    fn hash(&self) -> Option<&SimHash> {
        None
    }

    fn save(&self) -> Vec<u8>;

    /// Reads what `save` wrote.
    fn load(bytes: &[u8]) -> Result<Self, SketchError>;

    /// Whether another sketch has the same parameters.
    fn is_like(&self, other: &Self) -> bool;
}

macro_rules! tables {
    ($($sketch:ident)*) => {$(
        impl Counts for $sketch<f32> {
            fn decay(&mut self, factor: f32) {
                $sketch::decay(self, factor);
            }

            fn add(&mut self, keys: &[u64], amounts: &[f32]) {
                self.update_hash_batch_weighted(keys, amounts);
            }

            fn estimate(&self, keys: &[u64], out: &mut [f32]) {
                self.query_hash_batch(keys, out);
            }

            fn bytes(&self) -> usize {
                $sketch::bytes(self)
            }

            fn save(&self) -> Vec<u8> {
                self.to_bytes()
            }

            fn load(bytes: &[u8]) -> Result<Self, SketchError> {
                Self::from_bytes(bytes)
            }

            fn is_like(&self, other: &Self) -> bool {
                (self.width(), self.depth(), self.seed()) == (other.width(), other.depth(), other.seed())
            }
        }
    )*};
}

tables! { CountMin CountSketch }

/// Keys handed to a sketch at a time.
const BLOCK: usize = 256;

/// A keep whose importance is the estimate of a sketch.
#[derive(Clone)]
pub(super) struct Sketched<C> {
    counts: C,
    key: Key,
    /// Shared with the sketch if that has one.
    hash: Option<SimHash>,
    decay: f32,
    interval: usize,
    /// Tokens seen since the sketch was last brought up to date.
    waiting: u64,
}

#[derive(Clone)]
enum Key {
    /// The code of a key less the mean key so far, `[head_dim]`.
    Content { bits: usize, mean: Vec<f32>, seen: u64 },
    /// A hash of the position.
    Position { seed: u64 },
}

impl<C: Counts> Sketched<C> {
    /// Codes are of `bits` bits, at most 64.
    pub(super) fn new(call: &Call, context: &Context<'_>, bits: usize, counts: C) -> Self {
        let (seed, d) = (context.own_seed(), context.layer().key_dim);
        let mut hash = counts.hash().cloned();
        let key = if call.word("key") == "content" {
            let new = || SimHash::new(d, bits, Projection::Hadamard, seed);
            hash.get_or_insert_with(|| new().expect("bits and head_dim are within their bounds"));
            Key::Content { bits, mean: vec![0.0; d], seen: 0 }
        } else {
            Key::Position { seed }
        };
        Sketched {
            counts,
            key,
            hash,
            decay: call.real("decay"),
            interval: call.count("interval"),
            waiting: 0,
        }
    }

    /// The key of a token, from its state and its position.
    fn key(&self, state: &[u32], position: u32) -> u64 {
        match (&self.key, state) {
            (Key::Content { .. }, &[_, low]) => low as u64,
            (Key::Content { .. }, &[_, low, high]) => low as u64 | (high as u64) << 32,
            (Key::Position { seed }, _) => mix(seed ^ position as u64),
            _ => unreachable!("the words of a code follow the weight that waits"),
        }
    }

    /// Counts the weights that wait with some tokens.
    fn count(&mut self, positions: &[u32], state: &mut [u32]) {
        let (mut keys, mut amounts, mut n) = ([0; BLOCK], [0.0; BLOCK], 0);
        for (state, &position) in state.chunks_exact_mut(self.words()).zip(positions) {
            let amount = f32::from_bits(std::mem::take(&mut state[0]));
            if amount > 0.0 && position != EMPTY {
                (keys[n], amounts[n]) = (self.key(state, position), amount);
                n += 1;
            }
            if n == BLOCK {
                self.counts.add(&keys, &amounts);
                n = 0;
            }
        }
        self.counts.add(&keys[..n], &amounts[..n]);
    }
}

/// Adds weights to those that wait in the first of `W` words of each slot.
fn wait<const W: usize>(state: &mut [u32], mass: &[f32], decay: f32) {
    for (state, mass) in state.as_chunks_mut::<W>().0.iter_mut().zip(mass) {
        state[0] = (decay * f32::from_bits(state[0]) + mass).to_bits();
    }
}

impl<C: Counts> Keep for Sketched<C> {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        let mean = match &self.key {
            Key::Content { mean, .. } => mean.capacity() * size_of::<f32>(),
            Key::Position { .. } => 0,
        };
        mean + self.hash.as_ref().map_or(0, SimHash::bytes) + self.counts.bytes()
    }

    /// The weight that waits, and the code.
    fn words(&self) -> usize {
        match self.key {
            Key::Content { bits, .. } => 1 + bits.div_ceil(32),
            Key::Position { .. } => 1,
        }
    }

    fn feedback(&self, _tokens: usize) -> Option<Feedback> {
        Some(Feedback::Sum(self.decay))
    }

    fn batch(&self) -> usize {
        self.interval
    }

    fn observe(&mut self, step: &Step<'_>, state: &mut [u32]) {
        self.waiting += step.tokens as u64;
        let decay = self.decay.powi(step.tokens as i32);
        match self.words() {
            1 => wait::<1>(state, step.mass, decay),
            2 => wait::<2>(state, step.mass, decay),
            _ => wait::<3>(state, step.mass, decay),
        }
    }

    fn arrive(&mut self, token: &Arrival<'_>, state: &mut [u32]) {
        state[0] = token.mass.to_bits();
        if let (Key::Content { mean, seen, .. }, Some(hash)) = (&mut self.key, &self.hash) {
            *seen += 1;
            let share = 1.0 / *seen as f32;
            let mut centred = [0.0; 512];
            let centred = &mut centred[..mean.len()];
            for ((mean, x), key) in mean.iter_mut().zip(&mut *centred).zip(token.key) {
                *mean += (key - *mean) * share;
                *x = key - *mean;
            }
            let mut code = [0];
            hash.encode(centred, &mut code);
            let code = [code[0] as u32, (code[0] >> 32) as u32];
            state[1..].iter_mut().zip(code).for_each(|(word, bits)| *word = bits);
        }
    }

    fn weigh(&mut self, candidates: &mut [Candidates<'_>; 2], out: &mut [f32], _: &mut Buffers) {
        self.counts.decay(self.decay.powi(self.waiting.min(1 << 30) as i32));
        self.waiting = 0;
        for candidates in candidates.iter_mut() {
            self.count(candidates.positions, candidates.state);
        }
        let (old, new) = out.split_at_mut(candidates[0].len());
        self.importance(&candidates[0], old);
        self.importance(&candidates[1], new);
    }

    fn importance(&mut self, candidates: &Candidates<'_>, out: &mut [f32]) {
        let mut keys = [0; BLOCK];
        let words = self.words();
        let states = candidates.state.chunks(BLOCK * words);
        for ((positions, state), out) in
            candidates.positions.chunks(BLOCK).zip(states).zip(out.chunks_mut(BLOCK))
        {
            for ((key, &position), state) in keys.iter_mut().zip(positions).zip(state.chunks_exact(words)) {
                *key = self.key(state, position);
            }
            self.counts.estimate(&keys[..out.len()], out);
        }
    }

    fn save(&self, out: &mut Writer) {
        if let Key::Content { mean, seen, .. } = &self.key {
            out.floats(mean);
            out.u64(*seen);
        }
        out.u64(self.waiting);
        out.blob(&self.counts.save());
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        if let Key::Content { mean, seen, .. } = &mut self.key {
            *mean = from.floats(mean.len())?;
            *seen = from.u64()?;
        }
        self.waiting = from.u64()?;
        let counts = C::load(from.blob()?).map_err(|error| StateError::Corrupt(error.to_string()))?;
        if !counts.is_like(&self.counts) {
            return Err(StateError::Corrupt("a sketch of other parameters".to_owned()));
        }
        self.counts = counts;
        if let Some(hash) = self.counts.hash() {
            self.hash = Some(hash.clone());
        }
        Ok(())
    }
}
