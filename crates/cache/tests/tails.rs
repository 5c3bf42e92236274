//! Every tail against its formula, written out plainly in f64.

mod common;

use common::{Stream, cache, largest_difference, shape};
use half::f16;
use sketchkv_cache::Context;
use sketchkv_cache::tail::countsketch_cosine;
use sketchkv_kernels::ThreadPool;
use sketchkv_sketch::{Projection, SimHash, VectorCountSketch, mix};
use std::collections::BTreeMap;

/// What evicted tokens are to a query: tokens of some logit and value.
trait Reference {
    fn absorb(&mut self, token: &Evicted<'_>, kept: &mut Kept);
    /// `query` is scaled.
    fn attend(&self, query: &[f64]) -> Vec<(f64, Vec<f64>)>;
}

/// The values of the tokens that stay, by position.
type Kept = BTreeMap<usize, Vec<f64>>;

struct Evicted<'a> {
    position: usize,
    key: &'a [f64],
    value: &'a [f64],
    /// Attention it drew in the last step, to the mean over all tokens.
    relative_mass: f64,
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| x as f64).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Streams tokens through a window of 64 slots token by token, and compares every output with attention over the
/// window and what the reference makes of the tokens that left it.
fn check(tail: &str, tolerance: f64, reference: impl Fn(&Context<'_>) -> Box<dyn Reference>) {
    for stream in [Stream::new(&shape(), 400, 21), Stream::real()] {
        check_on(&stream, tail, tolerance, &reference);
    }
}

fn check_on(
    stream: &Stream,
    tail: &str,
    tolerance: f64,
    reference: &dyn Fn(&Context<'_>) -> Box<dyn Reference>,
) {
    let (tokens, shape, pool) = (stream.tokens, &stream.shape, ThreadPool::new(1));
    let mut cache = cache(shape, &format!("window+f32+{tail}@64tok"));
    let outputs = stream.run(&mut cache, &pool, 0, tokens, 1);
    let (d, kv, group) = (shape.layers[0].key_dim, shape.layers[0].kv_heads, shape.layers[0].group());
    let mut moved = 0.0f64;
    for (layer, outputs) in outputs.iter().enumerate() {
        for kv_head in 0..kv {
            let at = |p: usize| (p * kv + kv_head) * d;
            let key = |p: usize| wide(&stream.k[layer][at(p)..][..d]);
            let mut tail = reference(&Context::new(shape, layer, kv_head, 1));
            let mut kept = Kept::new();
            let mut mass: BTreeMap<usize, f64> = BTreeMap::new();
            for token in 0..tokens {
                // 64 slots: the last token evicted the oldest that is no sink before it came in.
                if token > 64 {
                    let newest = kept.remove(&(token - 1)).unwrap();
                    let position = token - 61;
                    let value = kept.remove(&position).unwrap();
                    let relative_mass = mass[&position] * mass.len() as f64 / group as f64;
                    let key = &key(position);
                    tail.absorb(&Evicted { position, key, value: &value, relative_mass }, &mut kept);
                    kept.insert(token - 1, newest);
                }
                kept.insert(token, wide(&stream.v[layer][at(token)..][..d]));
                mass.clear();
                for head in kv_head * group..(kv_head + 1) * group {
                    let row = (token * shape.layers[0].heads + head) * d;
                    let query = wide(&stream.q[layer][row..][..d]);
                    let query: Vec<f64> = query.iter().map(|q| q / (d as f64).sqrt()).collect();
                    let mut seen: Vec<(f64, Vec<f64>)> =
                        kept.iter().map(|(&p, value)| (dot(&query, &key(p)), value.clone())).collect();
                    seen.extend(tail.attend(&query));
                    let max = seen.iter().fold(f64::NEG_INFINITY, |m, (logit, _)| m.max(*logit));
                    let sum: f64 = seen.iter().map(|(logit, _)| (logit - max).exp()).sum();
                    let mut want = vec![0.0; d];
                    for (&position, (logit, _)) in kept.keys().zip(&seen) {
                        *mass.entry(position).or_default() += (logit - max).exp() / sum;
                    }
                    for (logit, value) in &seen {
                        let weight = (logit - max).exp() / sum;
                        want.iter_mut().zip(value).for_each(|(out, x)| *out += weight * x);
                    }
                    let got = &outputs[row..][..d];
                    let difference = largest_difference(got, &want);
                    assert!(
                        difference < tolerance,
                        "layer {layer}, head {head}, token {token}: {difference}"
                    );
                    let positions: Vec<usize> = kept.keys().copied().collect();
                    let alone = stream.attention(layer, head, token, &positions);
                    moved = moved.max(largest_difference(got, &alone));
                }
            }
        }
    }
    assert!(moved > 100.0 * tolerance, "the tail hardly matters: {moved}");
}

struct Buckets {
    all: Vec<Bucket>,
    spread: f64,
}

#[derive(Clone)]
struct Bucket {
    count: f64,
    key: Vec<f64>,
    value: Vec<f64>,
    /// Σ‖k − mean‖² over its keys.
    squares: f64,
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

impl Reference for Buckets {
    fn absorb(&mut self, &Evicted { key, value, .. }: &Evicted<'_>, _: &mut Kept) {
        let cost = |bucket: &Bucket| match bucket.count {
            0.0 => f64::NEG_INFINITY,
            count => distance(&bucket.key, key) * count / (count + 1.0),
        };
        let all = &mut self.all;
        let best = (0..all.len()).min_by(|&a, &b| cost(&all[a]).total_cmp(&cost(&all[b]))).unwrap();
        let bucket = &mut all[best];
        bucket.squares += cost(bucket).max(0.0);
        bucket.count += 1.0;
        for (mean, x) in [(&mut bucket.key, key), (&mut bucket.value, value)] {
            for (mean, x) in mean.iter_mut().zip(x) {
                // Means are kept in f16.
                *mean = f16::from_f64(*mean + (x - *mean) / bucket.count).to_f64();
            }
        }
    }

    fn attend(&self, query: &[f64]) -> Vec<(f64, Vec<f64>)> {
        let full = self.all.iter().filter(|bucket| bucket.count > 0.0);
        full.map(|bucket| {
            let variance = bucket.squares / bucket.count * dot(query, query) / query.len() as f64;
            let logit = dot(query, &bucket.key) + bucket.count.ln() + self.spread * variance / 2.0;
            (logit, bucket.value.clone())
        })
        .collect()
    }
}

#[test]
fn buckets_equal_the_formula() {
    for (call, n, spread) in
        [("buckets(n=16)", 16, 0.5), ("buckets(n=40,spread=0)", 48, 0.0), ("buckets(spread=1)", 32, 1.0)]
    {
        let empty = Bucket { count: 0.0, key: vec![0.0; 64], value: vec![0.0; 64], squares: 0.0 };
        check(call, 2e-3, |_| Box::new(Buckets { all: vec![empty.clone(); n], spread }));
    }
}

/// Count and sum of values by signs.
type Cells = BTreeMap<Vec<bool>, (f64, Vec<f64>)>;

struct Race {
    rows: usize,
    bits: usize,
    spread: f64,
    hash: SimHash,
    mean: Vec<f64>,
    seen: f64,
    /// Σ‖k − mean‖².
    squares: f64,
    /// Of each row.
    cells: Vec<Cells>,
}

impl Race {
    /// Products with the directions, made unit vectors.
    fn project(&self, x: &[f64]) -> Vec<f64> {
        let x: Vec<f32> = x.iter().map(|&x| x as f32).collect();
        let mut out = vec![0.0; self.rows * self.bits];
        self.hash.project(&x, &mut out);
        out.iter().map(|&p| p as f64 / (x.len() as f64).sqrt()).collect()
    }
}

/// Φ by Simpson's rule.
fn normal_cdf(x: f64) -> f64 {
    let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let (n, x) = (400, x.clamp(-9.0, 9.0));
    let h = x / n as f64;
    let inner: f64 = (1..n).map(|i| density(i as f64 * h) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    0.5 + (density(0.0) + inner + density(x)) * h / 3.0
}

impl Reference for Race {
    fn absorb(&mut self, &Evicted { key, value, .. }: &Evicted<'_>, _: &mut Kept) {
        let centred: Vec<f64> = key.iter().zip(&self.mean).map(|(k, m)| k - m).collect();
        let signs: Vec<bool> = self.project(&centred).iter().map(|p| *p >= 0.0).collect();
        for (cells, signs) in self.cells.iter_mut().zip(signs.chunks(self.bits)) {
            let (count, sum) = cells.entry(signs.to_vec()).or_insert((0.0, vec![0.0; value.len()]));
            *count += 1.0;
            sum.iter_mut().zip(value).for_each(|(sum, x)| *sum += x);
        }
        self.seen += 1.0;
        let square = dot(&centred, &centred);
        if self.seen <= 64.0 {
            self.squares += square * (1.0 - 1.0 / self.seen);
            self.mean.iter_mut().zip(&centred).for_each(|(m, x)| *m += x / self.seen);
        } else {
            self.squares += square;
        }
    }

    fn attend(&self, query: &[f64]) -> Vec<(f64, Vec<f64>)> {
        if self.seen == 0.0 {
            return vec![];
        }
        let variance = self.squares / self.seen / query.len() as f64;
        let offset = dot(query, &self.mean) + self.spread * variance * dot(query, query) / 2.0;
        let projections = self.project(query);
        let rows = self.cells.iter().zip(projections.chunks(self.bits));
        rows.flat_map(|(cells, projections)| {
            cells.iter().map(move |(signs, (count, sum))| {
                let sides = signs.iter().zip(projections);
                let sides = sides.map(|(positive, p)| if *positive { *p } else { -p });
                let weight: f64 = sides.map(|p| 2.0 * normal_cdf(variance.sqrt() * p)).product();
                let mean = sum.iter().map(|x| x / count).collect();
                (offset + (weight * count / self.rows as f64).ln(), mean)
            })
        })
        .collect()
    }
}

#[test]
fn race_equals_the_formula() {
    for (call, rows, bits, spread) in
        [("race", 1, 4, 0.5), ("race(rows=5,bits=1,spread=1)", 5, 1, 1.0), ("race(rows=2,bits=7)", 2, 7, 0.5)]
    {
        check(call, 1e-4, |context| {
            Box::new(Race {
                rows,
                bits,
                spread,
                hash: SimHash::new(64, rows * bits, Projection::Hadamard, context.own_seed()).unwrap(),
                mean: vec![0.0; 64],
                seen: 0.0,
                squares: 0.0,
                cells: vec![BTreeMap::new(); rows],
            })
        });
    }
}

/// For normal keys and β = 1 the sums are unbiased: over many evicted tokens the estimate approaches Σ e^(q·k).
#[test]
fn race_is_right_for_normal_keys() {
    let mut random = common::Random::new(77);
    let (d, n) = (64, 20_000);
    let mut tail = Race {
        rows: 4,
        bits: 4,
        spread: 1.0,
        hash: SimHash::new(d, 16, Projection::Hadamard, 3).unwrap(),
        mean: vec![0.0; d],
        seen: 0.0,
        squares: 0.0,
        cells: vec![BTreeMap::new(); 4],
    };
    let query: Vec<f64> = (0..d).map(|_| random.normal() as f64 * 0.15).collect();
    let mut exact = 0.0;
    for position in 0..n {
        let key: Vec<f64> = (0..d).map(|_| random.normal() as f64).collect();
        exact += dot(&query, &key).exp();
        let token = Evicted { position, key: &key, value: &[1.0], relative_mass: 1.0 };
        tail.absorb(&token, &mut Kept::new());
    }
    let estimate: f64 = tail.attend(&query).iter().map(|(logit, _)| logit.exp()).sum();
    assert!((estimate / exact - 1.0).abs() < 0.1, "{estimate} for {exact}");
}

struct Sketched {
    sketch: VectorCountSketch,
    mean: Vec<f64>,
    newest: usize,
    positions: Vec<usize>,
}

impl Reference for Sketched {
    fn absorb(&mut self, &Evicted { position, key, value, .. }: &Evicted<'_>, _: &mut Kept) {
        self.positions.push(position);
        let n = self.positions.len() as f64;
        let pair: Vec<f64> = key.iter().chain(value).copied().collect();
        self.mean = self.mean.iter().zip(&pair).map(|(mean, x)| (mean * (n - 1.0) + x) / n).collect();
        let apart: Vec<f32> = pair.iter().zip(&self.mean).map(|(x, mean)| (x - mean) as f32).collect();
        self.sketch.update_hash(position as u64, &apart, 1.0);
    }

    fn attend(&self, query: &[f64]) -> Vec<(f64, Vec<f64>)> {
        let newest = self.positions.iter().rev().take(self.newest);
        newest
            .map(|&position| {
                let mut pair = vec![0.0; 128];
                self.sketch.reconstruct_hash(position as u64, &mut pair);
                let load = (self.positions.len() - 1) as f64 / self.sketch.width() as f64;
                let pair: Vec<f64> =
                    wide(&pair).iter().zip(&self.mean).map(|(x, mean)| mean + x / (1.0 + load)).collect();
                let (key, value) = pair.split_at(64);
                (dot(query, key), value.to_vec())
            })
            .collect()
    }
}

#[test]
fn countsketch_equals_the_formula() {
    for (call, width, depth, newest) in
        [("countsketch", 16, 3, 64), ("countsketch(width=200,depth=1,newest=17)", 200, 1, 17)]
    {
        check(call, 1e-3, |context| {
            let sketch = VectorCountSketch::new(width, depth, 128, context.own_seed()).unwrap();
            Box::new(Sketched { sketch, mean: vec![0.0; 128], newest, positions: vec![] })
        });
    }
}

/// However many vectors share a bucket, what comes back draws about the attention that the tokens drew.
#[test]
fn countsketch_does_not_take_over_attention() {
    let mut random = common::Random::new(78);
    let (d, n, newest) = (64, 2000, 64);
    let sketch = VectorCountSketch::new(16, 3, 2 * d, 3).unwrap();
    let mut tail = Sketched { sketch, mean: vec![0.0; 2 * d], newest, positions: vec![] };
    let query: Vec<f64> = (0..d).map(|_| random.normal() as f64 * 0.15).collect();
    let mut exact = vec![];
    for position in 0..n {
        let key: Vec<f64> = (0..d).map(|_| 1.0 + random.normal() as f64).collect();
        exact.push(dot(&query, &key).exp());
        let token = Evicted { position, key: &key, value: &key, relative_mass: 1.0 };
        tail.absorb(&token, &mut Kept::new());
    }
    let exact: f64 = exact[n - newest..].iter().sum();
    let estimate: f64 = tail.attend(&query).iter().map(|(logit, _)| logit.exp()).sum();
    assert!((0.3..3.0).contains(&(estimate / exact)), "{estimate} for {exact}");
}

#[test]
fn what_a_count_sketch_returns_is_as_like_as_the_theory_says() {
    for (n, width) in [(200, 200), (1000, 125), (2000, 64)] {
        let cosine = countsketch_cosine(n, width, 1, 64, 5).unwrap();
        let theory = 1.0 / (1.0 + n as f64 / width as f64).sqrt();
        // The mean over places of different load is a little above that of the mean load.
        assert!((cosine / theory - 1.0).abs() < 0.15, "{n} in {width}: {cosine}, theory {theory}");
    }
}

struct Merge {
    m: usize,
    seed: u64,
}

impl Reference for Merge {
    fn absorb(&mut self, token: &Evicted<'_>, kept: &mut Kept) {
        let &Evicted { position, value, relative_mass, .. } = token;
        let uniform = mix(self.seed ^ mix(position as u64)) as f64 / 2f64.powi(64);
        if uniform >= relative_mass {
            return;
        }
        let count = kept.range(position..).count().min(self.m) as f64;
        for (_, neighbour) in kept.range_mut(position..).take(self.m) {
            neighbour.iter_mut().zip(value).for_each(|(v, x)| *v += x / count);
        }
    }

    fn attend(&self, _: &[f64]) -> Vec<(f64, Vec<f64>)> {
        vec![]
    }
}

#[test]
fn merge_equals_the_formula() {
    check("merge(m=5)", 1e-4, |context| Box::new(Merge { m: 5, seed: context.own_seed() }));
    check("merge(m=1024)", 1e-4, |context| Box::new(Merge { m: 1024, seed: context.own_seed() }));
}

/// Where attention is watched, tokens that drew none are dropped.
#[test]
fn merge_spares_what_drew_no_attention() {
    let (shape, pool) = (shape(), ThreadPool::new(1));
    let mut stream = Stream::new(&shape, 200, 4);
    // Every query finds the sinks alone, but the last one, which finds everything else.
    for (q, k) in stream.q.iter_mut().zip(&mut stream.k) {
        let last = q.len() - shape.layers[0].heads * shape.layers[0].key_dim;
        q[..last].fill(1.0);
        q[last..].fill(-1.0);
        let sinks = 4 * shape.layers[0].kv_heads * shape.layers[0].key_dim;
        k[..sinks].fill(20.0);
        k[sinks..].fill(-20.0);
    }
    let merged = stream.run(&mut cache(&shape, "h2o+f32+merge@64tok"), &pool, 0, 200, 1);
    let dropped = stream.run(&mut cache(&shape, "h2o+f32@64tok"), &pool, 0, 200, 1);
    assert_eq!(merged, dropped);
}

/// As many tokens as were evicted: all of them are there, as f16 rounds them.
#[test]
fn what_has_a_place_each_is_fitted_exactly() {
    for (stream, tolerance) in [(Stream::new(&shape(), 110, 5), 2e-3), (Stream::real(), 2e-2)] {
        let pool = ThreadPool::new(1);
        for chunk in [1, 30] {
            let mut cache = cache(&stream.shape, "window+f32+fitted(n=64)@64tok");
            let outputs = stream.run(&mut cache, &pool, 0, 110, chunk);
            let all: Vec<usize> = (0..110).collect();
            for (layer, outputs) in outputs.iter().enumerate() {
                let shape = &stream.shape.layers[layer];
                for head in 0..shape.heads {
                    let row = (109 * shape.heads + head) * shape.value_dim;
                    let got = &outputs[row..][..shape.value_dim];
                    let difference = largest_difference(got, &stream.attention(layer, head, 109, &all));
                    assert!(difference < tolerance, "chunks of {chunk}, head {head}: {difference}");
                }
            }
        }
    }
}

/// Of real keys many more go than there are places, in one pass; the queries after it are answered nearer to what all tokens
/// say than without.
#[test]
fn what_was_fitted_answers_later_queries() {
    let (stream, pool) = (Stream::real(), ThreadPool::new(1));
    let shape = &stream.shape.layers[0];
    let error = |spec: &str| {
        let mut cache = cache(&stream.shape, spec);
        stream.run(&mut cache, &pool, 0, 280, 280);
        let outputs = stream.run(&mut cache, &pool, 280, 40, 40);
        let mut sum = 0.0;
        for token in 280..320 {
            let all: Vec<usize> = (0..=token).collect();
            for head in 0..shape.heads {
                let row = ((token - 280) * shape.heads + head) * shape.value_dim;
                let want = stream.attention(0, head, token, &all);
                let got = &outputs[0][row..][..shape.value_dim];
                sum += got.iter().zip(&want).map(|(x, y)| (*x as f64 - y).powi(2)).sum::<f64>();
            }
        }
        sum
    };
    let (none, fitted) = (error("window+f32@64tok"), error("window+f32+fitted(n=16)@64tok"));
    assert!(fitted < 0.25 * none, "{fitted} with, {none} without");
}
