use crate::Footprint;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One repetition of a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The test's name; that of a prompt where the cache was filled to the next depth.
    pub test: String,
    /// The cache's spec.
    pub spec: String,
    /// Which repetition, from 0.
    pub repetition: usize,
    /// Tokens that were run.
    pub tokens: usize,
    /// What they took, in seconds.
    pub seconds: f64,
    /// The cache after it.
    #[serde(flatten)]
    pub footprint: Footprint,
}

impl Sample {
    /// Tokens per second.
    pub fn rate(&self) -> f64 {
        // Finite where the clock saw no time pass.
        self.tokens as f64 / self.seconds.max(Duration::from_nanos(1).as_secs_f64())
    }
}

/// Mean and standard deviation (unbiased; 0 for fewer than two).
pub(super) fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, if values.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviation_is_unbiased() {
        assert_eq!(mean_and_deviation(&[]), (0.0, 0.0));
        assert_eq!(mean_and_deviation(&[3.0]), (3.0, 0.0));
        let (mean, deviation) = mean_and_deviation(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(mean, 2.5);
        assert!((deviation - (5.0f64 / 3.0).sqrt()).abs() < 1e-12);
    }
}
