use super::sketched::{Counts, DECAY, DIFFERS, INTERVAL, KEY, Sketched};
use super::{Context, Keep, RECENT, SINKS};
use crate::method::{Call, Choice, Kind, Method, Parameter};
use sketchkv_sketch::{Projection, Race, SimHash, SketchError};

pub(super) static METHOD: Method = Method {
    name: "race",
    choice: Choice::Keep,
    summary: "the tokens in whose neighbourhood attention has gathered, as locality-sensitive buckets tell",
    formula: "C_r[b_r(k_i)] ← γ·C_r[b_r(k_i)] + w_i in every row r, b_r = `bits` signs of P·(k_i − mean k); \
              evict argmin_i mean_r C_r[b_r(k_i)]",
    state: "4·rows·2^bits + 12·d B (d rounded up to a power of two) a KV head and, with key=content, 4·d B more, \
            rows·bits/8 B (whole 4 B) a slot; 4 B a slot",
    paper: "RACE, arXiv 1912.02283",
    differs: DIFFERS,
    parameters: &[
        Parameter { name: "rows", kind: Kind::Integer(1, 8), default: "8", help: "rows of buckets" },
        Parameter { name: "bits", kind: Kind::Integer(1, 8), default: "6", help: "signs that make a bucket" },
        KEY,
        DECAY,
        INTERVAL,
        SINKS,
        RECENT,
    ],
};

pub(super) fn build(call: &Call, context: &Context<'_>) -> Box<dyn Keep> {
    let (rows, bits, d) = (call.count("rows"), call.count("bits"), context.layer().key_dim);
    let sketch = SimHash::new(d, rows * bits, Projection::Hadamard, context.own_seed())
        .and_then(|hash| Race::with_hash(rows, bits, hash))
        .expect("rows, bits and head_dim are within their bounds");
    Box::new(Sketched::new(call, context, rows * bits, sketch))
}

/// Row r takes bits `r · bits ..` of a key as its bucket.
fn buckets<'a>(race: &Race, key: u64, out: &'a mut [u32; 8]) -> &'a [u32] {
    let (bits, out) = (race.bits(), &mut out[..race.rows()]);
    for (row, bucket) in out.iter_mut().enumerate() {
        *bucket = (key >> (row * bits)) as u32 & ((1 << bits) - 1);
    }
    out
}

impl Counts for Race {
    fn decay(&mut self, factor: f32) {
        Race::decay(self, factor);
    }

    fn add(&mut self, keys: &[u64], amounts: &[f32]) {
        let mut all = [0; 8];
        for (&key, &amount) in keys.iter().zip(amounts) {
            let buckets = buckets(self, key, &mut all);
            self.add_buckets(buckets, amount);
        }
    }

    fn estimate(&self, keys: &[u64], out: &mut [f32]) {
        let mut all = [0; 8];
        for (&key, out) in keys.iter().zip(out) {
            *out = self.query_buckets(buckets(self, key, &mut all));
        }
    }

    fn bytes(&self) -> usize {
        self.table_bytes()
    }

    fn hash(&self) -> Option<&SimHash> {
        Some(Race::hash(self))
    }

    fn save(&self) -> Vec<u8> {
        self.to_bytes()
    }

    fn load(bytes: &[u8]) -> Result<Self, SketchError> {
        Self::from_bytes(bytes)
    }

    fn is_like(&self, other: &Self) -> bool {
        let parameters = |race: &Race| (race.rows(), race.bits());
        parameters(self) == parameters(other) && Race::hash(self) == Race::hash(other)
    }
}
