//! What a keep costs: a decode step of one layer at 4,096 slots, 3 KV heads of 64 dimensions, groups of 3.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use sketchkv_cache::method::Choice;
use sketchkv_cache::{AttentionWorkspace, Cache, CacheShape, LayerShape, Registry, Rotation, Spec};
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

/// A forward pass of one layer.
fn step(
    cache: &mut Cache,
    pool: &ThreadPool,
    workspace: &mut AttentionWorkspace,
    [q, k, v]: [&[f32]; 3],
    out: &mut [f32],
) {
    let mut pass = cache.begin(k.len() / 192, workspace).expect("a pass");
    pass.attend(0, pool, workspace, q, k, v, out).expect("a step");
    pass.finish(pool, workspace).expect("the end of it");
}

fn steps(c: &mut Criterion) {
    let inverse_frequencies = (0..32).map(|i| 10_000f32.powf(-(i as f32) / 32.0)).collect();
    let rotation = Some(Rotation { inverse_frequencies });
    let shape = CacheShape::uniform(1, LayerShape { rotation, ..LayerShape::new(9, 3, 64) }, 8192);
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
    let registry = Registry::builtin();
    let keeps = registry.methods().filter(|m| m.choice == Choice::Keep && m.name != "full");
    let others = ["expected(cov=full)", "expected(cov=none)", "cms(key=position)"];
    for keep in keeps.map(|m| m.name).chain(others) {
        let spec: Spec = format!("{keep}@{SLOTS}tok").parse().expect("the bench's specs are valid");
        let mut cache = Cache::new(shape.clone(), &spec, 1).expect("they fit the shape");
        let (mut out, mut workspace) = (vec![0.0; 576 * 256], AttentionWorkspace::new());
        let mut at = 0;
        // Fill, and then some, so that every step evicts or is one of the steps between two evictions.
        while at < SLOTS + 256 {
            let (q, k, v) = (&q[at * 576..], &k[at * 192..], &v[at * 192..]);
            let n = 256;
            step(&mut cache, &pool, &mut workspace, [&q[..n * 576], &k[..n * 192], &v[..n * 192]], &mut out);
            at += n;
        }
        group.bench_function(keep, |b| {
            b.iter(|| {
                let t = SLOTS + cache.position() % 512;
                let (q, k, v) = (&q[t * 576..][..576], &k[t * 192..][..192], &v[t * 192..][..192]);
                step(&mut cache, &pool, &mut workspace, [black_box(q), k, v], &mut out[..576]);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
