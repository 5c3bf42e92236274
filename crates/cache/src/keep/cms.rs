use super::sketched::{Counts, DECAY, DIFFERS, INTERVAL, KEY, Sketched};
use super::{Context, Keep, RECENT, SINKS};
use crate::method::{Call, Choice, Kind, Method, Parameter};
use sketchkv_sketch::CountMin;

pub(super) static METHOD: Method = Method {
    name: "cms",
    choice: Choice::Keep,
    summary: "heavy hitters counted in a Count-Min sketch, so that tokens alike share what was learned of them",
    formula: "C_r[h_r(x_i)] ← γ·C_r[h_r(x_i)] + w_i in every row r, x_i = sign(P·(k_i − mean k)) or the position; \
              evict argmin_i min_r C_r[h_r(x_i)]",
    state: "4·width·depth B a KV head and, with key=content, 4·d + 12·d B (d rounded up to a power of two); \
            4 B a slot, with key=content 8 B",
    paper: "Cormode & Muthukrishnan, J. Algorithms 55, 2005",
    differs: DIFFERS,
    parameters: &[
        Parameter {
            name: "width",
            kind: Kind::Integer(1, 1 << 20),
            default: "512",
            help: "counters in a row",
        },
        Parameter { name: "depth", kind: Kind::Integer(1, 64), default: "4", help: "rows" },
        KEY,
        Parameter { name: "bits", kind: Kind::Integer(1, 32), default: "12", help: "bits of a code" },
        DECAY,
        INTERVAL,
        SINKS,
        RECENT,
    ],
};

pub(super) fn build(call: &Call, context: &Context<'_>) -> Box<dyn Keep> {
    let counts = CountMin::new(call.count("width"), call.count("depth"), context.own_seed())
        .expect("width and depth are within their bounds");
    Box::new(Sketched::new(call, context, call.count("bits"), counts))
}

impl Counts for CountMin<f32> {
    fn decay(&mut self, factor: f32) {
        CountMin::decay(self, factor);
    }

    fn add(&mut self, keys: &[u64], amounts: &[f32]) {
        self.update_hash_batch_weighted(keys, amounts);
    }

    fn estimate(&self, keys: &[u64], out: &mut [f32]) {
        self.query_hash_batch(keys, out);
    }

    fn bytes(&self) -> usize {
        CountMin::bytes(self)
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
