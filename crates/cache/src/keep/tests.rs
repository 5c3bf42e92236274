use super::{Arrival, KEEPS, Keep, Step};
use crate::context::{Buffers, Candidates, Context, EMPTY, GroupQueries, NewTokens};
use crate::format::{Env, Format};
use crate::head::Head;
use crate::judgement::{Departures, Judgement};
use crate::slots::Slots;
use crate::{CacheShape, LayerShape, Reader, Rotation, Spec, Writer};
use sketchkv_kernels::cpu;
use sketchkv_sketch::SplitMix64;
use std::sync::{Arc, Mutex};

fn shape(head_dim: usize) -> CacheShape {
    let rotation = Some(Rotation { inverse_frequencies: [1.0, 0.3, 0.05, 0.001].into() });
    CacheShape::uniform(2, LayerShape { rotation, ..LayerShape::new(6, 2, head_dim) }, 1024)
}

fn numbers(n: usize, random: &mut SplitMix64) -> Vec<f32> {
    (0..n).map(|_| (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// A keep and the state of the slots it judges, all of them kept.
struct Judge {
    keep: Box<dyn Keep>,
    state: Vec<u32>,
    positions: Vec<u32>,
}

impl Judge {
    /// Shows it a token, as a step of one.
    fn see(&mut self, random: &mut SplitMix64, d: usize) {
        let position = self.positions.len();
        let (q, k, v) = (numbers(3 * d, random), numbers(d, random), numbers(d, random));
        let mass: Vec<f32> = numbers(position, random).iter().map(|x| x.abs() / position as f32).collect();
        let mut digest = vec![];
        self.keep.digest(&GroupQueries::new(&q, 1, 0, 3 * d, position), &mut digest);
        let step = Step { mass: &mass, positions: &self.positions, digest: &digest, tokens: 1, position };
        self.keep.observe(&step, &mut self.state);
        let mut state = vec![0; self.keep.words()];
        self.keep.arrive(&Arrival { key: &k, value: &v, position, mass: 0.1 }, &mut state);
        self.state.extend(state);
        self.positions.push(position as u32);
    }

    /// Importance of rows of keys that stand for all slots but the last, and the last.
    fn importance(&mut self, keys: &[f32], d: usize) -> Vec<u32> {
        let (n, words) = (self.positions.len(), self.keep.words());
        let level = cpu::level();
        let (old_positions, new_positions) = self.positions.split_at(n - 1);
        let (old_state, new_state) = self.state.split_at_mut((n - 1) * words);
        let (old, new) = keys[..n * d].split_at((n - 1) * d);
        let mut candidates = [
            Candidates::new_tokens(
                NewTokens::new(old, old, (1, 0), n - 1, 0),
                old_positions,
                old_state,
                &old[..n - 1],
                level,
            ),
            Candidates::new_tokens(
                NewTokens::new(new, new, (1, 0), 1, n - 1),
                new_positions,
                new_state,
                &new[..1],
                level,
            ),
        ];
        let mut out = vec![0.0; n];
        self.keep.weigh(&mut candidates, &mut out, &mut Buffers::default());
        out.iter().map(|x| x.to_bits()).collect()
    }
}

#[test]
fn what_is_saved_and_loaded_goes_on_bit_for_bit() {
    let (shape, d) = (shape(32), 32);
    let mut specs: Vec<String> = KEEPS.iter().map(|(method, _)| method.name.to_owned()).collect();
    specs.retain(|name| name != "full");
    specs.extend(
        ["expected(cov=full)", "expected(cov=none)", "cms(key=position)", "race(key=position)"]
            .map(String::from),
    );
    for text in specs {
        let spec: Spec = text.parse().unwrap();
        let new = || spec.keep.build(&Context::new(&shape, 1, 0, 9));
        let mut random = SplitMix64::new(3);
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
            assert_eq!(first.importance(&keys, d), second.importance(&keys, d), "{text}");
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
    for name in ["cms", "countsketch", "race"] {
        for (key, carries) in [("content", true), ("position", false)] {
            let spec: Spec = format!("{name}(key={key})").parse().unwrap();
            let keep = spec.keep.build(&Context::new(&shape, 0, 1, 2));
            let mut judge = Judge { keep, state: vec![], positions: vec![] };
            let mut random = SplitMix64::new(1);
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
            let importance = judge.importance(&numbers(202 * d, &mut random), d);
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

    fn weigh(&mut self, candidates: &mut [Candidates<'_>; 2], _: &mut [f32], buffers: &mut Buffers) {
        candidates.iter().for_each(|candidates| self.compare(candidates, buffers));
    }
}

impl Probe {
    fn compare(&self, candidates: &Candidates<'_>, buffers: &mut Buffers) {
        let (n, d) = (candidates.len(), self.head_dim);
        let mut keys = vec![0.0; n * d];
        keys.chunks_exact_mut(d).enumerate().for_each(|(i, key)| candidates.key(i, key));
        let live: Vec<usize> = (0..n).filter(|&i| candidates.positions[i] != EMPTY).collect();
        let mut tiled = vec![f32::NAN; n * d];
        candidates.for_each_tile(buffers, |first, tile| {
            for i in first..n.min(first + tile.len() / d) {
                let strip = &tile[(i - first) / 16 * d * 16..];
                (0..d).for_each(|x| tiled[i * d + x] = strip[x * 16 + (i - first) % 16]);
            }
        });
        let queries = numbers(5 * d, &mut SplitMix64::new(8));
        let mut products = vec![f32::NAN; 5 * n];
        candidates.dot(&queries, &mut products, buffers);
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
        for store in ["f32", "f16", "q8", "q4h", "tq3", "kivi4", "graded"] {
            let spec: Spec = store.parse().unwrap();
            let format =
                Format::new(spec.keys.build(d), spec.values.build(d), &LayerShape::new(1, 1, d), false);
            let env = Env { format: &format, level: cpu::level() };
            let seen = Arc::new(Mutex::new(0));
            let rounding = if store == "tq3" { 0.02 } else { 1e-5 };
            let probe = Probe { head_dim: d, rounding, seen: seen.clone() };
            let mut head = Head::new(Slots::new(0, None, &format), Box::new(probe), None, 0, Some(1));
            let (mut random, mut buffers) = (SplitMix64::new(5), Buffers::default());
            let (mut judgement, departures) = (Judgement::default(), Departures::default());
            for (position, tokens) in [(0, 90), (90, 37)] {
                let (k, v) = (numbers(tokens * d, &mut random), numbers(tokens * d, &mut random));
                let news = NewTokens::new(&k, &v, (1, 0), tokens, position);
                head.arrive(&news, &[], &mut judgement);
                head.weigh(env, &news, (&[], &[]), &mut judgement, &mut buffers);
                head.store(env, &news, &judgement, &departures, &mut buffers, usize::MAX);
            }
            assert_eq!(*seen.lock().unwrap(), 90 + 90 + 37);
        }
    }
}
