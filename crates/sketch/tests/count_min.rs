//! The theorems on Count-Min sketches.

mod support;

use proptest::prelude::*;
use sketchkv_sketch::{CountMin, SketchError, VectorCountSketch};
use support::{Random, assert_mean, exact, most_failures, streams, zipf};

fn stream() -> impl Strategy<Value = Vec<(u64, u32)>> {
    prop::collection::vec((0u64..40, 0u32..1000), 0..300)
}

fn fed(parts: &[&[(u64, u32)]], width: usize, depth: usize, seed: u64) -> CountMin<u64> {
    let mut sketch = CountMin::new(width, depth, seed).unwrap();
    for &(key, amount) in parts.iter().copied().flatten() {
        sketch.update(&key, u64::from(amount));
    }
    sketch
}

fn sum_of(stream: &[(u64, u32)], key: u64) -> u64 {
    stream.iter().filter(|(k, _)| *k == key).map(|(_, amount)| u64::from(*amount)).sum()
}

proptest! {
    #[test]
    fn never_underestimates(stream in stream(), width in 1usize..30, depth in 1usize..10, seed: u64) {
        let mut conservative = CountMin::<u64>::new(width, depth, seed).unwrap();
        let mut floats = CountMin::<f32>::new(width, depth, seed).unwrap();
        let plain = fed(&[&stream], width, depth, seed);
        for &(key, amount) in &stream {
            conservative.update_conservative(&key, u64::from(amount));
            floats.update(&key, amount as f32);
        }
        for key in 0..40 {
            let sum = sum_of(&stream, key);
            prop_assert!(plain.query(&key) >= sum);
            prop_assert!(conservative.query(&key) >= sum);
            prop_assert!(conservative.query(&key) <= plain.query(&key), "conservative is never worse");
            // All sums are below 2^24, where floats are exact.
            prop_assert!(floats.query(&key) >= sum as f32);
        }
        let mut halved = plain.clone();
        halved.halve();
        for key in 0..40 {
            prop_assert!(halved.query(&key) >= sum_of(&stream, key) / 2);
            prop_assert_eq!(halved.query(&key), plain.query(&key) / 2);
        }
    }

    #[test]
    fn merging_is_sketching_the_concatenation(
        a in stream(), b in stream(), width in 1usize..30, depth in 1usize..10, seed: u64,
    ) {
        let mut merged = fed(&[&a], width, depth, seed);
        merged.merge(&fed(&[&b], width, depth, seed)).unwrap();
        prop_assert_eq!(&merged, &fed(&[&a, &b], width, depth, seed));
        // And taking one part away again leaves the other.
        merged.subtract(&fed(&[&a], width, depth, seed)).unwrap();
        prop_assert_eq!(&merged, &fed(&[&b], width, depth, seed));
    }

    #[test]
    fn batches_are_single_updates(
        keys in prop::collection::vec(any::<u64>(), 0..700), width in 1usize..5000, depth in 1usize..14, seed: u64,
        wide: bool,
    ) {
        let keys: Vec<u64> = keys.into_iter().map(|key| if wide { key } else { key >> 40 }).collect();
        let amounts: Vec<u32> = keys.iter().map(|key| (key % 1000) as u32).collect();
        let empty = CountMin::<u32>::new(width, depth, seed).unwrap();
        let (mut single, mut batch, mut hashed) = (empty.clone(), empty.clone(), empty);
        for (&key, &amount) in keys.iter().zip(&amounts) {
            single.update(&key, 1);
            single.update_hash(key, amount);
        }
        batch.update_batch(&keys);
        batch.update_batch_weighted(&keys, &amounts);
        hashed.update_hash_batch(&keys);
        hashed.update_hash_batch_weighted(&keys, &amounts);
        prop_assert_eq!(&batch, &single);
        prop_assert_eq!(&hashed, &single);
        let mut estimates = vec![0; keys.len()];
        single.query_batch(&keys, &mut estimates);
        for (key, &estimate) in keys.iter().zip(&estimates) {
            prop_assert_eq!(estimate, single.query(key));
        }
    }

    #[test]
    fn inner_products_are_never_underestimated(
        a in stream(), b in stream(), width in 1usize..30, depth in 1usize..6, seed: u64,
    ) {
        let (sa, sb) = (fed(&[&a], width, depth, seed), fed(&[&b], width, depth, seed));
        let product: u64 = (0..40).map(|key| sum_of(&a, key) * sum_of(&b, key)).sum();
        prop_assert!(sa.inner_product(&sb).unwrap() >= product as f64);
    }

    #[test]
    fn long_keys_behave_like_short_ones(words in prop::collection::vec("[ab]{0,20}", 1..100), seed: u64) {
        let mut sketch = CountMin::<u32>::new(1 << 16, 3, seed).unwrap();
        sketch.update_batch(&words);
        for word in &words {
            let count = words.iter().filter(|w| *w == word).count() as u32;
            // 100 keys in 65,536 columns and three rows: too large with probability below 10^-8.
            prop_assert_eq!(sketch.query(word.as_str()), count);
        }
    }
}

#[test]
fn errors_stay_within_epsilon_but_for_delta() {
    const SEEDS: usize = 400;
    for (name, stream) in streams(1) {
        let counts = exact(&stream);
        let probes: Vec<u64> = counts.keys().copied().take(5).chain([u64::MAX, 123_456_789]).collect();
        for (width, depth) in [(32, 1), (32, 2), (64, 3)] {
            let mut failures = vec![0; probes.len()];
            for seed in 0..SEEDS as u64 {
                let mut sketch = CountMin::<u32>::new(width, depth, seed).unwrap();
                sketch.update_batch(&stream);
                let bound = sketch.error_bound();
                for (failures, key) in failures.iter_mut().zip(&probes) {
                    let error = f64::from(sketch.query(key)) - counts.get(key).copied().unwrap_or(0) as f64;
                    assert!(error >= 0.0);
                    *failures += usize::from(error > bound);
                }
            }
            let allowed = most_failures(SEEDS, (-(depth as f64)).exp());
            assert!(
                failures.iter().all(|&n| n <= allowed),
                "{name}, {width} x {depth}: {failures:?} > {allowed}"
            );
        }
    }
}

