//! The laws of sign codes.

mod support;

use std::f64::consts::PI;

use proptest::prelude::*;
use sketchkv_sketch::{AsymmetricQuery, Projection, SimHash, SketchError, hamming, hamming_many, params};
use support::{Random, assert_mean, dot, mean};

const ALL: [Projection; 3] = [Projection::Gaussian, Projection::Orthogonal, Projection::Hadamard];

fn code(hash: &SimHash, x: &[f32]) -> Vec<u64> {
    let mut code = vec![0; hash.words()];
    hash.encode(x, &mut code);
    code
}

#[test]
fn codes_collide_with_the_probability_of_the_angle() {
    const SEEDS: u64 = 2000;
    let mut random = Random::new(1);
    for theta in [0.2, 0.8, PI / 2.0, 2.5] {
        let (a, b) = random.pair(24, theta);
        for bits in [1, 4, 8] {
            let agree: Vec<f64> = (0..SEEDS)
                .map(|seed| {
                    let hash = SimHash::new(24, bits, Projection::Gaussian, seed).unwrap();
                    f64::from(u8::from(code(&hash, &a) == code(&hash, &b)))
                })
                .collect();
            let expected = SimHash::collision_probability(theta, bits);
            let error = (expected * (1.0 - expected) / SEEDS as f64).sqrt();
            let rate = agree.iter().sum::<f64>() / SEEDS as f64;
            assert!(
                (rate - expected).abs() <= 5.0 * error,
                "{theta}, {bits} bits: {rate}, expected {expected}"
            );
        }
    }
}

#[test]
fn every_projection_estimates_the_angle() {
    let mut random = Random::new(2);
    for theta in [0.3, 1.2, 2.4] {
        let mut deviation = Vec::new();
        for projection in ALL {
            let angles: Vec<f64> = (0..600)
                .map(|seed| {
                    // A fresh pair a seed, for the Hadamard projection is random only over signs.
                    let (a, b) = random.pair(32, theta);
                    let hash = SimHash::new(32, 32, projection, seed).unwrap();
                    hash.angle(hamming(&code(&hash, &a), &code(&hash, &b)))
                })
                .collect();
            assert_mean(&angles, theta, &format!("{projection:?}"));
            deviation.push(mean(&angles).1);
        }
        // Independent bits have the deviation of a binomial; orthogonal ones have less.
        let p = theta / PI;
        let binomial = PI * (p * (1.0 - p) / 32.0 / 600.0).sqrt();
        assert!((deviation[0] / binomial - 1.0).abs() < 0.2, "{deviation:?}, {binomial}");
        assert!(deviation[1] < 0.95 * deviation[0], "orthogonal directions spread less: {deviation:?}");
    }
}

#[test]
fn suggested_bits_keep_the_angle_within_the_error() {
    let mut random = Random::new(3);
    let (error, delta) = (0.3, 0.05);
    let bits = params::simhash_bits(error, delta).unwrap();
    let failures = (0..300)
        .filter(|&seed| {
            let (a, b) = random.pair(16, 1.3);
            let hash = SimHash::new(16, bits, Projection::Gaussian, seed).unwrap();
            (hash.angle(hamming(&code(&hash, &a), &code(&hash, &b))) - 1.3).abs() > error
        })
        .count();
    assert!(failures <= support::most_failures(300, delta));
}

#[test]
fn asymmetric_scores_estimate_the_inner_product() {
    let mut random = Random::new(4);
    for projection in ALL {
        for theta in [0.4, 1.5, 2.7] {
            let (mut asymmetric, mut symmetric) = (Vec::new(), Vec::new());
            for seed in 0..800 {
                let (a, b) = random.pair(64, theta);
                let hash = SimHash::new(64, 64, projection, seed).unwrap();
                let mut query = a.clone();
                query.iter_mut().for_each(|x| *x *= 3.0);
                let query = AsymmetricQuery::new(&hash, &query);
                let code_b = code(&hash, &b);
                let mut score = [0.0];
                query.score_many(&code_b, &mut score);
                asymmetric.push(f64::from(score[0] * query.cosine_scale()));
                symmetric.push(3.0 * hash.angle(hamming(&code(&hash, &a), &code_b)).cos());
            }
            let what = format!("{projection:?} at {theta}");
            if projection == Projection::Gaussian {
                assert_mean(&asymmetric, 3.0 * theta.cos(), &what);
            } else {
                // Unit directions in few dimensions: E |x_1| is √(2/πd) only up to 1/(4d).
                assert!(
                    (mean(&asymmetric).0 - 3.0 * theta.cos()).abs() < 0.06,
                    "{what}: {:?}",
                    mean(&asymmetric)
                );
            }
            // Near right angles a real query loses less than its code; at small angles codes know the cosine better.
            if theta == 1.5 {
                assert!(mean(&asymmetric).1 < 0.95 * mean(&symmetric).1, "{what}");
            }
        }
    }
}

