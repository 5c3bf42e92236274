//! Scores and value sums of one group of three query heads over pages beyond the last-level cache, one thread;
//! throughput is the bytes of the pages read, to be set beside the bandwidth that is printed first. The next page is
//! named, as a cache does.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sketchkv_kernels::attention::layout::{Codes, Encoding, Levels, STRIP, ScaleGroup, Side, StripLayout};
use sketchkv_kernels::attention::{Queries, Stream, key_scores, value_sums};
use sketchkv_kernels::{ThreadPool, bandwidth, cpu};
use std::time::Duration;

const DIM: usize = 64;
const GROUP: usize = 3;
const BYTES: usize = 96 << 20;
/// Strips per call: a page.
const PAGE: usize = 4;

fn encodings() -> Vec<(&'static str, Encoding)> {
    let linear = |bits: u32| {
        let levels = Levels::Linear { offset: (1u32 << (bits - 1)) as u8 };
        Encoding::Codes(Codes { bits, levels, group: ScaleGroup::Block, minimum: false })
    };
    let table = |bits| {
        let levels = Levels::Table(std::array::from_fn(|i| i as f32 - 7.5));
        Encoding::Codes(Codes { bits, levels, group: ScaleGroup::Slot, minimum: false })
    };
    vec![
        ("f32", Encoding::F32),
        ("f16", Encoding::F16),
        ("bf16", Encoding::Bf16),
        ("q8", linear(8)),
        ("q4", linear(4)),
        ("tq4", table(4)),
        ("tq3", table(3)),
        ("tq2", table(2)),
    ]
}

fn benches(c: &mut Criterion) {
    let level = cpu::level();
    let rate = bandwidth(&ThreadPool::new(1), 256 << 20, 5);
    println!("one thread reads {:.2} GiB/s at level {}", rate / (1u64 << 30) as f64, level.name());
    let mut queries = Queries::default();
    queries.set(&vec![0.5; GROUP * DIM], DIM);
    let weights = vec![0.01; GROUP * PAGE * STRIP];
    for side in [Side::Keys, Side::Values] {
        let mut group = c.benchmark_group(if side == Side::Keys { "key_scores" } else { "value_sums" });
        group
            .sample_size(10)
            .measurement_time(Duration::from_secs(2))
            .warm_up_time(Duration::from_millis(300));
        for (name, encoding) in encodings() {
            let layout = StripLayout::new(side, encoding, DIM);
            let page = PAGE * layout.strip_bytes();
            let pages = vec![1u8; BYTES / page * page];
            group.throughput(Throughput::Bytes(pages.len() as u64));
            let mut scores = vec![0.0; GROUP * PAGE * STRIP];
            let mut sums = vec![0.0; GROUP * DIM];
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                b.iter(|| {
                    let ahead = pages.chunks_exact(page).skip(1).chain([&[][..]]);
                    for (strips, ahead) in pages.chunks_exact(page).zip(ahead) {
                        let page = Stream { strips, ahead };
                        match side {
                            Side::Keys => {
                                key_scores(level, &layout, None, &queries, page, &mut scores, PAGE * STRIP)
                            }
                            Side::Values => {
                                value_sums(level, &layout, &weights, PAGE * STRIP, page, &mut sums)
                            }
                        }
                    }
                })
            });
        }
        group.finish();
    }
}

criterion_group!(attention, benches);
criterion_main!(attention);
