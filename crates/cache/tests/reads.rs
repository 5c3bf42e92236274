//! Every read against its formula, written out plainly in f64.

mod common;

use common::{Random, Stream, cache, largest_difference, shape};
use half::f16;
use sketchkv_cache::Context;
use sketchkv_cache::read::{Estimate, Read, View, Written, choose, parts};
use sketchkv_cache::{Buffers, CacheShape, Reader, Spec, Writer};
use sketchkv_kernels::ThreadPool;
use sketchkv_sketch::{Projection, SimHash};

const STRIP: usize = 16;
const SEED: u64 = 1;

fn build(shape: &CacheShape, read: &str) -> Box<dyn Read> {
    let spec: Spec = format!("full+{read}").parse().unwrap();
    spec.read.build(&Context::new(shape, 0, 0, SEED)).unwrap()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| x as f64).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|l| (l - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

/// What the slots of a head hold.
#[derive(Default)]
struct Slots {
    positions: Vec<u32>,
    live: Vec<u64>,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    /// All keys ever written to each slot, with the order of writing.
    written: Vec<(usize, Vec<f32>)>,
}

impl Slots {
    fn write(&mut self, read: &mut dyn Read, slot: usize, position: usize, key: &[f32], value: &[f32]) {
        while self.positions.len() <= slot {
            let slots = self.positions.len() + STRIP;
            self.positions.resize(slots, u32::MAX);
            self.live.resize(slots.div_ceil(64), 0);
            self.keys.resize(slots, vec![]);
            self.values.resize(slots, vec![]);
            read.resize(slots);
        }
        self.free(slot);
        read.write(&Written { slot, key, value, others: self.live[slot / 64] }, &mut Buffers::default());
        self.live[slot / 64] |= 1 << (slot % 64);
        self.positions[slot] = position as u32;
        self.keys[slot] = key.to_vec();
        self.values[slot] = value.to_vec();
        self.written.push((slot, key.to_vec()));
    }

    fn free(&mut self, slot: usize) {
        self.live[slot / 64] &= !(1 << (slot % 64));
        self.positions[slot] = u32::MAX;
    }

    fn holds(&self, slot: usize) -> bool {
        self.positions[slot] != u32::MAX
    }

    fn select(&self, read: &dyn Read, queries: &[f32], position: usize) -> Vec<u32> {
        let view = View { positions: &self.positions, live: &self.live, position };
        let mut estimates: Vec<Estimate> = (0..4).map(|_| Estimate::default()).collect();
        let [whole, cut] = [1, 3].map(|most| {
            let mut chosen = vec![];
            let mut count = 0;
            for strips in parts(read.slots_read(), self.positions.len() / STRIP, most) {
                estimates[count].set(read, queries, &view, strips);
                count += 1;
            }
            assert!(count <= most);
            choose(read.slots_read(), estimates[..count].iter(), &view, &mut chosen, &mut Buffers::default());
            chosen
        });
        let differ = whole.iter().filter(|strip| !cut.contains(strip)).count();
        assert!(differ <= 1, "{whole:?} in one part, {cut:?} in several");
        let chosen = whole;
        assert!(chosen.is_sorted_by(|a, b| a < b), "ascending, each once");
        chosen
    }

    /// Logits that the sign codes of `bits` bits promise, −∞ where there is no token.
    fn code_logits(&self, bits: usize, query: &[f32]) -> Vec<f64> {
        let d = query.len();
        let hash = SimHash::new(d, bits, Projection::Hadamard, SEED).unwrap();
        let project = |x: &[f32]| {
            let mut out = vec![0.0; bits];
            hash.project(x, &mut out);
            wide(&out)
        };
        let mut logits = vec![f64::NEG_INFINITY; self.positions.len()];
        let mut mean = vec![0.0; d];
        let q = project(query);
        for (n, (slot, key)) in self.written.iter().enumerate() {
            let centred: Vec<f32> = key.iter().zip(&mean).map(|(k, m)| (*k as f64 - m) as f32).collect();
            let p = project(&centred);
            let factor = f16::from_f64(p.iter().map(|p| p.abs()).sum::<f64>() / bits as f64).to_f64();
            let sum: f64 = q.iter().zip(&p).map(|(q, p)| if *p >= 0.0 { *q } else { -*q }).sum();
            logits[*slot] = sum * factor / bits as f64;
            if n < 64 {
                mean.iter_mut().zip(&centred).for_each(|(m, x)| *m += *x as f64 / (n + 1) as f64);
            }
        }
        (0..logits.len()).filter(|&slot| !self.holds(slot)).for_each(|slot| logits[slot] = f64::NEG_INFINITY);
        logits
    }

    /// Attention that the bounds of pages promise each strip.
    fn quest_masses(&self, page: usize, queries: &[f32], d: usize) -> Vec<f64> {
        let mut masses = vec![0.0; self.positions.len() / STRIP];
        for q in queries.chunks_exact(d) {
            let bounds: Vec<f64> = (0..self.positions.len().div_ceil(page))
                .map(|page_index| {
                    let slots = page_index * page..((page_index + 1) * page).min(self.positions.len());
                    let keys: Vec<_> =
                        slots.filter(|&slot| self.holds(slot)).map(|slot| &self.keys[slot]).collect();
                    if keys.is_empty() {
                        return f64::NEG_INFINITY;
                    }
                    let side = |j: usize, f: fn(f32, f32) -> f32| {
                        let bound = keys.iter().map(|k| k[j]).reduce(f).unwrap();
                        f16::from_f32(bound).to_f64()
                    };
                    (0..d)
                        .map(|j| {
                            let q = q[j] as f64;
                            (q * side(j, f32::min)).max(q * side(j, f32::max))
                        })
                        .sum()
                })
                .collect();
            for (strip, mass) in masses.iter_mut().enumerate() {
                *mass += softmax(&bounds)[strip * STRIP / page];
            }
        }
        masses
    }

    fn forced(&self, strip: usize, position: usize) -> bool {
        let positions = &self.positions[strip * STRIP..][..STRIP];
        positions.iter().any(|&p| p != u32::MAX && (p < 4 || p as usize + 32 >= position))
    }

    /// Checks that strips were chosen by these masses, but for differences below `slack`.
    fn check(&self, chosen: &[u32], masses: &[f64], k: usize, position: usize, slack: f64) {
        let strips = masses.len();
        let empty = |strip: usize| (0..STRIP).all(|lane| !self.holds(strip * STRIP + lane));
        let mut free: Vec<usize> = (0..strips).filter(|&s| !self.forced(s, position) && !empty(s)).collect();
        free.sort_by(|&a, &b| masses[b].total_cmp(&masses[a]));
        let (best, others) = free.split_at((k / STRIP).min(free.len()));
        let chose = |strip: &usize| chosen.contains(&(*strip as u32));
        for strip in 0..strips {
            assert!(!self.forced(strip, position) || chose(&strip), "strip {strip} is first or newest");
            assert!(!empty(strip) || !chose(&strip), "strip {strip} is empty");
        }
        assert_eq!(free.iter().filter(|s| chose(s)).count(), best.len(), "strips read");
        let last = best.last().map_or(0.0, |&s| masses[s]);
        for strip in best.iter().filter(|s| !chose(s)) {
            assert!(masses[*strip] <= last * (1.0 + slack), "{} left out, {last} enough", masses[*strip]);
        }
        for strip in others.iter().filter(|s| chose(s)) {
            assert!(masses[*strip] >= last * (1.0 - slack), "{} chosen, {last} needed", masses[*strip]);
        }
    }
}

/// Keys in clusters that come in spells, as the topics of a text do, and queries near some of the clusters.
struct Clusters {
    random: Random,
    centres: Vec<Vec<f32>>,
}

impl Clusters {
    fn new(count: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let centres = (0..count).map(|_| (0..64).map(|_| random.normal()).collect()).collect();
        Clusters { random, centres }
    }

    fn near(&mut self, centre: usize, scale: f32, noise: f32) -> Vec<f32> {
        let random = &mut self.random;
        self.centres[centre].iter().map(|x| scale * x + noise * random.normal()).collect()
    }

    fn pick(&mut self) -> usize {
        (self.random.uniform() * self.centres.len() as f32) as usize
    }

    /// `slots` slots with tokens, some of which replaced others, and some empty.
    fn slots(&mut self, read: &mut dyn Read, slots: usize) -> Slots {
        let mut all = Slots::default();
        let mut cluster = 0;
        for position in 0..slots {
            if position % 8 == 0 {
                cluster = self.pick();
            }
            let key = self.near(cluster, 1.0, 0.5);
            all.write(read, position, position, &key, &key);
        }
        for position in slots..slots + slots / 4 {
            let slot = 8 + (self.random.uniform() * (slots - 8) as f32) as usize;
            let cluster = self.pick();
            let key = self.near(cluster, 1.0, 0.5);
            all.write(read, slot, position, &key, &key);
        }
        for _ in 0..slots / 8 {
            all.free(16 + (self.random.uniform() * (slots - 16) as f32) as usize);
        }
        // A whole strip and a whole page, the page in use again.
        (32..48).chain(128..192).for_each(|slot| all.free(slot));
        for slot in 130..150 {
            let key = self.near(1, 1.0, 0.5);
            all.write(read, slot, 2 * slots, &key, &key);
        }
        all
    }

    fn queries(&mut self, group: usize) -> Vec<f32> {
        let cluster = self.pick();
        (0..group).flat_map(|_| self.near(cluster, 0.15, 0.05)).collect()
    }
}

#[test]
fn topk_chooses_by_its_formula() {
    let shape = shape();
    for (call, k, bits) in
        [("topk(k=64)", 64, 64), ("topk(k=160,bits=121)", 160, 128), ("topk(k=16,bits=24)", 16, 24)]
    {
        let mut clusters = Clusters::new(24, 3);
        let mut read = build(&shape, call);
        let slots = clusters.slots(&mut *read, 1000);
        for _ in 0..20 {
            let queries = clusters.queries(3);
            let mut masses = vec![0.0; slots.positions.len() / STRIP];
            for q in queries.chunks_exact(64) {
                for (slot, p) in softmax(&slots.code_logits(bits, q)).into_iter().enumerate() {
                    masses[slot / STRIP] += p;
                }
            }
            let chosen = slots.select(&*read, &queries, 2000);
            // Tables of 7 bits move logits by some hundredths.
            slots.check(&chosen, &masses, k, 2000, 0.1);
        }
    }
}

#[test]
fn quest_chooses_by_its_formula() {
    let shape = shape();
    for (call, k, page) in
        [("quest(k=64)", 64, 32), ("quest(k=160,page=16)", 160, 16), ("quest(k=128,page=64)", 128, 64)]
    {
        let mut clusters = Clusters::new(24, 4);
        let mut read = build(&shape, call);
        // Without reuse: bounds that only widen are not those of what is there.
        let mut slots = Slots::default();
        for position in 0..1000 {
            let cluster = clusters.pick();
            let key = clusters.near(cluster, 1.0, 0.5);
            slots.write(&mut *read, position, position, &key, &key);
        }
        (64..128).for_each(|slot| slots.free(slot));
        for slot in 64..80 {
            let key = clusters.near(0, 1.0, 0.5);
            slots.write(&mut *read, slot, 1000 + slot, &key, &key);
        }
        for _ in 0..20 {
            let queries = clusters.queries(3);
            let chosen = slots.select(&*read, &queries, 2000);
            slots.check(&chosen, &slots.quest_masses(page, &queries, 64), k, 2000, 1e-3);
        }
    }
}

#[test]
fn the_choice_finds_attention() {
    let shape = shape();
    for (call, least) in [("topk(k=128)", 3.0), ("topk(k=128,bits=128)", 3.5), ("quest(k=128)", 2.0)] {
        let mut clusters = Clusters::new(24, 5);
        let mut read = build(&shape, call);
        let slots = clusters.slots(&mut *read, 2000);
        let (mut found, mut all, mut read_slots) = (0.0, 0.0, 0.0);
        for _ in 0..30 {
            let queries = clusters.queries(3);
            let chosen = slots.select(&*read, &queries, 5000);
            for q in queries.chunks_exact(64) {
                let logits: Vec<f64> = (0..slots.positions.len())
                    .map(|s| {
                        if slots.holds(s) { dot(&wide(q), &wide(&slots.keys[s])) } else { f64::NEG_INFINITY }
                    })
                    .collect();
                let p = softmax(&logits);
                found +=
                    chosen.iter().map(|&s| p[s as usize * STRIP..][..STRIP].iter().sum::<f64>()).sum::<f64>();
                all += 1.0;
                read_slots += (chosen.len() * STRIP) as f64 / slots.positions.len() as f64;
            }
        }
        // Strips chosen at random would find as much attention as they hold slots.
        let gain = found / read_slots;
        println!("{call}: {:.3} of the attention in {:.3} of the slots", found / all, read_slots / all);
        assert!(gain > least, "{call}: {gain}");
    }
}

/// Means of a page of 64 slots.
#[derive(Clone)]
struct Page {
    key: Vec<f64>,
    value: Vec<f64>,
    spread: f64,
}

/// Streams tokens one by one and compares every output with attention over the strips that an equal index chooses, and
/// over the means of the pages' other slots where `rest`.
fn check(spec: &str, read: &str, rest: bool, slot_of: impl Fn(usize) -> usize) {
    for stream in [Stream::new(&shape(), 500, 31), Stream::real()] {
        check_on(&stream, spec, read, rest, &slot_of);
    }
}

fn check_on(stream: &Stream, spec: &str, read: &str, rest: bool, slot_of: &dyn Fn(usize) -> usize) {
    let (tokens, shape, pool) = (stream.tokens, &stream.shape, ThreadPool::new(1));
    let mut cache = cache(shape, spec);
    let outputs = stream.run(&mut cache, &pool, 0, tokens, 1);
    let (d, kv, group) = (shape.layers[0].key_dim, shape.layers[0].kv_heads, shape.layers[0].group());
    let mut moved = 0.0f64;
    for (layer, outputs) in outputs.iter().enumerate() {
        for kv_head in 0..kv {
            let row = |all: &[f32], p: usize| all[(p * kv + kv_head) * d..][..d].to_vec();
            let mut index = build(shape, read);
            let mut slots = Slots::default();
            let mut pages: Vec<Page> = vec![];
            for token in 0..tokens {
                let (key, value) = (row(&stream.k[layer], token), row(&stream.v[layer], token));
                let at = (token * shape.layers[0].heads + kv_head * group) * d;
                let scale = 1.0 / (d as f32).sqrt();
                let queries: Vec<f32> =
                    stream.q[layer][at..][..group * d].iter().map(|q| q * scale).collect();
                let chosen = slots.select(&*index, &queries, token);
                let mut seen = vec![(key.clone(), value.clone())];
                let mut unread = vec![0; slots.live.len()];
                for slot in (0..slots.positions.len()).filter(|&slot| slots.holds(slot)) {
                    if chosen.contains(&((slot / STRIP) as u32)) {
                        seen.push((slots.keys[slot].clone(), slots.values[slot].clone()));
                    } else {
                        unread[slot / 64] += 1;
                    }
                }
                for g in 0..group {
                    let q = wide(&queries[g * d..][..d]);
                    let mut logits: Vec<f64> = seen.iter().map(|(k, _)| dot(&q, &wide(k))).collect();
                    let mut values: Vec<Vec<f64>> = seen.iter().map(|(_, v)| wide(v)).collect();
                    for (page, &count) in pages.iter().zip(&unread).filter(|(_, count)| rest && **count > 0) {
                        let variance = page.spread * dot(&q, &q) / d as f64;
                        logits.push(dot(&q, &page.key) + (count as f64).ln() + 0.3 * variance / 2.0);
                        values.push(page.value.clone());
                    }
                    let mut want = vec![0.0; d];
                    for (p, value) in softmax(&logits).into_iter().zip(&values) {
                        want.iter_mut().zip(value).for_each(|(out, x)| *out += p * x);
                    }
                    let got = &outputs[at + g * d..][..d];
                    let difference = largest_difference(got, &want);
                    let tolerance = if rest { 2e-3 } else { 1e-5 };
                    assert!(difference < tolerance, "layer {layer}, token {token}, query {g}: {difference}");
                    let kept: Vec<usize> = (0..slots.positions.len())
                        .filter(|&slot| slots.holds(slot))
                        .map(|slot| slots.positions[slot] as usize)
                        .chain([token])
                        .collect();
                    let dense = stream.attention(layer, kv_head * group + g, token, &kept);
                    moved = moved.max(largest_difference(got, &dense));
                }
                let slot = slot_of(token);
                slots.write(&mut *index, slot, token, &key, &value);
                pages.resize(slots.live.len(), Page { key: vec![0.0; d], value: vec![0.0; d], spread: 0.0 });
                let page = &mut pages[slot / 64];
                let count = slots.live[slot / 64].count_ones() as f64;
                let distance: f64 = page.key.iter().zip(&key).map(|(m, k)| (m - *k as f64).powi(2)).sum();
                let distance = if count == 1.0 { 0.0 } else { distance };
                page.spread += (distance * (1.0 - 1.0 / count) - page.spread) / count;
                for (mean, x) in [(&mut page.key, &key), (&mut page.value, &value)] {
                    for (mean, x) in mean.iter_mut().zip(x) {
                        *mean = f16::from_f64(*mean + (*x as f64 - *mean) / count).to_f64();
                    }
                }
            }
        }
    }
    assert!(moved > 0.05, "{spec}: the choice hardly matters: {moved}");
}

#[test]
fn attention_over_what_was_chosen_equals_the_formula() {
    check("full+f32+topk(k=64)", "topk(k=64)", false, |token| token);
    check("full+f32+topk(k=64,rest=pages)", "topk(k=64,rest=pages)", true, |token| token);
    check("full+f32+quest(k=64,page=16)", "quest(k=64,page=16)", false, |token| token);
}

#[test]
fn an_index_follows_what_is_evicted_and_stored() {
    // A window of 128 slots: the token that leaves gives its slot to the one that comes.
    let slot = |token: usize| if token < 4 { token } else { 4 + (token - 4) % 124 };
    check("window+f32+topk(k=32)@128tok", "topk(k=32)", false, slot);
    check("window+f32+topk(k=32,rest=pages)@128tok", "topk(k=32,rest=pages)", true, slot);
    check("window+f32+quest(k=32)@128tok", "quest(k=32)", false, slot);
}

#[test]
fn reading_as_many_as_there_are_is_reading_all() {
    let (shape, pool) = (shape(), ThreadPool::new(1));
    let stream = Stream::new(&shape, 300, 8);
    for (keep, cap) in [("full", ""), ("h2o", "@128tok")] {
        let dense = stream.run(&mut cache(&shape, &format!("{keep}+q8{cap}")), &pool, 0, 300, 1);
        for read in ["topk(k=304)", "topk(k=304,rest=pages)", "quest(k=304)"] {
            let sparse = stream.run(&mut cache(&shape, &format!("{keep}+q8+{read}{cap}")), &pool, 0, 300, 1);
            assert_eq!(sparse, dense, "{keep}+{read}");
        }
    }
}

#[test]
fn what_was_forgotten_leaves_no_trace() {
    let (shape, pool) = (shape(), ThreadPool::new(1));
    let stream = Stream::new(&shape, 400, 9);
    for read in ["topk(k=32,rest=pages)", "quest(k=32)"] {
        let spec = format!("full+f32+{read}");
        let (mut cut, mut straight) = (cache(&shape, &spec), cache(&shape, &spec));
        stream.run(&mut cut, &pool, 0, 370, 10);
        cut.truncate(201).unwrap();
        stream.run(&mut straight, &pool, 0, 201, 10);
        let again = stream.run(&mut cut, &pool, 201, 150, 1);
        assert_eq!(again, stream.run(&mut straight, &pool, 201, 150, 1), "{spec}");
        assert_eq!(cut.ledger(), straight.ledger());
    }
}

#[test]
fn an_index_is_saved_and_read_bit_for_bit() {
    let shape = shape();
    for call in ["topk(k=32,bits=40)", "topk(k=32,rest=pages)", "quest(k=32,page=16)"] {
        let mut clusters = Clusters::new(8, 6);
        let mut index = build(&shape, call);
        let slots = clusters.slots(&mut *index, 600);
        let mut out = Writer::default();
        index.save(&mut out);
        let bytes = out.finish();
        let mut again = build(&shape, call);
        again.resize(slots.positions.len());
        again.load(&mut Reader::new(&bytes)).unwrap();
        for _ in 0..10 {
            let queries = clusters.queries(3);
            assert_eq!(slots.select(&*again, &queries, 900), slots.select(&*index, &queries, 900), "{call}");
        }
        let mut out = Writer::default();
        again.save(&mut out);
        assert_eq!(out.finish(), bytes);
        let mut other = build(&shape, call);
        other.resize(slots.positions.len() / 2);
        assert!(other.load(&mut Reader::new(&bytes)).is_err());
        let mut short = build(&shape, call);
        short.resize(slots.positions.len());
        assert!(short.load(&mut Reader::new(&bytes[..bytes.len() - 3])).is_err());
    }
}

/// What each token of a pass over tokens `first..end` sees when blocks of 32 read `k` of the slots before, by the formula.
fn prompt_reads(stream: &Stream, kv_head: usize, first: usize, end: usize, k: usize) -> Vec<Vec<usize>> {
    let shape = &stream.shape.layers[0];
    let (d, group) = (shape.key_dim, shape.group());
    let mut seen = vec![];
    for block in (first..end).step_by(32).map(|block| block..end.min(block + 32)) {
        let mut masses = vec![0.0; first / STRIP];
        for token in block.clone().filter(|token| (block.end - 1 - token) % 4 == 0) {
            for head in kv_head * group..(kv_head + 1) * group {
                let q = wide(&stream.q[0][(token * shape.heads + head) * d..][..d]);
                let key = |p: usize| wide(&stream.k[0][(p * shape.kv_heads + kv_head) * d..][..d]);
                let logits: Vec<f64> = (0..first).map(|p| dot(&q, &key(p)) * shape.scale as f64).collect();
                let weights = softmax(&logits);
                masses.iter_mut().zip(weights.chunks(STRIP)).for_each(|(m, w)| *m += w.iter().sum::<f64>());
            }
        }
        let always = |strip: &usize| *strip == 0 || (strip + 1) * STRIP > first - 32;
        let mut others: Vec<usize> = (0..first / STRIP).filter(|strip| !always(strip)).collect();
        others.sort_by(|a, b| masses[*b].total_cmp(&masses[*a]));
        let mut chosen: Vec<usize> = (0..first / STRIP).filter(always).collect();
        chosen.extend(&others[..k / STRIP]);
        chosen.sort_unstable();
        let slots: Vec<usize> = chosen.iter().flat_map(|strip| strip * STRIP..(strip + 1) * STRIP).collect();
        seen.extend(block.map(|token| slots.iter().copied().chain(first..=token).collect::<Vec<_>>()));
    }
    seen
}

/// Blocks of a prompt read what a quarter of their queries look at most, of whatever is read of single tokens; those who are to
/// read as much as there is read everything.
#[test]
fn prompts_read_what_a_quarter_of_their_queries_look_at_most() {
    let stream = Stream::real();
    let (shape, pool) = (stream.shape.layers[0].clone(), ThreadPool::new(2));
    let (first, end, k) = (256, 256 + 70, 64);
    let out = |spec: &str| {
        let mut cache = cache(&stream.shape, spec);
        stream.run(&mut cache, &pool, 0, first, first);
        let all = stream.run(&mut cache, &pool, first, end - first, end - first).remove(0);
        // The same single tokens after.
        let after = stream.run(&mut cache, &pool, end, 2, 1).remove(0);
        (all, after)
    };
    let (all, _) = out("full+f32");
    let (enough, _) = out("full+f32+all(prompt=256)");
    assert_eq!(all, enough, "all slots are among those that are read");
    for (spec, dense) in [
        ("all(prompt=64)", "all"),
        ("topk(k=48,prompt=64)", "topk(k=48)"),
        ("quest(k=48,prompt=64)", "quest(k=48)"),
    ] {
        let (some, after) = out(&format!("full+f32+{spec}"));
        assert_eq!(after, out(&format!("full+f32+{dense}")).1, "{spec}: single tokens read as before");
        let mut from_all: f64 = 0.0;
        for head in 0..shape.heads {
            let seen = prompt_reads(&stream, head / shape.group(), first, end, k);
            for (i, seen) in seen.iter().enumerate() {
                let want = stream.attention(0, head, first + i, seen);
                let at = (i * shape.heads + head) * shape.value_dim;
                let got = &some[at..][..shape.value_dim];
                let difference = largest_difference(got, &want);
                assert!(difference < 1e-4, "{spec}, token {i}, head {head}: {difference}");
                from_all = from_all.max(largest_difference(&all[at..][..shape.value_dim], &want));
            }
        }
        assert!(from_all > 1e-2, "what is not read is missing: {from_all}");
    }
}
