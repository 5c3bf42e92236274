use super::{Arrival, Context, Keep, RECENT, SINKS, Step};
use crate::context::{Candidates, GroupQueries};
use crate::method::{Call, Choice, Kind, Method, Parameter};
use crate::state::{Reader, StateError, Writer};
use sketchkv_sketch::{Projection, SimHash};

pub(super) static METHOD: Method = Method {
    name: "hashevict",
    choice: Choice::Keep,
    summary: "the tokens whose key codes are near the query's, without computing attention",
    formula: "code(x) = sign(P·x), P random, bits × d; evict argmax_i Σ_q hamming(code(k_i), code(q)), q the newest \
              queries of the group",
    state: "bits/8 B a slot (whole 4 B); bits/8 B a query head and 12·d B of signs (d rounded up to a power of two) \
            a KV head",
    paper: "HashEvict, arXiv 2412.16187",
    differs: "P is three rounds of random signs and a Hadamard transform in place of a Gaussian matrix: a twentieth \
              of the bytes, the same law of a bit. The query heads of a group vote by their summed distance. \
              In a chunk of several tokens only the last one's query counts.",
    parameters: &[
        Parameter {
            name: "bits",
            kind: Kind::Integer(1, MAX_BITS as i64),
            default: "16",
            help: "bits of a code",
        },
        SINKS,
        RECENT,
    ],
};

/// The most bits of a code.
const MAX_BITS: usize = 256;

pub(super) fn build(call: &Call, context: &Context<'_>) -> Box<dyn Keep> {
    let bits = call.count("bits");
    let hash = SimHash::new(context.layer().key_dim, bits, Projection::Hadamard, context.own_seed())
        .expect("bits and head_dim are within their bounds");
    let words = hash.words();
    Box::new(HashEvict { queries: vec![0; context.layer().group() * words], hash })
}

#[derive(Clone)]
struct HashEvict {
    hash: SimHash,
    /// Codes of the newest queries, `[query][words]`.
    queries: Vec<u64>,
}

impl Keep for HashEvict {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        self.hash.bytes() + self.queries.capacity() * size_of::<u64>()
    }

    /// The code of the key.
    fn words(&self) -> usize {
        self.hash.bits().div_ceil(32)
    }

    /// The queries of the newest token.
    fn digest(&self, queries: &GroupQueries<'_>, out: &mut Vec<f32>) {
        out.extend_from_slice(queries.token(queries.tokens() - 1));
    }

    fn observe(&mut self, step: &Step<'_>, _: &mut [u32]) {
        self.hash.encode_many(step.digest, &mut self.queries);
    }

    fn arrive(&mut self, token: &Arrival<'_>, state: &mut [u32]) {
        let mut code = [0u64; 4];
        let code = &mut code[..self.hash.words()];
        self.hash.encode(token.key, code);
        for (i, word) in state.iter_mut().enumerate() {
            *word = (code[i / 2] >> (i % 2 * 32)) as u32;
        }
    }

    fn importance(&mut self, candidates: &Candidates<'_>, out: &mut [f32]) {
        // The distance to all queries of the group together, by the bytes of a code.
        let codes = candidates.state.chunks_exact(self.words());
        let bytes = self.hash.bits().div_ceil(8);
        if bytes == 2 {
            let (low, high) = (self.distances(0), self.distances(1));
            for (out, code) in out.iter_mut().zip(codes) {
                *out = -(low[code[0] as usize & 255] + high[code[0] as usize >> 8 & 255]);
            }
            return;
        }
        let mut tables = [[0.0; 256]; MAX_BITS / 8];
        let tables = &mut tables[..bytes];
        tables.iter_mut().enumerate().for_each(|(byte, table)| *table = self.distances(byte));
        for (out, code) in out.iter_mut().zip(codes) {
            let bytes = code.iter().flat_map(|word| word.to_le_bytes());
            *out = -tables.iter().zip(bytes).map(|(table, byte)| table[byte as usize]).sum::<f32>();
        }
    }

    fn save(&self, out: &mut Writer) {
        self.queries.iter().for_each(|&code| out.u64(code));
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        for code in &mut self.queries {
            *code = from.u64()?;
        }
        Ok(())
    }
}

impl HashEvict {
    /// Σ_q hamming(x, byte `byte` of the code of q), for every x.
    fn distances(&self, byte: usize) -> [f32; 256] {
        let words = self.hash.words();
        let (word, shift) = (byte / 8, byte % 8 * 8);
        let group = (self.queries.len() / words) as i32;
        // How much each bit, set, adds to the distance; and the distance of no bit set.
        let (mut step, mut none) = ([0; 8], 0);
        for code in self.queries.iter().skip(word).step_by(words) {
            for (bit, step) in step.iter_mut().enumerate() {
                *step += (code >> (shift + bit) & 1) as i32;
            }
        }
        for step in &mut step {
            none += *step;
            *step = group - 2 * *step;
        }
        let mut sums = [none; 256];
        for x in 1..256usize {
            sums[x] = sums[x & (x - 1)] + step[x.trailing_zeros() as usize];
        }
        sums.map(|sum| sum as f32)
    }
}
