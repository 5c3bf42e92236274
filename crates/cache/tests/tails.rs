//! Every tail against its formula, written out plainly in f64.

mod common;

use common::{Stream, cache, largest_difference, shape};
use half::f16;
use sketchkv_kernels::ThreadPool;

/// What evicted tokens are to a query: tokens of some logit and value.
trait Reference {
    fn absorb(&mut self, key: &[f64], value: &[f64]);
    /// `query` is scaled.
    fn attend(&self, query: &[f64]) -> Vec<(f64, Vec<f64>)>;
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| x as f64).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Streams tokens through a window of 64 slots token by token, and compares every output with attention over the
/// window and what the reference makes of the tokens that left it.
fn check(tail: &str, tolerance: f64, reference: impl Fn() -> Box<dyn Reference>) {
    let (tokens, shape, pool) = (400, shape(), ThreadPool::new(1));
    let stream = Stream::new(&shape, tokens, 21);
    let mut cache = cache(&shape, &format!("window+f32+{tail}@64tok"));
    let outputs = stream.run(&mut cache, &pool, 0, tokens, 1);
    let (d, kv, group) = (shape.head_dim, shape.kv_heads, shape.group());
    let mut moved = 0.0f64;
    for (layer, outputs) in outputs.iter().enumerate() {
        for kv_head in 0..kv {
            let at = |p: usize| (p * kv + kv_head) * d;
            let key = |p: usize| wide(&stream.k[layer][at(p)..][..d]);
            let value = |p: usize| wide(&stream.v[layer][at(p)..][..d]);
            let mut tail = reference();
            for token in 0..tokens {
                if token > 64 {
                    tail.absorb(&key(token - 61), &value(token - 61));
                }
                let kept: Vec<usize> = if token < 64 {
                    (0..=token).collect()
                } else {
                    (0..4).chain(token - 60..=token).collect()
                };
                for head in kv_head * group..(kv_head + 1) * group {
                    let row = (token * shape.heads + head) * d;
                    let query = wide(&stream.q[layer][row..][..d]);
                    let query: Vec<f64> = query.iter().map(|q| q / (d as f64).sqrt()).collect();
                    let mut seen: Vec<(f64, Vec<f64>)> =
                        kept.iter().map(|&p| (dot(&query, &key(p)), value(p))).collect();
                    seen.extend(tail.attend(&query));
                    let max = seen.iter().fold(f64::NEG_INFINITY, |m, (logit, _)| m.max(*logit));
                    let sum: f64 = seen.iter().map(|(logit, _)| (logit - max).exp()).sum();
                    let mut want = vec![0.0; d];
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
                    let alone = stream.attention(layer, head, token, &kept);
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
    fn absorb(&mut self, key: &[f64], value: &[f64]) {
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
        check(call, 2e-3, || Box::new(Buckets { all: vec![empty.clone(); n], spread }));
    }
}
