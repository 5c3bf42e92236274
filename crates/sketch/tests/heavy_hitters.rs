//! Space-Saving and top-k summaries against exact counts.

mod support;

use proptest::prelude::*;
use sketchkv_sketch::{CountMin, CountSketch, SketchError, SpaceSaving, TopK};
use support::{Random, exact, streams, zipf};

proptest! {
    #[test]
    fn space_saving_bounds_hold_with_certainty(
        a in prop::collection::vec((0u64..50, 0u64..20), 0..400),
        b in prop::collection::vec((0u64..50, 0u64..20), 0..400),
        capacity in 1usize..40, seed: u64,
    ) {
        let fed = |parts: &[&[(u64, u64)]]| {
            let mut summary = SpaceSaving::<u64, u64>::new(capacity, seed).unwrap();
            parts.iter().copied().flatten().for_each(|&(key, amount)| summary.update(key, amount));
            summary
        };
        let sum = |parts: &[&[(u64, u64)]], key: u64| -> u64 {
            parts.iter().copied().flatten().filter(|(k, _)| *k == key).map(|(_, amount)| amount).sum()
        };
        let mut merged = fed(&[&a]);
        merged.merge(&fed(&[&b])).unwrap();
        for (summary, parts) in [(fed(&[&a]), vec![&a[..]]), (merged, vec![&a[..], &b[..]])] {
            prop_assert!(summary.len() <= capacity);
            prop_assert!(summary.floor() as f64 <= summary.error_bound());
            for key in 0..50 {
                let sum = sum(&parts, key);
                prop_assert!(summary.query(&key) >= sum);
                if let Some(hitter) = summary.get(&key) {
                    prop_assert!(hitter.count - hitter.error <= sum);
                    prop_assert!((hitter.error as f64) <= summary.error_bound());
                }
                if sum as f64 > summary.error_bound() {
                    prop_assert!(summary.get(&key).is_some(), "every heavy key is kept");
                }
            }
            let found: Vec<u64> = summary.heavy_hitters(0.2).iter().map(|hitter| *hitter.key).collect();
            for key in 0..50 {
                let heavy = sum(&parts, key) as f64 >= 0.2 * summary.total() && summary.total() > 0.0;
                prop_assert!(!heavy || capacity < 5 || found.contains(&key));
            }
        }
    }

    #[test]
    fn top_k_over_a_wide_sketch_is_exact(
        stream in prop::collection::vec((0u64..60, 1u32..9), 1..300), k in 1usize..20, seed: u64,
    ) {
        let mut top = TopK::new(CountMin::<u32>::new(1 << 16, 4, seed).unwrap(), k).unwrap();
        let mut halves = [top.clone(), top.clone()];
        for (i, &(key, amount)) in stream.iter().enumerate() {
            top.update(key, amount);
            halves[i % 2].update(key, amount);
        }
        let mut sums = [0u32; 60];
        stream.iter().for_each(|&(key, amount)| sums[key as usize] += amount);
        let mut expected: Vec<u32> = sums.iter().copied().filter(|&sum| sum > 0).collect();
        expected.sort_unstable_by(|a, b| b.cmp(a));
        expected.truncate(k);
        let counts: Vec<u32> = top.top().iter().map(|(_, count)| *count).collect();
        prop_assert_eq!(&counts, &expected);
        for (key, count) in top.top() {
            prop_assert_eq!(count, sums[*key as usize]);
            prop_assert_eq!(count, top.query(key));
        }
        let [mut merged, other] = halves;
        merged.merge(&other).unwrap();
        prop_assert_eq!(merged.sketch(), top.sketch());
        prop_assert!(merged.top().len() <= k);
        if k >= 60 {
            prop_assert_eq!(merged.top(), top.top());
        }
    }
}

