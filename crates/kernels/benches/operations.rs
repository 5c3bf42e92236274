//! The operations between products, in the sizes of SmolLM2-135M, at the level that `SKETCHKV_CPU` chooses.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sketchkv_kernels::half::{bf16, f16, f16_to_f32, f32_to_bf16, f32_to_f16};
use sketchkv_kernels::ops::{self, RopeLayout, fill_angles};
use std::hint::black_box;
use std::time::Duration;

const HIDDEN: usize = 576;
const FEED_FORWARD: usize = 1536;
const HEAD_DIM: usize = 64;
const HEADS: usize = 9;

fn wave(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.37).sin() * 4.0).collect()
}

fn operations(c: &mut Criterion) {
    let mut group = c.benchmark_group("operation");
    let (x, up, mut out) = (wave(FEED_FORWARD), wave(FEED_FORWARD), vec![0.0; FEED_FORWARD]);
    let hidden = &x[..HIDDEN];
    // Bytes read and written.
    group.throughput(Throughput::Bytes(3 * 4 * HIDDEN as u64));
    group.bench_function("rms_norm", |b| {
        b.iter(|| ops::rms_norm(black_box(hidden), hidden, 1e-5, &mut out[..HIDDEN]))
    });
    group.bench_function("layer_norm", |b| {
        b.iter(|| ops::layer_norm(black_box(hidden), hidden, hidden, 1e-5, &mut out[..HIDDEN]));
    });
    group.bench_function("add", |b| b.iter(|| ops::add(black_box(hidden), &mut out[..HIDDEN])));
    group.throughput(Throughput::Bytes(3 * 4 * FEED_FORWARD as u64));
    group.bench_function("silu_mul", |b| b.iter(|| ops::silu_mul(black_box(&x), &up, &mut out)));
    group.throughput(Throughput::Bytes(2 * 4 * FEED_FORWARD as u64));
    group.bench_function("gelu", |b| b.iter(|| ops::gelu(black_box(&mut out))));
    group.bench_function("softmax", |b| b.iter(|| ops::softmax(black_box(&mut out))));
    let (mut table, mut heads) = (Vec::new(), wave(HEADS * HEAD_DIM));
    fill_angles(&[0.1; HEAD_DIM / 2], &[4711], &mut table);
    group.throughput(Throughput::Bytes(2 * 4 * (HEADS * HEAD_DIM) as u64));
    group.bench_function("rotate", |b| {
        b.iter(|| ops::rotate(black_box(&mut heads), &table, RopeLayout::Halves))
    });
    group.finish();
}

fn conversions(c: &mut Criterion) {
    let mut group = c.benchmark_group("conversion");
    let (x, mut wide) = (wave(4096), vec![0.0; 4096]);
    let (mut halves, mut brains) = (vec![f16::ZERO; 4096], vec![bf16::ZERO; 4096]);
    group.throughput(Throughput::Bytes(4096 * 6));
    group.bench_function("f32_to_f16", |b| b.iter(|| f32_to_f16(black_box(&x), &mut halves)));
    group.bench_function("f16_to_f32", |b| b.iter(|| f16_to_f32(black_box(&halves), &mut wide)));
    group.bench_function("f32_to_bf16", |b| b.iter(|| f32_to_bf16(black_box(&x), &mut brains)));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(600));
    targets = operations, conversions
}
criterion_main!(benches);
