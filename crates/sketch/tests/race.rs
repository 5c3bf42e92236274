//! RACE sketches are unbiased for the collision kernel.

mod support;

use proptest::prelude::*;
use sketchkv_sketch::{Projection, Race, SimHash, SketchError, VectorRace};
use support::{Random, angle, assert_mean};

const DIM: usize = 12;

/// Vectors in two loose clusters and some far from both, their weights and values.
fn points(random: &mut Random) -> Vec<(Vec<f32>, f32, Vec<f32>)> {
    let centres = [random.vector(DIM), random.vector(DIM)];
    (0..60)
        .map(|i| {
            let noise = random.vector(DIM);
            let x = match i % 3 {
                2 => noise,
                c => centres[c].iter().zip(&noise).map(|(c, n)| c + 0.4 * n).collect(),
            };
            (x, 0.1 + random.uniform() as f32, random.vector(2))
        })
        .collect()
}

#[test]
fn estimates_are_unbiased_for_the_collision_kernel() {
    let mut random = Random::new(1);
    let points = points(&mut random);
    for query in [&points[0].0, &points[2].0, &random.vector(DIM)] {
        for bits in [1, 3, 6] {
            let (mut density, mut weights, mut values) = (Vec::new(), Vec::new(), Vec::new());
            let mut race = Race::new(4, bits, DIM, 0).unwrap();
            for seed in 0..400 {
                race = Race::new(4, bits, DIM, seed).unwrap();
                let mut vectors = VectorRace::new(4, bits, DIM, 2, seed).unwrap();
                for (x, weight, value) in &points {
                    race.add(x, *weight);
                    vectors.add(x, value, *weight);
                }
                density.push(f64::from(race.query(query)));
                let mut value = [0.0; 2];
                weights.push(f64::from(vectors.query(query, &mut value)));
                values.push(f64::from(value[1]));
            }
            let kernels: Vec<f64> = points
                .iter()
                .map(|(x, weight, _)| f64::from(*weight) * race.kernel(angle(x, query)))
                .collect();
            let expected = kernels.iter().sum();
            let expected_value = kernels.iter().zip(&points).map(|(k, (_, _, v))| k * f64::from(v[1])).sum();
            assert_mean(&density, expected, "density");
            assert_mean(&weights, expected, "weight");
            assert_mean(&values, expected_value, "values");
            // The variance bound of a row: (Σ w √k)².
            let root: f64 = points
                .iter()
                .map(|(x, weight, _)| f64::from(*weight) * race.kernel(angle(x, query)).sqrt())
                .sum();
            let deviation = support::mean(&density).1 * 400.0f64.sqrt();
            assert!(deviation <= root / 2.0 * 1.15, "{deviation} and {root} over √4 rows");
        }
    }
}

#[test]
fn the_standard_error_tells_the_error() {
    let mut random = Random::new(2);
    let points = points(&mut random);
    let query = &points[0].0;
    let race = |seed| {
        let mut race = Race::new(40, 4, DIM, seed).unwrap();
        points.iter().for_each(|(x, weight, _)| race.add(x, *weight));
        race
    };
    let expected: f64 = points.iter().map(|(x, w, _)| f64::from(*w) * race(0).kernel(angle(x, query))).sum();
    let covered = (0..200)
        .filter(|&seed| {
            let (mean, error) = race(seed).query_with_error(query);
            assert!((mean / race(seed).query(query) - 1.0).abs() < 1e-6);
            (f64::from(mean) - expected).abs() <= 2.0 * f64::from(error)
        })
        .count();
    // Two standard errors: 95 of 100 for a normal law, some less for so few rows.
    assert!((175..=199).contains(&covered), "{covered} of 200");
    let robust: Vec<f64> =
        (0..200).map(|seed| f64::from(race(seed).query_median_of_means(query, 5))).collect();
    assert!((support::mean(&robust).0 / expected - 1.0).abs() < 0.1);
}

