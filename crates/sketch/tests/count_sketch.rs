//! The theorems on Count-Sketches, of numbers and of vectors.

mod support;

use proptest::prelude::*;
use sketchkv_sketch::{CountSketch, VectorCountSketch, params};
use support::{Random, assert_mean, dot, exact, most_failures, streams, unit};

fn stream() -> impl Strategy<Value = Vec<(u64, i32)>> {
    prop::collection::vec((0u64..40, -1000i32..1000), 0..300)
}

fn fed(parts: &[&[(u64, i32)]], width: usize, depth: usize, seed: u64) -> CountSketch<i64> {
    let mut sketch = CountSketch::new(width, depth, seed).unwrap();
    for &(key, amount) in parts.iter().copied().flatten() {
        sketch.update(&key, i64::from(amount));
    }
    sketch
}

proptest! {
    #[test]
    fn merging_is_sketching_the_concatenation(
        a in stream(), b in stream(), width in 1usize..30, depth in 1usize..10, seed: u64,
    ) {
        let mut merged = fed(&[&a], width, depth, seed);
        merged.merge(&fed(&[&b], width, depth, seed)).unwrap();
        prop_assert_eq!(&merged, &fed(&[&a, &b], width, depth, seed));
        merged.subtract(&fed(&[&a], width, depth, seed)).unwrap();
        prop_assert_eq!(&merged, &fed(&[&b], width, depth, seed));
    }

    #[test]
    fn batches_are_single_updates(a in stream(), width in 1usize..30, depth in 1usize..10, seed: u64) {
        let (keys, amounts): (Vec<u64>, Vec<i64>) = a.iter().map(|&(key, amount)| (key, i64::from(amount))).unzip();
        let single = fed(&[&a], width, depth, seed);
        let mut batch = CountSketch::<i64>::new(width, depth, seed).unwrap();
        batch.update_batch_weighted(&keys, &amounts);
        prop_assert_eq!(&batch, &single);
        let mut estimates = vec![0; keys.len()];
        batch.query_hash_batch(&keys, &mut estimates);
        for (key, estimate) in keys.iter().zip(estimates) {
            prop_assert_eq!(estimate, single.query(key));
        }
    }

    #[test]
    fn what_was_added_and_taken_away_again_is_nothing(a in stream(), depth in 1usize..10, seed: u64) {
        let mut sketch = fed(&[&a], 16, depth, seed);
        for &(key, amount) in a.iter().rev() {
            sketch.update(&key, -i64::from(amount));
        }
        prop_assert_eq!(sketch, CountSketch::new(16, depth, seed).unwrap());
    }
}

#[test]
fn a_row_is_unbiased_with_the_variance_of_the_theorem() {
    const SEEDS: u64 = 3000;
    for (name, stream) in streams(1) {
        let counts = exact(&stream);
        let squares: f64 = counts.values().map(|&count| (count as f64).powi(2)).sum();
        let (&key, &count) = counts.iter().max_by_key(|&(key, count)| (count, key)).unwrap();
        let width = 50;
        let (mut estimates, mut norms, mut deviations) = (Vec::new(), Vec::new(), Vec::new());
        for seed in 0..SEEDS {
            let mut sketch = CountSketch::<i64>::new(width, 1, seed).unwrap();
            for (&key, &count) in &counts {
                sketch.update_hash(key, count as i64);
            }
            let estimate = sketch.query(&key) as f64;
            estimates.push(estimate);
            deviations.push((estimate - count as f64).powi(2));
            norms.push(sketch.l2_norm().powi(2));
        }
        assert_mean(&estimates, count as f64, name);
        // Var = (‖f‖₂² - f(x)²) / width, exactly; and E of the squared norm is ‖f‖₂².
        assert_mean(&deviations, (squares - (count as f64).powi(2)) / width as f64, name);
        assert_mean(&norms, squares, name);
    }
}

#[test]
fn errors_stay_within_the_l2_bound_but_for_its_probability() {
    const SEEDS: usize = 400;
    for (name, stream) in streams(2) {
        let counts = exact(&stream);
        let norm = counts.values().map(|&count| (count as f64).powi(2)).sum::<f64>().sqrt();
        let probes: Vec<u64> = counts.keys().copied().take(5).chain([u64::MAX]).collect();
        for (width, depth, epsilon) in [(64, 1, 0.25), (64, 3, 0.2), (100, 5, 0.15)] {
            let mut failures = vec![0; probes.len()];
            let bound = params::count_sketch_failure(width, depth, epsilon);
            for seed in 0..SEEDS as u64 {
                let mut sketch = CountSketch::<i32>::new(width, depth, seed).unwrap();
                assert_eq!(sketch.failure_probability(epsilon), bound);
                for (&key, &count) in &counts {
                    sketch.update_hash(key, count as i32);
                }
                for (failures, key) in failures.iter_mut().zip(&probes) {
                    let error = f64::from(sketch.query(key)) - counts.get(key).copied().unwrap_or(0) as f64;
                    *failures += usize::from(error.abs() > epsilon * norm);
                }
            }
            let allowed = most_failures(SEEDS, bound);
            assert!(
                failures.iter().all(|&n| n <= allowed),
                "{name}, {width} x {depth}: {failures:?} > {allowed}"
            );
        }
    }
}

