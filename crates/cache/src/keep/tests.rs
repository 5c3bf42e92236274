use super::{Arrival, Context, KEEPS, Keep, Step};
use crate::candidates::Candidates;
use crate::head::{Chunk, EMPTY, Env, GroupQueries, Head, Work};
use crate::random::Random;
use crate::{CacheShape, Reader, Rope, Spec, Writer, format::Format};
use sketchkv_kernels::cpu;
use std::sync::{Arc, Mutex};

fn shape(head_dim: usize) -> CacheShape {
    let rope = Some(Rope { inverse_frequencies: vec![1.0, 0.3, 0.05, 0.001] });
    CacheShape { layers: 2, heads: 6, kv_heads: 2, head_dim, context: 1024, rope, output: None }
}

fn numbers(n: usize, random: &mut Random) -> Vec<f32> {
    (0..n).map(|_| (random.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// A keep and the state of the slots it judges, all of them kept.
struct Judge {
    keep: Box<dyn Keep>,
    state: Vec<u32>,
    positions: Vec<u32>,
}

impl Judge {
    /// Shows it a token, as a step of one.
    fn see(&mut self, random: &mut Random, d: usize) {
        let position = self.positions.len();
        let (q, k, v) = (numbers(3 * d, random), numbers(d, random), numbers(d, random));
        let mass: Vec<f32> = numbers(position, random).iter().map(|x| x.abs() / position as f32).collect();
        let queries = GroupQueries { q: &q, stride: 3 * d, offset: 0, len: 3 * d };
        let step = Step { mass: &mass, positions: &self.positions, queries, tokens: 1, position };
        self.keep.observe(&step, &mut self.state);
        let mut state = vec![0; self.keep.words()];
        self.keep.arrive(&Arrival { key: &k, value: &v, position, mass: 0.1 }, &mut state);
        self.state.extend(state);
        self.positions.push(position as u32);
    }

    /// Importance of rows of keys that stand for all slots but the last, and the last.
    fn importance(&mut self, keys: &[f32], format: &Format, d: usize) -> Vec<u32> {
        let (n, words) = (self.positions.len(), self.keep.words());
        let env = Env { format, level: cpu::level() };
        let (old_positions, new_positions) = self.positions.split_at(n - 1);
        let (old_state, new_state) = self.state.split_at_mut((n - 1) * words);
        let (old, new) = keys[..n * d].split_at((n - 1) * d);
        let mut candidates = [
            Candidates::rows(Chunk::new(old, old, 1, 0, d, 0), old_positions, old_state, &old[..n - 1], env),
            Candidates::rows(Chunk::new(new, new, 1, 0, d, n - 1), new_positions, new_state, &new[..1], env),
        ];
        let mut out = vec![0.0; n];
        self.keep.weigh(&mut candidates, &mut out);
        out.iter().map(|x| x.to_bits()).collect()
    }
}

#[test]
fn what_is_saved_and_loaded_goes_on_bit_for_bit() {
    let (shape, d) = (shape(32), 32);
    let format = Format::new(&Spec::default(), d);
    let mut specs: Vec<String> = KEEPS.iter().map(|(method, _)| method.name.to_owned()).collect();
    specs.retain(|name| name != "full");
    specs.extend(
        ["expected(cov=full)", "expected(cov=none)", "cms(key=position)", "race(key=position)"]
            .map(String::from),
    );
    for text in specs {
        let spec: Spec = text.parse().unwrap();
        let build = KEEPS.iter().find(|(method, _)| *method == spec.keep.method()).unwrap().1;
        let new = || build(&spec.keep, &Context { shape: &shape, layer: 1, head: 0, seed: 9 });
        let mut random = Random::new(3);
        let mut first = Judge { keep: new(), state: vec![], positions: vec![] };
        for _ in 0..70 {
            first.see(&mut random, d);
        }
        let mut saved = Writer::default();
        first.keep.save(&mut saved);
        let saved = saved.finish();
        let mut second =
            Judge { keep: new(), state: first.state.clone(), positions: first.positions.clone() };
        let mut reader = Reader::new(&saved);
        second.keep.load(&mut reader).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(reader.is_empty(), "{text} leaves bytes unread");
        assert_eq!(first.keep.bytes(), second.keep.bytes(), "{text}");
        let keys = numbers(200 * d, &mut random);
        let mut same = random.clone();
        for _ in 0..20 {
            assert_eq!(first.importance(&keys, &format, d), second.importance(&keys, &format, d), "{text}");
            first.see(&mut random, d);
            second.see(&mut same, d);
        }
        // What is cut short is refused, and what is damaged does no harm.
        if !saved.is_empty() {
            assert!(new().load(&mut Reader::new(&saved[..saved.len() - 1])).is_err(), "{text}");
        }
        for at in (0..saved.len()).step_by(7) {
            let mut damaged = saved.clone();
            damaged[at] ^= 0x55;
            let _ = new().load(&mut Reader::new(&damaged));
        }
    }
}

/// What the sketches learn of content carries over to a token of like content that has drawn no attention yet.
#[test]
fn content_is_worth_something_on_arrival() {
    let (shape, d) = (shape(32), 32);
    let format = Format::new(&Spec::default(), d);
    for name in ["cms", "countsketch", "race"] {
        for (key, carries) in [("content", true), ("position", false)] {
            let spec: Spec = format!("{name}(key={key})").parse().unwrap();
            let build = KEEPS.iter().find(|(method, _)| *method == spec.keep.method()).unwrap().1;
            let keep = build(&spec.keep, &Context { shape: &shape, layer: 0, head: 1, seed: 2 });
            let mut judge = Judge { keep, state: vec![], positions: vec![] };
            let mut random = Random::new(1);
            let (loved, unloved) = (numbers(d, &mut random), numbers(d, &mut random));
            for position in 0..202 {
                let (key, mass) = if position % 2 == 0 { (&loved, 0.5) } else { (&unloved, 0.001) };
                // The last two have drawn nothing.
                let mass = if position < 200 { mass } else { 0.0 };
                let mut state = vec![0; judge.keep.words()];
                judge.keep.arrive(&Arrival { key, value: key, position, mass }, &mut state);
                judge.state.extend(state);
                judge.positions.push(position as u32);
            }
            let importance = judge.importance(&numbers(202 * d, &mut random), &format, d);
            let [loved, unloved] = [200, 201].map(|i| f32::from_bits(importance[i]));
            assert_eq!(loved > 10.0 * unloved.abs() + 0.5, carries, "{name}, {key}: {loved} and {unloved}");
        }
    }
}

/// Compares what it sees of the keys.
#[derive(Clone)]
struct Probe {
    head_dim: usize,
    /// Of a component of a decoded key: kernels round the levels of a table to 8 bits.
    rounding: f32,
    seen: Arc<Mutex<usize>>,
}

impl Keep for Probe {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(self.clone())
    }

    fn importance(&mut self, candidates: &Candidates<'_>, _: &mut [f32]) {
        let (n, d) = (candidates.len(), self.head_dim);
        let mut keys = vec![0.0; n * d];
        keys.chunks_exact_mut(d).enumerate().for_each(|(i, key)| candidates.key(i, key));
        let live: Vec<usize> = (0..n).filter(|&i| candidates.positions[i] != EMPTY).collect();
        let mut tiled = vec![f32::NAN; n * d];
        candidates.for_each_tile(|first, tile| {
            for i in first..n.min(first + tile.len() / d) {
                let strip = &tile[(i - first) / 16 * d * 16..];
                (0..d).for_each(|x| tiled[i * d + x] = strip[x * 16 + (i - first) % 16]);
            }
        });
        let queries = numbers(5 * d, &mut Random::new(8));
        let mut products = vec![f32::NAN; 5 * n];
        candidates.dot(&queries, &mut products);
        for &i in &live {
            let key = &keys[i * d..][..d];
            for (a, b) in key.iter().zip(&tiled[i * d..]) {
                assert!((a - b).abs() < self.rounding, "candidate {i}: {a} and {b}");
            }
            let length = super::norm(key);
            for (query, products) in queries.chunks_exact(d).zip(products.chunks_exact(n)) {
                let want: f32 = key.iter().zip(query).map(|(a, b)| a * b).sum();
                let rounding = 0.01 * length * super::norm(query);
                assert!((want - products[i]).abs() < rounding, "candidate {i}: {want} and {}", products[i]);
            }
        }
        *self.seen.lock().unwrap() += live.len();
    }
}

#[test]
fn keys_are_the_same_by_tile_by_product_and_one_by_one() {
    for d in [64, 40] {
        for store in ["f32", "f16", "q8", "q4h", "tq3", "kivi4"] {
            let format = Format::new(&store.parse().unwrap(), d);
            let env = Env { format: &format, level: cpu::level() };
            let seen = Arc::new(Mutex::new(0));
            let rounding = if store == "tq3" { 0.02 } else { 1e-5 };
            let probe = Probe { head_dim: d, rounding, seen: seen.clone() };
            let mut head = Head::new(Box::new(probe), None, None, 0, Some(1));
            let (mut random, mut work) = (Random::new(5), Work::default());
            for (position, tokens) in [(0, 90), (90, 37)] {
                let (k, v) = (numbers(tokens * d, &mut random), numbers(tokens * d, &mut random));
                let chunk = Chunk::new(&k, &v, 1, 0, d, position);
                head.arrive(&chunk, &mut work);
                head.weigh(env, &chunk, &mut work);
                head.store(env, &chunk, &mut work, usize::MAX);
            }
            assert_eq!(*seen.lock().unwrap(), 90 + 90 + 37);
        }
    }
}
