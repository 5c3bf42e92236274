use super::sketched::{Counts, DECAY, DIFFERS, INTERVAL, KEY, Sketched};
use super::{Context, Keep, RECENT, SINKS};
use crate::method::{Call, Choice, Kind, Method, Parameter};
use sketchkv_sketch::CountSketch;

pub(super) static METHOD: Method = Method {
    name: "countsketch",
    choice: Choice::Keep,
    summary: "heavy hitters counted in a Count-Sketch, whose errors go either way, so that tokens alike share what was learned of them",
    formula: "C_r[h_r(x_i)] ← γ·C_r[h_r(x_i)] + s_r(x_i)·w_i in every row r, s_r = ±1, x_i as in cms; \
              evict argmin_i median_r s_r(x_i)·C_r[h_r(x_i)]",
    state: "4·width·depth B a KV head and, with key=content, 4·d + 12·d B (d rounded up to a power of two); \
            4 B a slot, with key=content 8 B",
    paper: "Charikar, Chen & Farach-Colton, Finding frequent items in data streams, 2002",
    differs: DIFFERS,
    parameters: &[
        Parameter {
            name: "width",
            kind: Kind::Integer(1, 1 << 20),
            default: "512",
            help: "counters in a row",
        },
        Parameter { name: "depth", kind: Kind::Integer(1, 64), default: "3", help: "rows" },
        KEY,
        Parameter { name: "bits", kind: Kind::Integer(1, 32), default: "12", help: "bits of a code" },
        DECAY,
        INTERVAL,
        SINKS,
        RECENT,
    ],
};

pub(super) fn build(call: &Call, context: &Context<'_>) -> Box<dyn Keep> {
    let counts = CountSketch::new(call.count("width"), call.count("depth"), context.own_seed())
        .expect("width and depth are within their bounds");
    Box::new(Sketched::new(call, context, call.count("bits"), counts))
}

impl Counts for CountSketch<f32> {
    fn decay(&mut self, factor: f32) {
        CountSketch::decay(self, factor);
    }

    fn add(&mut self, keys: &[u64], amounts: &[f32]) {
        keys.iter().zip(amounts).for_each(|(&key, &amount)| self.update_hash(key, amount));
    }

    fn estimate(&self, keys: &[u64], out: &mut [f32]) {
        keys.iter().zip(out).for_each(|(&key, out)| *out = self.query_hash(key));
    }

    fn bytes(&self) -> usize {
        CountSketch::bytes(self)
    }

    fn save(&self) -> Vec<u8> {
        self.to_bytes()
    }

    fn load(&self, bytes: &[u8]) -> Result<Self, String> {
        let read = Self::from_bytes(bytes).map_err(|e| e.to_string())?;
        let alike = |sketch: &Self| (sketch.width(), sketch.depth(), sketch.seed());
        if alike(&read) == alike(self) { Ok(read) } else { Err("a sketch of other parameters".to_owned()) }
    }
}
