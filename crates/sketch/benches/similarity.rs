//! Codes, distances, scores and RACE sketches; each figure of bytes is set against the memory's bandwidth.
//!
//!     cargo bench -p sketchkv-sketch --bench similarity

#![allow(missing_docs, reason = "criterion_group makes an undocumented function")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sketchkv_sketch::{
    AsymmetricQuery, Projection, Race, SimHash, VectorCountSketch, VectorRace, hamming_many,
};

const CODES: usize = 8192;

fn words(n: usize) -> Vec<u64> {
    let mut state = 1u64;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ state >> 29
        })
        .collect()
}

fn vector(dim: usize) -> Vec<f32> {
    words(dim).iter().map(|&word| (word >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// The yardstick: how fast memory can be read at all by one thread, from a buffer no cache holds.
fn bandwidth(criterion: &mut Criterion) {
    let buffer = words(32 << 20);
    let mut group = criterion.benchmark_group("memory");
    group.throughput(Throughput::Bytes(8 * buffer.len() as u64));
    group.sample_size(10);
    group.bench_function("read 256 MiB", |b| {
        b.iter(|| black_box(&buffer).iter().fold(0u64, |sum, &word| sum.wrapping_add(word)));
    });
}

fn scores(criterion: &mut Criterion) {
    for bits in [64, 128, 256] {
        let hash = SimHash::new(64, bits, Projection::Orthogonal, 1).unwrap();
        let codes = words(CODES * hash.words());
        let query = vector(64);
        let mut group = criterion.benchmark_group(format!("{CODES} codes of {bits} bits"));
        group.throughput(Throughput::Bytes(8 * codes.len() as u64));
        let mut scores = vec![0.0; CODES];
        let prepared = AsymmetricQuery::new(&hash, &query);
        group.bench_function("asymmetric, query prepared", |b| {
            b.iter(|| black_box(&prepared).score_many(black_box(&codes), black_box(&mut scores)));
        });
        group.bench_function("asymmetric, from the query vector", |b| {
            b.iter(|| {
                AsymmetricQuery::new(&hash, black_box(&query))
                    .score_many(black_box(&codes), black_box(&mut scores));
            });
        });
        let mut distances = vec![0; CODES];
        group.bench_function("hamming", |b| {
            b.iter(|| {
                hamming_many(black_box(&codes[..hash.words()]), black_box(&codes), black_box(&mut distances))
            });
        });
    }
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode one vector");
    for (dim, bits) in [(64, 64), (128, 128), (1024, 1024)] {
        let x = vector(dim);
        for projection in [Projection::Gaussian, Projection::Hadamard] {
            let hash = SimHash::new(dim, bits, projection, 1).unwrap();
            let mut code = vec![0; hash.words()];
            group.bench_function(
                BenchmarkId::new(format!("{projection:?}"), format!("{dim} to {bits}")),
                |b| {
                    b.iter(|| hash.encode(black_box(&x), black_box(&mut code)));
                },
            );
        }
    }
}

fn sums(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one vector of 64 floats");
    let (x, mut out) = (vector(64), vec![0.0; 64]);
    let mut race = Race::new(8, 6, 64, 1).unwrap();
    group.bench_function("race 8 x 2^6, add", |b| b.iter(|| race.add(black_box(&x), 1.0)));
    group.bench_function("race 8 x 2^6, query", |b| b.iter(|| race.query(black_box(&x))));
    let mut vectors = VectorRace::new(8, 6, 64, 64, 1).unwrap();
    group.bench_function("vector race 8 x 2^6, add", |b| {
        b.iter(|| vectors.add(black_box(&x), black_box(&x), 1.0))
    });
    group.bench_function("vector race 8 x 2^6, query", |b| {
        b.iter(|| vectors.query(black_box(&x), black_box(&mut out)));
    });
    for depth in [3, 5] {
        let mut sketch = VectorCountSketch::new(128, depth, 64, 1).unwrap();
        let mut key = 0u64;
        group.bench_function(format!("vector count-sketch of {depth} rows, update"), |b| {
            b.iter(|| {
                key += 1;
                sketch.update_hash(key, black_box(&x), 1.0);
            });
        });
        group.bench_function(format!("vector count-sketch of {depth} rows, reconstruct"), |b| {
            b.iter(|| {
                key += 1;
                sketch.reconstruct_hash(key, black_box(&mut out));
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(40);
    targets = bandwidth, scores, encode, sums
}
criterion_main!(benches);
