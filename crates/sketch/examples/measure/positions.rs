//! Count-Min over live positions: what it costs to keep a score per token in a sketch instead of an array.

use sketchkv_sketch::CountMin;

use crate::Outcome;
use crate::random::Random;

const TOKENS: usize = 4096;
const SEEDS: u64 = 10;

/// Accumulated attention of tokens: few large, most small (log-normal, σ = 2: the top tenth has 76 % of the mass).
fn scores(random: &mut Random) -> Vec<f32> {
    (0..TOKENS).map(|_| (2.0 * random.normal()).exp()).collect()
}

/// The share of the `keep` best tokens that the estimates rank among their `keep` best.
fn agreement(scores: &[f32], estimates: &[f32], keep: usize) -> f64 {
    let best = |values: &[f32]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        order.truncate(keep);
        order.sort_unstable();
        order
    };
    let (truth, guess) = (best(scores), best(estimates));
    guess.iter().filter(|token| truth.binary_search(token).is_ok()).count() as f64 / keep as f64
}

pub(crate) fn table() -> Outcome {
    let exact = TOKENS * size_of::<f32>();
    println!("{TOKENS} live tokens with one score each; an array of the scores takes {exact} bytes.");
    println!("Mean of {SEEDS} seeds.\n");
    println!(
        "| store | bytes | of the array | mean error / mean score | kept right, of 25 % | kept right, of 6 % |"
    );
    println!("|---|---|---|---|---|---|");
    println!("| array | {exact} | 1 | 0 | 100 % | 100 % |");
    for (width, depth) in
        [(256, 4), (512, 2), (512, 4), (1024, 2), (1024, 4), (2048, 2), (4096, 2), (4096, 4)]
    {
        let (mut bytes, mut error, mut quarter, mut sixteenth) = (0, 0.0, 0.0, 0.0);
        for seed in 0..SEEDS {
            let scores = scores(&mut Random::new(seed));
            let positions: Vec<u64> = (0..TOKENS as u64).collect();
            let mut sketch = CountMin::<f32>::new(width, depth, seed)?;
            sketch.update_batch_weighted(&positions, &scores);
            let mut estimates = vec![0.0; TOKENS];
            sketch.query_batch(&positions, &mut estimates);
            let over: f64 = estimates.iter().zip(&scores).map(|(e, s)| f64::from(e - s)).sum();
            error += over / scores.iter().map(|&s| f64::from(s)).sum::<f64>() / SEEDS as f64;
            quarter += agreement(&scores, &estimates, TOKENS / 4) / SEEDS as f64;
            sixteenth += agreement(&scores, &estimates, TOKENS / 16) / SEEDS as f64;
            bytes = sketch.bytes();
        }
        println!(
            "| Count-Min {depth} x {width} | {bytes} | {:.2} | {error:.2} | {:.0} % | {:.0} % |",
            bytes as f64 / exact as f64,
            100.0 * quarter,
            100.0 * sixteenth
        );
    }
    Ok(())
}
