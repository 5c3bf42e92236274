//! Counting at equal bytes: Count-Min, its conservative form, Count-Sketch and Space-Saving.

use std::collections::HashMap;

use sketchkv_sketch::{CountMin, CountSketch, SpaceSaving};

use crate::Outcome;
use crate::random::{Random, zipf};

const BYTES: usize = 16 << 10;
const SEEDS: u64 = 10;
const TOP: usize = 100;

/// Mean absolute error over all keys and over the most frequent, and how many of those are found again.
#[derive(Default)]
struct Errors {
    all: f64,
    top: f64,
    found: f64,
}

fn errors(counts: &[(u64, u64)], estimate: impl Fn(u64) -> f64) -> Errors {
    let mut ranked: Vec<(f64, u64, f64)> = counts
        .iter()
        .map(|&(key, count)| {
            let estimate = estimate(key);
            (estimate, key, (estimate - count as f64).abs())
        })
        .collect();
    let mean = |part: &[(f64, u64, f64)]| part.iter().map(|entry| entry.2).sum::<f64>() / part.len() as f64;
    let (all, top) = (mean(&ranked), mean(&ranked[..TOP]));
    let threshold = counts[TOP - 1].1;
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let true_count: HashMap<u64, u64> = counts.iter().copied().collect();
    let found = ranked[..TOP].iter().filter(|entry| true_count[&entry.1] >= threshold).count();
    Errors { all, top, found: found as f64 / TOP as f64 }
}

pub(crate) fn table() -> Outcome {
    println!("100,000 draws from 20,000 keys; every sketch within {BYTES} bytes; mean of {SEEDS} seeds.\n");
    println!("| keys | sketch | mean error, all keys | mean error, top {TOP} | top {TOP} found |");
    println!("|---|---|---|---|---|");
    for exponent in [0.0, 0.8, 1.1, 1.5] {
        let mut totals: Vec<(String, Errors)> = Vec::new();
        for seed in 0..SEEDS {
            let stream = zipf(&mut Random::new(seed), 100_000, 20_000, exponent);
            for (i, (name, errors)) in one(&stream, seed)?.into_iter().enumerate() {
                if totals.len() == i {
                    totals.push((name, Errors::default()));
                }
                let total = &mut totals[i].1;
                total.all += errors.all / SEEDS as f64;
                total.top += errors.top / SEEDS as f64;
                total.found += errors.found / SEEDS as f64;
            }
        }
        for (name, Errors { all, top, found }) in totals {
            println!("| Zipf {exponent} | {name} | {all:.2} | {top:.2} | {:.0} % |", 100.0 * found);
        }
    }
    Ok(())
}

fn one(stream: &[u64], seed: u64) -> Result<Vec<(String, Errors)>, Box<dyn std::error::Error>> {
    let mut counts: HashMap<u64, u64> = HashMap::new();
    stream.iter().for_each(|&key| *counts.entry(key).or_default() += 1);
    let mut counts: Vec<(u64, u64)> = counts.into_iter().collect();
    counts.sort_unstable_by_key(|&(key, count)| (std::cmp::Reverse(count), key));

    let (depth, width) = (4, BYTES / 16);
    let mut plain = CountMin::<u32>::new(width, depth, seed)?;
    let mut conservative = CountMin::<u32>::new(width, depth, seed)?;
    let mut signed = CountSketch::<i32>::new(BYTES / 20, 5, seed)?;
    // The largest summary within the bytes.
    let capacity =
        (1..).take_while(|&n| SpaceSaving::<u64, u32>::new(n, 0).is_ok_and(|s| s.bytes() <= BYTES)).last();
    let capacity = capacity.ok_or("no Space-Saving summary is that small")?;
    let mut saving = SpaceSaving::<u64, u32>::new(capacity, seed)?;
    plain.update_batch(stream);
    signed.update_batch(stream);
    for &key in stream {
        conservative.update_conservative(&key, 1);
        saving.update(key, 1);
    }
    Ok(vec![
        (format!("Count-Min {depth} x {width}"), errors(&counts, |key| f64::from(plain.query(&key)))),
        ("the same, conservative".into(), errors(&counts, |key| f64::from(conservative.query(&key)))),
        (format!("Count-Sketch 5 x {}", BYTES / 20), errors(&counts, |key| f64::from(signed.query(&key)))),
        (
            format!("Space-Saving, {capacity} keys"),
            errors(&counts, |key| saving.get(&key).map_or(0.0, |hitter| f64::from(hitter.count))),
        ),
    ])
}
