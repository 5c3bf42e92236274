//! Products in the shapes of SmolLM2-135M (Q4_1 with a Q8_0 output matrix), at the level that `SKETCHKV_CPU` chooses, with
//! the number of threads in `SKETCHKV_THREADS` (2).
//!
//! A step multiplies all matrices of the model once, so that the weights come from memory as they do in decoding; the
//! roofline is printed before.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

mod model;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use model::{Model, Pass, matrix};
use sketchkv_kernels::{Activations, BlockFormat, ProductWorkspace, ThreadPool, bandwidth, cpu};
use std::time::Duration;

fn steps(c: &mut Criterion) {
    let model = Model::new(BlockFormat::Q4_1, BlockFormat::Q8_0);
    let rate = bandwidth(&model.pool, 512 << 20, 5);
    println!("{} threads at {}, reading {:.1} GB/s", model.pool.threads(), cpu::level().name(), rate / 1e9);
    println!(
        "{:.1} MB of weights: at best {:.0} tokens/s",
        model.bytes() as f64 / 1e6,
        rate / model.bytes() as f64
    );

    let mut decode = c.benchmark_group("decode");
    decode.throughput(Throughput::Bytes(model.bytes() as u64));
    for tokens in [1, 2, 4, 8] {
        let mut pass = Pass::new(tokens);
        decode.bench_function(BenchmarkId::new("tokens", tokens), |b| {
            b.iter(|| model.forward(&mut pass, tokens))
        });
    }
    decode.finish();

    let mut prefill = c.benchmark_group("prefill");
    for tokens in [64, 512] {
        let mut pass = Pass::new(tokens);
        prefill.throughput(Throughput::Elements(tokens as u64));
        prefill.bench_function(BenchmarkId::new("tokens", tokens), |b| {
            b.iter(|| model.forward(&mut pass, tokens))
        });
    }
    prefill.finish();
}

fn formats(c: &mut Criterion) {
    let pool = ThreadPool::new(2);
    let mut group = c.benchmark_group("matrix");
    for format in [
        BlockFormat::Q4_0,
        BlockFormat::Q4_1,
        BlockFormat::Q8_0,
        BlockFormat::Q5_1,
        BlockFormat::BF16,
        BlockFormat::F16,
        BlockFormat::F32,
    ] {
        // Beyond the last-level cache.
        let matrix = matrix(format, 65536, 1024, &pool);
        let (x, mut y, mut workspace) = (vec![0.5; 1024], vec![0.0; 65536], ProductWorkspace::new());
        group.throughput(Throughput::Bytes(matrix.bytes() as u64));
        group.bench_function(format.name(), |b| {
            b.iter(|| matrix.product(&pool, &x, 1, &mut y, &mut workspace))
        });
    }
    group.finish();
}

/// A prompt by format: many tokens times a matrix that stays in the cache, by one thread.
fn prompts(c: &mut Criterion) {
    const TOKENS: usize = 64;
    let (rows, cols) = (512, 1024);
    let pool = ThreadPool::new(1);
    let x: Vec<f32> = (0..TOKENS * cols).map(|i| (i as f32).sin()).collect();
    let (mut y, mut workspace) = (vec![0.0; TOKENS * rows], ProductWorkspace::new());
    for activations in [Activations::Bits8, Activations::Bits16] {
        let mut group = c.benchmark_group(format!("prompt/{activations:?}"));
        group.throughput(Throughput::Elements((TOKENS * rows * cols) as u64));
        for format in [
            BlockFormat::Q4_0,
            BlockFormat::Q4_1,
            BlockFormat::Q4_K,
            BlockFormat::Q5_0,
            BlockFormat::Q5_K,
            BlockFormat::Q6_K,
            BlockFormat::Q8_0,
        ] {
            let matrix = matrix(format, rows, cols, &pool).with_activations(activations);
            group.bench_function(format.name(), |b| {
                b.iter(|| matrix.product(&pool, &x, TOKENS, &mut y, &mut workspace))
            });
        }
        group.finish();
    }
}

fn regions(c: &mut Criterion) {
    let pool = ThreadPool::new(2);
    c.bench_function("region/empty", |b| b.iter(|| pool.run(2, &|_| {})));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = steps, formats, prompts, regions
}
criterion_main!(benches);