proptest! {
    #[test]
    fn merging_decaying_and_buckets_agree_with_the_stream(
        seed: u64, rows in 1usize..12, bits in 1usize..10, factor in 0.1f32..1.0,
    ) {
        let mut random = Random::new(seed);
        let points = points(&mut random);
        let (first, second) = points.split_at(25);
        let hash = SimHash::new(DIM, rows * bits, Projection::Orthogonal, seed).unwrap();
        let empty = Race::with_hash(rows, bits, hash.clone()).unwrap();
        let empty_vectors = VectorRace::with_hash(rows, bits, hash, 2).unwrap();
        // All at once, in true units.
        let (mut whole, mut whole_vectors) = (empty.clone(), empty_vectors.clone());
        for (i, (x, weight, value)) in points.iter().enumerate() {
            let weight = if i < 25 { weight * factor } else { *weight };
            whole.add(x, weight);
            whole_vectors.add(x, value, weight);
        }
        // In two parts, the first decayed, the second by its buckets.
        let (mut a, mut va, mut b, mut vb) = (empty.clone(), empty_vectors.clone(), empty, empty_vectors);
        for (x, weight, value) in first {
            a.add(x, *weight);
            va.add(x, value, *weight);
        }
        a.decay(factor);
        va.decay(factor);
        let mut buckets = vec![0; rows];
        for (x, weight, value) in second {
            b.buckets(x, &mut buckets);
            b.add_buckets(&buckets, *weight);
            vb.add_buckets(&buckets, value, *weight);
        }
        a.merge(&b).unwrap();
        va.merge(&vb).unwrap();
        prop_assert!((a.total() - whole.total()).abs() < 1e-3);
        for (x, _, _) in &points {
            a.buckets(x, &mut buckets);
            prop_assert!(buckets.iter().all(|&bucket| bucket < 1 << bits));
            let close = |x: f32, y: f32| (x - y).abs() < 1e-4;
            prop_assert!(close(a.query(x), whole.query(x)));
            prop_assert!(close(a.query_buckets(&buckets), whole.query(x)));
            let (mut u, mut v) = ([0.0; 2], [0.0; 2]);
            prop_assert!(close(va.query(x, &mut u), whole_vectors.query(x, &mut v)));
            prop_assert!(close(u[0], v[0]) && close(u[1], v[1]));
            prop_assert!(close(va.query_buckets(&buckets, &mut v), whole.query(x)));
            prop_assert!(close(u[0], v[0]) && close(u[1], v[1]));
            let of_rows: f32 = (0..rows).map(|row| va.bucket(row, buckets[row]).1.next().unwrap()).sum();
            prop_assert!(close(of_rows / rows as f32, v[0]));
        }
        a.clear();
        prop_assert_eq!(a.query(&points[0].0), 0.0);
        prop_assert_eq!(a.total(), 0.0);
    }
}

#[test]
fn sketches_that_do_not_fit_are_refused() {
    let mut race = Race::new(4, 3, 8, 1).unwrap();
    for other in [Race::new(5, 3, 8, 1), Race::new(4, 2, 8, 1), Race::new(4, 3, 9, 1), Race::new(4, 3, 8, 2)]
    {
        assert!(matches!(race.merge(&other.unwrap()), Err(SketchError::Incompatible { .. })));
    }
    for (rows, bits, dim) in [(0, 1, 1), (1, 0, 1), (1, 25, 1), (5000, 1, 1), (4000, 20, 1), (1, 1, 0)] {
        assert!(matches!(Race::new(rows, bits, dim, 1), Err(SketchError::Parameter { .. })));
    }
    let hash = SimHash::new(8, 13, Projection::Gaussian, 1).unwrap();
    assert!(matches!(Race::with_hash(4, 3, hash), Err(SketchError::Parameter { .. })));
}

#[test]
fn the_footprint_is_counted_in_full_and_shared_directions_once() {
    let hash = SimHash::new(16, 24, Projection::Gaussian, 1).unwrap();
    assert_eq!(hash.bytes(), 16 * 32 * 4 + 16);
    let race = Race::with_hash(4, 6, hash.clone()).unwrap();
    assert_eq!(race.table_bytes(), 4 * 64 * 4);
    assert_eq!(race.bytes(), race.table_bytes() + hash.bytes());
    let vectors = VectorRace::with_hash(4, 6, hash.clone(), 10).unwrap();
    assert_eq!(vectors.table_bytes(), 4 * 64 * 11 * 4);
}
