//! What a keep costs: a decode step of one layer at 4,096 slots, 3 KV heads of 64 dimensions, groups of 3.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use sketchkv_cache::method::Choice;
use sketchkv_cache::{Cache, CacheShape, Rope, Spec, registry};
use sketchkv_kernels::ThreadPool;
use std::hint::black_box;
use std::time::Duration;

const SLOTS: usize = 4096;

/// Normal-like numbers.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut x = seed;
    let mut uniform = || {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..n).map(|_| (0..4).map(|_| uniform()).sum::<f32>() * 1.7 - 3.4).collect()
}

fn step(c: &mut Criterion) {
    let rope = Rope { inverse_frequencies: (0..32).map(|i| 10_000f32.powf(-(i as f32) / 32.0)).collect() };
    let shape = CacheShape {
        layers: 1,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        context: 8192,
        rope: Some(rope),
        output: None,
    };
    let pool = ThreadPool::new(1);
    let tokens = SLOTS + 512;
    let (k, v) = (numbers(tokens * 192, 1), numbers(tokens * 192, 2));
    // Queries as peaked as those of a trained head: most weight on few slots.
    let q: Vec<f32> = numbers(tokens * 576, 3).iter().map(|q| 2.0 * q).collect();
    let mut group = c.benchmark_group("step");
    group
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(10);
    let keeps = registry::methods().into_iter().filter(|m| m.choice == Choice::Keep && m.name != "full");
    let others = ["expected(cov=full)", "expected(cov=none)", "cms(key=position)"];
    for keep in keeps.map(|m| m.name).chain(others) {
        let spec: Spec = format!("{keep}@{SLOTS}tok").parse().expect("the bench's specs are valid");
        let mut cache = Cache::new(shape.clone(), &spec, 1).expect("they fit the shape");
        let mut out = vec![0.0; 576 * 256];
        let mut at = 0;
        // Fill, and then some, so that every step evicts or is one of the steps between two evictions.
        while at < SLOTS + 256 {
            let (q, k, v) = (&q[at * 576..], &k[at * 192..], &v[at * 192..]);
            let n = 256;
            cache.layer(0, &pool).attend(&q[..n * 576], &k[..n * 192], &v[..n * 192], &mut out);
            cache.advance(n);
            at += n;
        }
        group.bench_function(keep, |b| {
            b.iter(|| {
                let t = SLOTS + cache.position() % 512;
                let (q, k, v) = (&q[t * 576..][..576], &k[t * 192..][..192], &v[t * 192..][..192]);
                cache.layer(0, &pool).attend(black_box(q), k, v, &mut out[..576]);
                cache.advance(1);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, step);
criterion_main!(benches);