#[test]
fn one_row_is_too_large_by_the_share_of_the_others() {
    // Universal hashing: E estimate = f + (‖f‖₁ - f) / width, over the seeds, for every key of every stream.
    for (name, stream) in streams(2) {
        let counts = exact(&stream);
        let (&key, &count) = counts.iter().max_by_key(|&(key, count)| (count, key)).unwrap();
        for width in [16, 100] {
            let estimates: Vec<f64> = (0..1500)
                .map(|seed| {
                    let mut sketch = CountMin::<u32>::new(width, 1, seed).unwrap();
                    sketch.update_batch(&stream);
                    f64::from(sketch.query(&key))
                })
                .collect();
            let expected = count as f64 + (stream.len() as f64 - count as f64) / width as f64;
            assert_mean(&estimates, expected, name);
        }
    }
}

#[test]
fn decay_is_the_exactly_decayed_stream() {
    // Wide enough that keys do not meet; long enough that the scale is brought back several times.
    let mut random = Random::new(3);
    let stream = zipf(&mut random, 20_000, 50, 1.0);
    let mut sketch = CountMin::<f32>::new(1 << 16, 3, 5).unwrap();
    let mut sums = [0.0f64; 50];
    let mut total = 0.0f64;
    for &key in &stream {
        sketch.decay(0.99);
        sums.iter_mut().for_each(|sum| *sum *= 0.99);
        total = total * 0.99 + 1.5;
        sketch.update(&key, 1.5);
        sums[key as usize] += 1.5;
    }
    for (key, &sum) in sums.iter().enumerate() {
        let estimate = f64::from(sketch.query(&(key as u64)));
        assert!((estimate - sum).abs() <= 1e-4 * sum + 1e-30, "{key}: {estimate} and {sum}");
    }
    assert!((sketch.total() / total - 1.0).abs() < 1e-4);
    // Sketches of different scale merge in true units.
    let mut other = CountMin::<f32>::new(1 << 16, 3, 5).unwrap();
    other.update(&0u64, 10.0);
    other.merge(&sketch).unwrap();
    assert!((f64::from(other.query(&0u64)) / (sums[0] + 10.0) - 1.0).abs() < 1e-4);
    sketch.decay(0.0);
    assert_eq!(sketch.query(&0u64), 0.0);
}

#[test]
fn counters_stop_at_the_end_of_their_range() {
    let mut sketch = CountMin::<u32>::new(4, 2, 1).unwrap();
    sketch.update("key", u32::MAX - 1);
    sketch.update_batch(&["key"; 5]);
    assert_eq!(sketch.query("key"), u32::MAX);
    let mut floats = CountMin::<f32>::new(4, 2, 1).unwrap();
    floats.update("key", f32::INFINITY);
    floats.update("key", f32::MAX);
    floats.update("key", f32::NAN);
    floats.update("key", -5.0);
    assert_eq!(floats.query("key"), f32::MAX);
    assert!(CountMin::<f32>::from_bytes(&floats.to_bytes()).is_ok());
}

#[test]
fn unsound_combinations_are_refused() {
    let empty = CountMin::<u32>::new(8, 2, 1).unwrap();
    let mut fed = empty.clone();
    fed.update("a", 3);
    let mut less = empty.clone();
    assert_eq!(less.subtract(&fed), Err(SketchError::NotAPart));
    assert_eq!(less, empty, "nothing was changed");
    for other in [CountMin::new(9, 2, 1), CountMin::new(8, 3, 1), CountMin::new(8, 2, 2)] {
        let other = other.unwrap();
        assert!(matches!(fed.merge(&other), Err(SketchError::Incompatible { .. })));
        assert!(matches!(fed.subtract(&other), Err(SketchError::Incompatible { .. })));
        assert!(matches!(fed.inner_product(&other), Err(SketchError::Incompatible { .. })));
    }
    let mut conservative = empty.clone();
    conservative.update_conservative("a", 1);
    assert!(matches!(fed.clone().subtract(&conservative), Err(SketchError::NotLinear { .. })));
    assert!(matches!(conservative.inner_product(&fed), Err(SketchError::NotLinear { .. })));
    fed.merge(&conservative).unwrap();
    assert!(fed.query("a") >= 4);
    assert!(matches!(fed.subtract(&empty), Err(SketchError::NotLinear { .. })), "merging spreads it");
    fed.clear();
    assert_eq!(fed, empty);
    let mut halved = empty.clone();
    halved.halve();
    assert!(matches!(halved.subtract(&empty), Err(SketchError::NotLinear { .. })));
}

#[test]
fn impossible_dimensions_are_errors() {
    for (width, depth) in [(0, 1), (1, 0), (1, 65), (1 << 40, 2)] {
        assert!(matches!(CountMin::<u32>::new(width, depth, 1), Err(SketchError::Parameter { .. })));
    }
    // Each within its limits, together more than an address space.
    let wide = VectorCountSketch::new(u32::MAX as usize, 64, 1 << 20, 1);
    assert!(matches!(wide, Err(SketchError::OutOfMemory { .. })));
}

#[test]
fn the_footprint_is_counted_in_full() {
    let sketch = CountMin::<u32>::new(1024, 4, 1).unwrap();
    assert_eq!(sketch.bytes(), 4 * 1024 * 4 + 4 * 24);
}
