//! Angles from sign codes, and densities from RACE.

use sketchkv_sketch::{AsymmetricQuery, Projection, Race, SimHash, hamming};

use crate::Outcome;
use crate::random::{Random, dot, root_mean_square};

const DIM: usize = 64;
const PAIRS: u64 = 2000;

pub(crate) fn simhash_table() -> Outcome {
    println!("Vectors of {DIM} floats; root mean square error of the cosine over {PAIRS} pairs and seeds.\n");
    println!(
        "| bits | directions | code against code, θ = 0.4 | 1.0 | 1.5 | vector against code, θ = 0.4 | 1.0 | 1.5 |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for bits in [64, 128, 256] {
        for projection in [Projection::Gaussian, Projection::Orthogonal, Projection::Hadamard] {
            let mut cells = Vec::new();
            for asymmetric in [false, true] {
                for theta in [0.4, 1.0, 1.5] {
                    let errors = (0..PAIRS).map(|seed| cosine(seed, bits, projection, theta, asymmetric));
                    let errors: Vec<f64> = errors.collect::<Result<_, _>>()?;
                    cells.push(format!("{:.3}", root_mean_square(errors.iter().map(|e| e - theta.cos()))));
                }
            }
            println!("| {bits} | {projection:?} | {} |", cells.join(" | "));
        }
    }
    Ok(())
}

/// The cosine estimated for a pair at the angle θ.
fn cosine(
    seed: u64,
    bits: usize,
    projection: Projection,
    theta: f64,
    asymmetric: bool,
) -> Result<f64, Box<dyn std::error::Error>> {
    let (a, b) = Random::new(seed).pair(DIM, theta);
    // A few hundred sets of directions are as good as two thousand.
    let hash = SimHash::new(DIM, bits, projection, seed % 200)?;
    let (mut code_a, mut code_b) = (vec![0; hash.words()], vec![0; hash.words()]);
    hash.encode(&a, &mut code_a);
    hash.encode(&b, &mut code_b);
    if !asymmetric {
        return Ok(hash.angle(hamming(&code_a, &code_b)).cos());
    }
    let query = AsymmetricQuery::new(&hash, &a);
    let mut score = [0.0];
    query.score_many(&code_b, &mut score);
    Ok(f64::from(score[0] * query.cosine_scale()))
}

pub(crate) fn race_table() -> Outcome {
    const POINTS: usize = 2000;
    println!(
        "{POINTS} unit-weight vectors of {DIM} floats in 20 clusters (noise 0.5), queried at 100 fresh points of"
    );
    println!(
        "the clusters. Relative root mean square error of the kernel density, against that of a uniform sample of"
    );
    println!("the vectors of the same bytes with the kernel computed exactly. Mean of 10 seeds.\n");
    println!("| rows | bits | bytes of counters | mean density | RACE | sample of the same bytes |");
    println!("|---|---|---|---|---|---|");
    for (rows, bits) in [(8, 4), (32, 4), (128, 4), (8, 6), (32, 6), (128, 6), (8, 10), (32, 10)] {
        let (mut race_error, mut sample_error, mut density, mut bytes) = (0.0, 0.0, 0.0, 0);
        for seed in 0..10 {
            let mut random = Random::new(seed);
            let centres: Vec<Vec<f32>> = (0..20).map(|_| random.direction(DIM)).collect();
            let mut draw = || {
                let centre = &centres[random.next() as usize % 20];
                let noise = random.direction(DIM);
                centre.iter().zip(&noise).map(|(c, n)| c + 0.5 * n).collect::<Vec<f32>>()
            };
            let points: Vec<Vec<f32>> = (0..POINTS).map(|_| draw()).collect();
            let queries: Vec<Vec<f32>> = (0..100).map(|_| draw()).collect();
            let mut race = Race::new(rows, bits, DIM, seed)?;
            points.iter().for_each(|x| race.add(x, 1.0));
            bytes = race.table_bytes();
            let kernel = |x: &[f32], q: &[f32]| {
                race.kernel((dot(x, q) / (dot(x, x) * dot(q, q)).sqrt()).clamp(-1.0, 1.0).acos())
            };
            let sum = |points: &[Vec<f32>], q: &[f32]| points.iter().map(|x| kernel(x, q)).sum::<f64>();
            // The points are in random order: the first are a uniform sample.
            let sampled = (bytes / (4 * DIM)).clamp(1, POINTS);
            let relative: Vec<(f64, f64, f64)> = queries
                .iter()
                .map(|q| {
                    let truth = sum(&points, q);
                    let sample = sum(&points[..sampled], q) * POINTS as f64 / sampled as f64;
                    (truth, f64::from(race.query(q)) / truth - 1.0, sample / truth - 1.0)
                })
                .collect();
            race_error += root_mean_square(relative.iter().map(|r| r.1)) / 10.0;
            sample_error += root_mean_square(relative.iter().map(|r| r.2)) / 10.0;
            density += relative.iter().map(|r| r.0).sum::<f64>() / 1000.0;
        }
        println!("| {rows} | {bits} | {bytes} | {density:.1} | {race_error:.3} | {sample_error:.3} |");
    }
    Ok(())
}