#[test]
fn directions_are_as_they_are_described() {
    for (projection, dim, bits) in [(Projection::Orthogonal, 24, 24), (Projection::Hadamard, 32, 32)] {
        let hash = SimHash::new(dim, bits, projection, 7).unwrap();
        let columns: Vec<Vec<f32>> = (0..dim)
            .map(|i| {
                let mut x = vec![0.0; dim];
                x[i] = 1.0;
                let mut out = vec![0.0; bits];
                hash.project(&x, &mut out);
                out
            })
            .collect();
        for i in 0..dim {
            for j in 0..dim {
                let expected = if i == j { dim as f64 } else { 0.0 };
                assert!(
                    (dot(&columns[i], &columns[j]) - expected).abs() < 1e-3 * dim as f64,
                    "{projection:?}"
                );
            }
        }
    }
    // E ⟨r, x⟩² = ‖x‖² for all, padded and many groups included.
    let mut random = Random::new(8);
    for projection in ALL {
        for (dim, bits) in [(5, 64), (20, 100), (64, 64), (100, 40)] {
            let squares: Vec<f64> = (0..400)
                .map(|seed| {
                    let x = support::unit(&random.vector(dim));
                    let mut out = vec![0.0; bits];
                    SimHash::new(dim, bits, projection, seed).unwrap().project(&x, &mut out);
                    dot(&out, &out) / bits as f64
                })
                .collect();
            assert_mean(&squares, 1.0, &format!("{projection:?}, {dim} to {bits}"));
        }
    }
}

proptest! {
    #[test]
    fn a_code_is_the_signs_of_the_projections(
        dim in 1usize..150, bits in 1usize..300, kind in 0usize..3, seed: u64, scale in 0.001f32..1000.0,
    ) {
        let hash = SimHash::new(dim, bits, ALL[kind], seed).unwrap();
        let mut random = Random::new(seed);
        let xs: Vec<f32> = (0..3 * dim).map(|_| random.normal()).collect();
        let mut codes = vec![0; 3 * hash.words()];
        hash.encode_many(&xs, &mut codes);
        for (x, code) in xs.chunks(dim).zip(codes.chunks(hash.words())) {
            let mut out = vec![0.0; bits];
            hash.project(x, &mut out);
            for j in 0..64 * hash.words() {
                let set = code[j / 64] >> (j % 64) & 1 == 1;
                prop_assert_eq!(set, j < bits && out[j] >= 0.0, "bit {}", j);
            }
            // Codes know directions only.
            let scaled: Vec<f32> = x.iter().map(|x| x * scale).collect();
            let mut other = vec![0; hash.words()];
            hash.encode(&scaled, &mut other);
            let close = out.iter().filter(|x| x.abs() < 1e-4).count() as u32;
            prop_assert!(hamming(code, &other) <= close);
        }
        prop_assert_eq!(&SimHash::new(dim, bits, ALL[kind], seed).unwrap(), &hash, "a seed decides");
        prop_assert_ne!(&SimHash::new(dim, bits, ALL[kind], seed ^ 1).unwrap(), &hash);
    }

    #[test]
    fn batched_distances_and_scores_are_the_single_ones(
        words in 1usize..5, n in 0usize..70, seed: u64, cut in 0usize..63,
    ) {
        let mut random = Random::new(seed);
        let codes: Vec<u64> = (0..n * words).map(|_| random.next()).collect();
        let query: Vec<u64> = (0..words).map(|_| random.next()).collect();
        let mut distances = vec![0; n];
        hamming_many(&query, &codes, &mut distances);
        let y = random.vector(64 * words - cut);
        let mut scores = vec![0.0; n];
        AsymmetricQuery::from_projections(&y).score_many(&codes, &mut scores);
        for (i, code) in codes.chunks(words).enumerate() {
            prop_assert_eq!(distances[i], hamming(&query, code));
            let sign = |j: usize| if code[j / 64] >> (j % 64) & 1 == 1 { 1.0 } else { -1.0 };
            let expected: f64 = y.iter().enumerate().map(|(j, &y)| f64::from(y) * sign(j)).sum();
            prop_assert!((f64::from(scores[i]) - expected).abs() < 1e-4);
        }
    }
}

#[test]
fn impossible_dimensions_are_errors() {
    for (dim, bits) in [(0, 1), (1, 0), (1 << 21, 1), (1, 70_000)] {
        for projection in ALL {
            assert!(matches!(SimHash::new(dim, bits, projection, 1), Err(SketchError::Parameter { .. })));
        }
    }
}
