use super::quantile;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long single decode steps took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Steps measured.
    pub steps: usize,
    /// Median of a step, in milliseconds.
    pub median_ms: f64,
    /// 95th percentile, in milliseconds.
    pub p95_ms: f64,
    /// 99th percentile, in milliseconds.
    pub p99_ms: f64,
    /// Steps over their total time.
    pub tokens_per_second: f64,
}

impl Latency {
    /// The summary of `steps`, or `None` when nothing was measured.
    pub fn of(steps: &[Duration]) -> Option<Self> {
        let mut ms: Vec<f64> = steps.iter().map(|d| d.as_secs_f64() * 1e3).collect();
        ms.sort_unstable_by(f64::total_cmp);
        let total: f64 = ms.iter().sum();
        (total > 0.0).then(|| Latency {
            steps: ms.len(),
            median_ms: quantile(&ms, 0.5),
            p95_ms: quantile(&ms, 0.95),
            p99_ms: quantile(&ms, 0.99),
            tokens_per_second: ms.len() as f64 / (total / 1e3),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_tail_shows_in_the_tail_only() {
        let mut steps = vec![Duration::from_millis(10); 98];
        steps.extend([Duration::from_millis(500); 2]);
        let latency = Latency::of(&steps).unwrap();
        assert_eq!((latency.median_ms, latency.p95_ms), (10.0, 10.0));
        assert!(latency.p99_ms > 400.0, "{latency:?}");
        assert!((latency.tokens_per_second - 100.0 / 1.98).abs() < 1e-9);
    }

    #[test]
    fn nothing_measured_is_nothing_reported() {
        assert_eq!(Latency::of(&[]), None);
    }
}