#[test]
fn inner_products_are_unbiased() {
    let mut random = Random::new(3);
    let (a, b): (Vec<i64>, Vec<i64>) =
        (0..200).map(|_| ((random.next() % 21) as i64 - 10, (random.next() % 21) as i64 - 7)).unzip();
    let product: i64 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
    let estimates: Vec<f64> = (0..2000)
        .map(|seed| {
            let mut sketches =
                [CountSketch::<i64>::new(20, 1, seed).unwrap(), CountSketch::new(20, 1, seed).unwrap()];
            for (sketch, amounts) in sketches.iter_mut().zip([&a, &b]) {
                amounts.iter().zip(0u64..).for_each(|(&amount, key)| sketch.update(&key, amount));
            }
            sketches[0].inner_product(&sketches[1]).unwrap()
        })
        .collect();
    assert_mean(&estimates, product as f64, "inner product");
}

#[test]
fn decay_is_the_exactly_decayed_stream() {
    let mut sketch = CountSketch::<f32>::new(1 << 14, 3, 5).unwrap();
    let mut vectors = VectorCountSketch::new(1 << 14, 3, 2, 5).unwrap();
    let mut sums = [0.0f64; 20];
    for step in 0..10_000u64 {
        sketch.decay(0.98);
        vectors.decay(0.98);
        sums.iter_mut().for_each(|sum| *sum *= 0.98);
        let amount = if step % 3 == 0 { -0.5 } else { 2.0 };
        sketch.update(&(step % 20), amount);
        vectors.update(&(step % 20), &[1.0, -2.0], amount);
        sums[(step % 20) as usize] += f64::from(amount);
    }
    for (key, &sum) in (0u64..).zip(&sums) {
        let close =
            |x: f32, y: f64| assert!((f64::from(x) - y).abs() <= 1e-4 * y.abs(), "{key}: {x} and {y}");
        close(sketch.query(&key), sum);
        let mut out = [0.0; 2];
        vectors.reconstruct(&key, &mut out);
        close(out[0], sum);
        close(out[1], -2.0 * sum);
    }
}

#[test]
fn vectors_are_reconstructed_without_bias_and_with_the_cosine_of_the_formula() {
    const DIM: usize = 32;
    let mut random = Random::new(4);
    for (n, width) in [(100, 400), (100, 100), (200, 50)] {
        let vectors: Vec<Vec<f32>> = (0..n).map(|_| unit(&random.vector(DIM))).collect();
        let (mut cosines, mut along, mut noise) = (Vec::new(), Vec::new(), Vec::new());
        for seed in 0..300 {
            let mut sketch = VectorCountSketch::new(width, 1, DIM, seed).unwrap();
            for (key, vector) in (0u64..).zip(&vectors) {
                sketch.update_hash(key, vector, 1.0);
            }
            let mut out = vec![0.0; DIM];
            sketch.reconstruct_hash(seed % n as u64, &mut out);
            let wanted = &vectors[seed as usize % n];
            along.push(dot(wanted, &out));
            cosines.push(dot(wanted, &out) / dot(&out, &out).sqrt());
            let error: Vec<f32> = wanted.iter().zip(&out).map(|(a, b)| a - b).collect();
            noise.push(dot(&error, &error));
        }
        // ⟨x, estimate⟩ = 1 in the mean, and E ‖estimate - x‖² = (n - 1) / width.
        assert_mean(&along, 1.0, "projection on the stored vector");
        assert_mean(&noise, (n as f64 - 1.0) / width as f64, "squared error");
        let (cosine, _) = support::mean(&cosines);
        let predicted = params::reconstruction_cosine(n, width);
        // The formula is the cosine at the mean noise; by Jensen the mean cosine lies above it.
        assert!((predicted - 0.01..predicted + 0.12).contains(&cosine), "{n}/{width}: {cosine}, {predicted}");
    }
}

#[test]
fn a_vector_is_a_scalar_sketch_in_every_coordinate() {
    let mut random = Random::new(5);
    let mut vectors = VectorCountSketch::new(10, 4, 3, 9).unwrap();
    let mut scalars = [(); 3].map(|()| VectorCountSketch::new(10, 4, 1, 9).unwrap());
    for key in 0..40u64 {
        let vector = random.vector(3);
        vectors.update_hash(key, &vector, 0.5);
        for (scalar, x) in scalars.iter_mut().zip(&vector) {
            scalar.update_hash(key, &[*x], 0.5);
        }
    }
    let keys: Vec<u64> = (0..40).collect();
    let mut all = vec![0.0; 120];
    vectors.reconstruct_hash_batch(&keys, &mut all);
    for (key, out) in keys.iter().zip(all.chunks(3)) {
        for (scalar, x) in scalars.iter().zip(out) {
            let mut one = [0.0];
            scalar.reconstruct_hash(*key, &mut one);
            assert_eq!(one[0], *x);
        }
    }
    let mut batch = VectorCountSketch::new(10, 4, 3, 9).unwrap();
    batch.update_hash_batch(&keys, &all, &[1.0; 40]);
    let mut single = VectorCountSketch::new(10, 4, 3, 9).unwrap();
    keys.iter().zip(all.chunks(3)).for_each(|(&key, vector)| single.update_hash(key, vector, 1.0));
    assert_eq!(batch, single);
    batch.merge(&vectors).unwrap();
    batch.subtract(&single).unwrap();
    let (mut a, mut b) = ([0.0; 3], [0.0; 3]);
    batch.reconstruct_hash(7, &mut a);
    vectors.reconstruct_hash(7, &mut b);
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} {b:?}");
}
