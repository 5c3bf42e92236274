//! What an index and a tail cost one KV head of three query heads in one decoding step, one thread.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sketchkv_cache::Context;
use sketchkv_cache::method::Choice;
use sketchkv_cache::read::{Estimate, View, Written, choose, parts};
use sketchkv_cache::{AttentionWorkspace, Buffers, Cache, CacheShape, LayerShape, Partial, Registry, Spec};
use sketchkv_kernels::ThreadPool;
use std::time::Duration;

const DIM: usize = 64;
const GROUP: usize = 3;
const SLOTS: usize = 8192;

fn numbers(n: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn benches(c: &mut Criterion) {
    let shape = CacheShape::uniform(1, LayerShape::new(GROUP, 1, DIM), SLOTS);
    let context = Context::new(&shape, 0, 0, 1);
    let (keys, queries) = (numbers(SLOTS * DIM), numbers(GROUP * DIM));
    let positions: Vec<u32> = (0..SLOTS as u32).collect();
    let view = View { positions: &positions, live: &[u64::MAX; SLOTS / 64], position: SLOTS };
    let mut group = c.benchmark_group("step");
    group.sample_size(10).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    for call in ["topk", "topk(bits=128)", "topk(rest=pages)", "quest", "quest(page=16)"] {
        let spec: Spec = format!("full+{call}").parse().expect("a spec");
        let mut read = spec.read.build(&context).expect("an index");
        read.resize(SLOTS);
        let mut buffers = Buffers::default();
        for (slot, key) in keys.chunks_exact(DIM).enumerate() {
            read.write(&Written { slot, key, value: key, others: (1 << (slot % 64)) - 1 }, &mut buffers);
        }
        let (mut estimate, mut chosen, mut partial) = (Estimate::default(), vec![], Partial::default());
        group.bench_function(BenchmarkId::new("select", call), |b| {
            b.iter(|| {
                chosen.clear();
                for strips in parts(read.slots_read(), SLOTS / 16, 1) {
                    estimate.set(&*read, &queries, &view, strips);
                }
                choose(read.slots_read(), std::iter::once(&estimate), &view, &mut chosen, &mut buffers);
                partial.reset(GROUP, DIM);
                read.rest(&queries, &view, &chosen, &mut partial, &mut buffers);
            });
        });
        let mut slot = 0;
        group.bench_function(BenchmarkId::new("write", call), |b| {
            b.iter(|| {
                slot = (slot + 1) % SLOTS;
                let key = &keys[slot * DIM..][..DIM];
                read.write(&Written { slot, key, value: key, others: !0 }, &mut buffers);
            });
        });
    }
    // A whole step of one layer, to be compared with that of no tail.
    let pool = ThreadPool::new(1);
    for tail in Registry::builtin().methods().filter(|m| m.choice == Choice::Tail).map(|m| m.name) {
        let spec: Spec = format!("window+{tail}@256tok").parse().expect("a spec");
        let mut cache = Cache::new(shape.clone(), &spec, 1).expect("a cache");
        let (mut out, mut workspace) = (vec![0.0; GROUP * DIM], AttentionWorkspace::new());
        let mut step = |token: usize| {
            let row = token % SLOTS * DIM;
            let key = &keys[row..][..DIM];
            let mut pass = cache.begin(1, &mut workspace).expect("a pass");
            pass.attend(0, &pool, &mut workspace, &queries, key, key, &mut out).expect("a step");
            pass.finish(&pool, &mut workspace).expect("the end of it");
        };
        (0..SLOTS).for_each(&mut step);
        let mut token = SLOTS;
        group.bench_function(BenchmarkId::new("window of 256", tail), |b| {
            b.iter(|| {
                token += 1;
                step(token);
            });
        });
    }
}

criterion_group!(all, benches);
criterion_main!(all);
