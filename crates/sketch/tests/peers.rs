//! Against Apache DataSketches, where it has the same sketch: at equal bytes our errors are no larger.

mod support;

use datasketches::countmin::CountMinSketch;
use datasketches::frequencies::FrequentItemsSketch;
use sketchkv_sketch::{CountMin, SpaceSaving};
use support::{Random, exact, streams, zipf};

/// Mean error over all keys of a stream, for one seed each.
fn errors(stream: &[u64], seed: u64, width: usize, depth: usize) -> (f64, f64, f64) {
    let mut theirs = CountMinSketch::<u32>::with_seed(depth as u8, width as u32, seed).unwrap();
    stream.iter().for_each(|&key| theirs.update(key));
    let mut ours = CountMin::<u32>::new(width, depth, seed).unwrap();
    ours.update_batch(stream);
    let mut conservative = CountMin::<u32>::new(width, depth, seed).unwrap();
    stream.iter().for_each(|key| conservative.update_conservative(key, 1));
    // Equal tables; what is left of the footprint is the hash functions.
    assert_eq!(ours.bytes() - 24 * depth, 4 * width * depth);
    let counts = exact(stream);
    let mean = |estimate: &dyn Fn(u64) -> f64| {
        counts.iter().map(|(&key, &count)| estimate(key) - count as f64).sum::<f64>() / counts.len() as f64
    };
    (
        mean(&|key| f64::from(theirs.estimate(key))),
        mean(&|key| f64::from(ours.query(&key))),
        mean(&|key| f64::from(conservative.query(&key))),
    )
}

#[test]
fn count_min_errors_are_no_larger() {
    const SEEDS: u64 = 40;
    for (name, stream) in streams(1) {
        for (width, depth) in [(64, 2), (256, 4), (300, 3)] {
            let (mut theirs, mut ours, mut conservative) = (Vec::new(), Vec::new(), Vec::new());
            for seed in 0..SEEDS {
                let (t, o, c) = errors(&stream, seed + 1, width, depth);
                theirs.push(t);
                ours.push(o);
                conservative.push(c);
            }
            let ((t, t_error), (o, o_error)) = (support::mean(&theirs), support::mean(&ours));
            let (c, _) = support::mean(&conservative);
            // Both families are random: equal within the errors of the means over the seeds.
            let noise = 4.0 * t_error.hypot(o_error);
            assert!(
                o <= t + noise,
                "{name}, {width} x {depth}: ours {o} ± {o_error}, theirs {t} ± {t_error}"
            );
            assert!(c <= o && (c < 0.9 * t || t < 0.5), "{name}: conservative {c}, theirs {t}");
        }
    }
}

#[test]
fn frequent_item_bounds_are_no_wider() {
    let mut random = Random::new(2);
    for exponent in [0.8, 1.1, 1.5] {
        let stream = zipf(&mut random, 50_000, 20_000, exponent);
        let mut theirs = FrequentItemsSketch::<u64>::new(256).unwrap();
        stream.iter().for_each(|&key| theirs.update(key));
        // Theirs keeps at most three quarters of its map; as many keys for ours.
        let capacity = theirs.maximum_map_capacity();
        let mut ours = SpaceSaving::<u64, u64>::new(capacity, 1).unwrap();
        stream.iter().for_each(|&key| ours.update(key, 1));
        let counts = exact(&stream);
        let (mut our_width, mut their_width) = (0, 0);
        for key in 0..50u64 {
            let count = counts.get(&key).copied().unwrap_or(0);
            let lower = ours.get(&key).map_or(0, |hitter| hitter.count - hitter.error);
            assert!(lower <= count && count <= ours.query(&key));
            our_width += ours.query(&key) - lower;
            their_width += theirs.upper_bound(&key) - theirs.lower_bound(&key);
        }
        assert!(our_width <= their_width, "exponent {exponent}: ours {our_width}, theirs {their_width}");
        assert!(ours.error_bound() <= stream.len() as f64 * theirs.epsilon());
    }
}