#[test]
fn no_heavy_hitter_of_a_hard_stream_is_missed() {
    for (name, stream) in streams(1) {
        let counts = exact(&stream);
        for seed in 0..20 {
            let mut top = TopK::new(CountMin::<u32>::for_error(0.005, 0.01, seed).unwrap(), 200).unwrap();
            let mut signed = TopK::new(CountSketch::<i32>::new(600, 5, seed).unwrap(), 200).unwrap();
            let mut saving = SpaceSaving::<u64, u32>::new(200, seed).unwrap();
            for &key in &stream {
                top.update(key, 1);
                signed.update(key, 1);
                saving.update(key, 1);
            }
            let share = 0.02;
            let norm = counts.values().map(|&count| (count as f64).powi(2)).sum::<f64>().sqrt();
            let found: Vec<u64> = top.heavy_hitters(share).iter().map(|(key, _)| **key).collect();
            let saved: Vec<u64> = saving.heavy_hitters(share).iter().map(|hitter| *hitter.key).collect();
            let by_norm: Vec<u64> = signed.heavy_hitters(0.3).iter().map(|(key, _)| **key).collect();
            for (key, &count) in &counts {
                if count as f64 >= share * stream.len() as f64 {
                    assert!(found.contains(key), "{name}: {key} with {count}");
                    assert!(saved.contains(key), "{name}: {key} with {count}");
                }
                if count as f64 >= 0.45 * norm {
                    assert!(by_norm.contains(key), "{name}: {key} with {count} of norm {norm}");
                }
            }
        }
    }
}

#[test]
fn top_k_follows_a_decaying_sketch() {
    let mut top = TopK::new(CountMin::<f32>::new(1024, 4, 3).unwrap(), 3).unwrap();
    for key in ["old", "older", "oldest"] {
        top.update(key, 100.0);
    }
    for _ in 0..200 {
        top.sketch_mut().decay(0.9);
        for key in ["new", "newer", "newest"] {
            top.update(key, 1.0);
        }
    }
    let mut kept: Vec<&str> = top.top().iter().map(|(key, _)| **key).collect();
    kept.sort_unstable();
    assert_eq!(kept, ["new", "newer", "newest"]);
}

#[test]
fn string_keys_are_found_by_str() {
    let mut saving = SpaceSaving::<String, u64>::new(4, 1).unwrap();
    let mut top = TopK::<String, _>::new(CountMin::<u64>::new(64, 3, 1).unwrap(), 4).unwrap();
    saving.update("word".to_string(), 5);
    top.update("word".to_string(), 5);
    assert_eq!(saving.get("word").unwrap().count, 5);
    assert_eq!(saving.query("other"), 0);
    assert_eq!(top.query("word"), 5);
}

#[test]
fn footprints_are_fixed_from_the_start() {
    let mut saving = SpaceSaving::<u64, u32>::new(100, 1).unwrap();
    let mut top = TopK::new(CountMin::<u32>::new(64, 2, 1).unwrap(), 100).unwrap();
    let before = (saving.bytes(), top.bytes());
    for key in zipf(&mut Random::new(1), 10_000, 5000, 1.0) {
        saving.update(key, 1);
        top.update(key, 1);
    }
    assert_eq!((saving.bytes(), top.bytes()), before);
    assert_eq!((saving.len(), top.top().len()), (100, 100));
}

#[test]
fn impossible_sizes_and_unlike_partners_are_errors() {
    assert!(matches!(SpaceSaving::<u64, u64>::new(0, 1), Err(SketchError::Parameter { .. })));
    assert!(TopK::<u64, _>::new(CountMin::<u32>::new(8, 2, 1).unwrap(), 0).is_err());
    let mut a = SpaceSaving::<u64, u64>::new(5, 1).unwrap();
    assert!(a.merge(&SpaceSaving::new(6, 1).unwrap()).is_err());
    assert!(a.merge(&SpaceSaving::new(5, 2).unwrap()).is_err());
    let mut a = TopK::<u64, _>::new(CountMin::<u32>::new(8, 2, 1).unwrap(), 5).unwrap();
    assert!(a.merge(&TopK::new(CountMin::new(8, 2, 2).unwrap(), 5).unwrap()).is_err());
}
