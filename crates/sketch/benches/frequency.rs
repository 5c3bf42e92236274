//! Updates and queries per key, beside Apache DataSketches and asap_sketchlib, at 4 rows of 1,024 counters.
//!
//!     cargo bench -p sketchkv-sketch --bench frequency

#![allow(missing_docs, reason = "criterion_group makes an undocumented function")]

use std::hint::black_box;
use std::time::Duration;

use asap_sketchlib::{
    CountMinSketch as AsapCountMin, CountSketch as AsapCountSketch, DataInput, FastPath, RegularPath,
    Vector2D, impl_fixed_matrix,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datasketches::countmin::CountMinSketch as ApacheCountMin;
use datasketches::frequencies::FrequentItemsSketch;
use sketchkv_sketch::{CountMin, CountSketch, SpaceSaving, SplitMix64, TopK};

const WIDTH: usize = 1024;
const DEPTH: usize = 4;
const KEYS: usize = 8192;

impl_fixed_matrix!(Fixed4x1024, i32, 4, 1024);

/// Keys of three kinds: small integers by a Zipf law, 32-bit and 64-bit integers at random.
fn streams() -> [(&'static str, Vec<u64>); 3] {
    let mut random = SplitMix64::new(1);
    let mut cumulative = vec![0.0f64];
    for rank in 1..=10_000u32 {
        cumulative.push(cumulative[rank as usize - 1] + f64::from(rank).powf(-1.1));
    }
    let total = cumulative[10_000];
    let mut zipf = || {
        let x = random.unit() * total;
        cumulative.partition_point(|&c| c <= x) as u64
    };
    let zipf = (0..KEYS).map(|_| zipf()).collect();
    let wide: Vec<u64> = (0..KEYS).map(|_| random.next_u64()).collect();
    [("zipf 1.1", zipf), ("32 bits", wide.iter().map(|key| key >> 32).collect()), ("64 bits", wide)]
}

fn inputs(keys: &[u64]) -> Vec<DataInput<'static>> {
    keys.iter().map(|&key| DataInput::U64(key)).collect()
}

fn count_min_update(criterion: &mut Criterion) {
    for (name, keys) in streams() {
        let mut group = criterion.benchmark_group(format!("count-min update, {name}"));
        group.throughput(Throughput::Elements(KEYS as u64));
        let mut sketch = CountMin::<u32>::new(WIDTH, DEPTH, 1).unwrap();
        group.bench_function("ours, batch", |b| {
            b.iter(|| black_box(&mut sketch).update_batch(black_box(&keys)))
        });
        group.bench_function("ours, one by one", |b| {
            b.iter(|| keys.iter().for_each(|key| black_box(&mut sketch).update(key, 1)));
        });
        group.bench_function("ours, conservative", |b| {
            b.iter(|| keys.iter().for_each(|key| black_box(&mut sketch).update_conservative(key, 1)));
        });
        let mut sketch = CountMin::<f32>::new(WIDTH, DEPTH, 1).unwrap();
        group.bench_function("ours, f32, batch", |b| {
            b.iter(|| black_box(&mut sketch).update_batch(black_box(&keys)));
        });
        let mut sketch = ApacheCountMin::<u64>::new(DEPTH as u8, WIDTH as u32).unwrap();
        group.bench_function("datasketches", |b| {
            b.iter(|| keys.iter().for_each(|&key| black_box(&mut sketch).update(key)));
        });
        let inputs = inputs(&keys);
        let mut sketch = AsapCountMin::<Vector2D<i32>, RegularPath>::with_dimensions(DEPTH, WIDTH);
        group.bench_function("asap, regular, batch", |b| {
            b.iter(|| black_box(&mut sketch).update_batch(black_box(&inputs)));
        });
        let mut sketch = AsapCountMin::<Vector2D<i32>, FastPath>::with_dimensions(DEPTH, WIDTH);
        group.bench_function("asap, fast, batch", |b| {
            b.iter(|| black_box(&mut sketch).update_batch(black_box(&inputs)));
        });
        let mut sketch = AsapCountMin::<Fixed4x1024, FastPath>::from_storage(Fixed4x1024::default());
        group.bench_function("asap, fast, size fixed when compiled, batch", |b| {
            b.iter(|| black_box(&mut sketch).update_batch(black_box(&inputs)));
        });
    }
}

fn count_min_query(criterion: &mut Criterion) {
    let [(_, keys), ..] = streams();
    let mut group = criterion.benchmark_group("count-min query, zipf 1.1");
    group.throughput(Throughput::Elements(KEYS as u64));
    let mut sketch = CountMin::<u32>::new(WIDTH, DEPTH, 1).unwrap();
    sketch.update_batch(&keys);
    let mut estimates = vec![0; KEYS];
    group.bench_function("ours, batch", |b| {
        b.iter(|| black_box(&sketch).query_batch(black_box(&keys), black_box(&mut estimates)));
    });
    group.bench_function("ours, one by one", |b| {
        b.iter(|| keys.iter().for_each(|key| _ = black_box(black_box(&sketch).query(key))));
    });
    let mut sketch = ApacheCountMin::<u64>::new(DEPTH as u8, WIDTH as u32).unwrap();
    keys.iter().for_each(|&key| sketch.update(key));
    group.bench_function("datasketches", |b| {
        b.iter(|| keys.iter().for_each(|&key| _ = black_box(black_box(&sketch).estimate(key))));
    });
    let inputs = inputs(&keys);
    let mut sketch = AsapCountMin::<Vector2D<i32>, FastPath>::with_dimensions(DEPTH, WIDTH);
    sketch.update_batch(&inputs);
    group.bench_function("asap, fast", |b| {
        b.iter(|| inputs.iter().for_each(|key| _ = black_box(black_box(&sketch).estimate(key))));
    });
}

fn count_sketch_update(criterion: &mut Criterion) {
    let [(_, keys), ..] = streams();
    let mut group = criterion.benchmark_group("count-sketch update, zipf 1.1");
    group.throughput(Throughput::Elements(KEYS as u64));
    let mut sketch = CountSketch::<i32>::new(WIDTH, DEPTH, 1).unwrap();
    group.bench_function("ours, batch", |b| b.iter(|| black_box(&mut sketch).update_batch(black_box(&keys))));
    let inputs = inputs(&keys);
    let mut sketch = AsapCountSketch::<Vector2D<i32>, RegularPath>::with_dimensions(DEPTH, WIDTH);
    group.bench_function("asap, regular", |b| {
        b.iter(|| inputs.iter().for_each(|key| black_box(&mut sketch).update(key)));
    });
    let mut sketch = AsapCountSketch::<Vector2D<i32>, FastPath>::with_dimensions(DEPTH, WIDTH);
    group.bench_function("asap, fast", |b| {
        b.iter(|| inputs.iter().for_each(|key| black_box(&mut sketch).update(key)));
    });
}

fn heavy_hitters(criterion: &mut Criterion) {
    let [(_, keys), ..] = streams();
    let mut group = criterion.benchmark_group("heavy hitters update, zipf 1.1");
    group.throughput(Throughput::Elements(KEYS as u64));
    let mut summary = SpaceSaving::<u64, u64>::new(192, 1).unwrap();
    group.bench_function("ours, Space-Saving", |b| {
        b.iter(|| keys.iter().for_each(|&key| black_box(&mut summary).update(key, 1)));
    });
    let mut top = TopK::new(CountMin::<u32>::new(WIDTH, DEPTH, 1).unwrap(), 64).unwrap();
    group.bench_function("ours, top 64 of a Count-Min", |b| {
        b.iter(|| keys.iter().for_each(|&key| black_box(&mut top).update(key, 1)));
    });
    let mut items = FrequentItemsSketch::<u64>::new(256).unwrap();
    group.bench_function("datasketches, frequent items", |b| {
        b.iter(|| keys.iter().for_each(|&key| black_box(&mut items).update(key)));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(40);
    targets = count_min_update, count_min_query, count_sketch_update, heavy_hitters
}
criterion_main!(benches);
