use serde::{Deserialize, Serialize};

/// A mean with its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The sample mean.
    pub mean: f64,
    /// Its standard error, √(s² / n) with the unbiased variance s²; 0 for fewer than two values.
    pub error: f64,
}

impl Estimate {
    /// Mean and standard error of independent `values`; 0 ± 0 for none.
    ///
    /// ```
    /// let e = sketchkv_eval::metrics::Estimate::of([1.0, 2.0, 3.0]);
    /// assert_eq!(e.mean, 2.0);
    /// assert!((e.error - (1.0f64 / 3.0).sqrt()).abs() < 1e-12);
    /// ```
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        // Welford's update: the values can be tiny differences of large sums.
        let (mut n, mut mean, mut squares) = (0.0, 0.0, 0.0);
        for value in values {
            n += 1.0;
            let delta = value - mean;
            mean += delta / n;
            squares += delta * (value - mean);
        }
        let error = if n > 1.0 { (squares / (n - 1.0) / n).sqrt() } else { 0.0 };
        Estimate { mean, error }
    }
}

/// The value in the middle, of an even number the upper one; `None` for none.
///
/// ```
/// assert_eq!(sketchkv_eval::metrics::median(vec![4.0, 1.0, 2.0]), Some(2.0));
/// ```
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The `fraction` quantile of ascending `sorted` values, linear between neighbours; NaN for none.
///
/// ```
/// assert_eq!(sketchkv_eval::metrics::quantile(&[0.0, 1.0, 2.0, 4.0], 0.5), 1.5);
/// ```
pub fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = fraction.clamp(0.0, 1.0) * last as f64;
    let below = place as usize;
    let share = place - below as f64;
    (1.0 - share) * sorted[below] + share * sorted[(below + 1).min(last)]
}
