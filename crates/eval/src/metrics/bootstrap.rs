use crate::Rng;
use serde::{Deserialize, Serialize};

/// What is resampled as a whole: a document, or a block of consecutive tokens.
///
/// Tokens of one text depend on each other, so an error over tokens is too small; units are far enough apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Sum of the metric over the unit's tokens.
    pub sum: f64,
    /// Tokens in the unit.
    pub count: usize,
}

impl Unit {
    /// The unit of these values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let (mut sum, mut count) = (0.0, 0);
        for value in values {
            sum += value;
            count += 1;
        }
        Unit { sum, count }
    }
}

/// An estimate with its interval of confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate from all units.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Whether a difference with this interval is a tie: zero lies inside.
    pub fn is_tie(&self) -> bool {
        self.low <= 0.0 && 0.0 <= self.high
    }
}

/// The 95 % interval of the token-weighted mean over `units`, from 4,000 seeded resamples; `None` below two units.
///
/// Percentile bootstrap of the ratio Σ sum / Σ count, with the percentiles widened so that for few units it is as
/// wide as Student's interval (Hesterberg, arXiv 1411.5279, section 5.3): the plain percentile interval of 8
/// documents would cover about 88 % rather than 95 %.
pub fn bootstrap_mean(units: &[Unit], seed: u64) -> Option<Interval> {
    let zero: Vec<Unit> = units.iter().map(|unit| Unit { sum: 0.0, ..*unit }).collect();
    paired_bootstrap(units, &zero, seed)
}

/// The 95 % interval of mean(a) − mean(b), where `a` and `b` are two caches' scores of the same units in the same
/// order: each resample draws units, and takes both caches' scores of each. See [`bootstrap_mean`].
///
/// `None` when the units do not pair up or are fewer than two.
pub fn paired_bootstrap(a: &[Unit], b: &[Unit], seed: u64) -> Option<Interval> {
    const RESAMPLES: usize = 4_000;
    let paired = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.count == b.count);
    let tokens: usize = a.iter().map(|unit| unit.count).sum();
    if !paired || a.len() < 2 || tokens == 0 {
        return None;
    }
    let differences: Vec<Unit> =
        a.iter().zip(b).map(|(a, b)| Unit { sum: a.sum - b.sum, count: a.count }).collect();
    let estimate = differences.iter().map(|unit| unit.sum).sum::<f64>() / tokens as f64;
    let mut rng = Rng::for_part(seed, "bootstrap");
    let mut means: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            let (mut sum, mut count) = (0.0, 0);
            for _ in 0..differences.len() {
                let unit = differences[rng.below(differences.len())];
                sum += unit.sum;
                count += unit.count;
            }
            (count > 0).then(|| sum / count as f64)
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let tail = widened_tail(a.len());
    Some(Interval {
        estimate,
        low: super::quantile(&means, tail).min(estimate),
        high: super::quantile(&means, 1.0 - tail).max(estimate),
    })
}

/// The lower percentile Φ(−√(n/(n−1))·t₀.₉₇₅,ₙ₋₁) that stands for 2.5 % with n units.
fn widened_tail(units: usize) -> f64 {
    let freedom = (units - 1) as f64;
    normal_cdf(-(units as f64 / freedom).sqrt() * student_quantile_975(freedom))
}

/// The 97.5 % point of Student's t: exact for 1 and 2 degrees of freedom, Cornish-Fisher's series beyond (within
/// 0.5 % at 3, 0.1 % from 5 on).
fn student_quantile_975(freedom: f64) -> f64 {
    const Z: f64 = 1.959_963_984_540_054;
    if freedom <= 1.0 {
        return 12.706_204_736;
    }
    if freedom <= 2.0 {
        return 4.302_652_730;
    }
    let z2 = Z * Z;
    let terms = [
        (z2 + 1.0) / 4.0,
        (5.0 * z2 * z2 + 16.0 * z2 + 3.0) / 96.0,
        (3.0 * z2.powi(3) + 19.0 * z2 * z2 + 17.0 * z2 - 15.0) / 384.0,
        (79.0 * z2.powi(4) + 776.0 * z2.powi(3) + 1482.0 * z2 * z2 - 1920.0 * z2 - 945.0) / 92_160.0,
    ];
    Z * terms.iter().rev().fold(0.0, |sum, term| (sum + term) / freedom) + Z
}

/// Φ by the complementary error function of Abramowitz and Stegun 7.1.26 (absolute error below 1.5e-7).
fn normal_cdf(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let series = [0.254_829_592, -0.284_496_736, 1.421_413_741, -1.453_152_027, 1.061_405_429];
    let upper = series.iter().rev().fold(0.0, |sum, c| (sum + c) * t) * (-x * x).exp() / 2.0;
    if z < 0.0 { upper } else { 1.0 - upper }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(rng: &mut Rng) -> f64 {
        let radius = (-2.0 * (1.0 - rng.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * rng.unit()).cos()
    }

    /// Share of intervals that hold the true mean: units of unequal size whose tokens share a unit effect, so that
    /// an interval over tokens would be far too narrow.
    fn coverage(units: usize, skewed: bool) -> f64 {
        let mut rng = Rng::new(units as u64);
        let runs = 400;
        let held = (0..runs)
            .filter(|&run| {
                let data: Vec<Unit> = (0..units)
                    .map(|_| {
                        let noise = normal(&mut rng);
                        // Both laws have mean 0; the second is skewed as sums of KL are.
                        let effect = if skewed { (noise - 0.5).exp() - 1.0 } else { noise };
                        let count = 20 + rng.below(20);
                        Unit::of((0..count).map(|_| effect + 0.3 * normal(&mut rng)))
                    })
                    .collect();
                bootstrap_mean(&data, run).unwrap().is_tie()
            })
            .count();
        held as f64 / runs as f64
    }

    #[test]
    fn intervals_cover_what_they_say() {
        // 400 runs at 95 %: standard deviation 1.1 points.
        for (units, skewed, least) in
            [(8, false, 0.92), (30, false, 0.92), (30, true, 0.87), (100, true, 0.90)]
        {
            let share = coverage(units, skewed);
            assert!((least..0.985).contains(&share), "{units} units, skewed {skewed}: {share}");
        }
    }

    #[test]
    fn pairing_sees_what_the_spread_of_documents_hides() {
        let mut rng = Rng::new(2);
        let a: Vec<Unit> = (0..20).map(|_| Unit { sum: 100.0 * normal(&mut rng), count: 10 }).collect();
        let b: Vec<Unit> =
            a.iter().map(|u| Unit { sum: u.sum - 1.0 - 0.1 * normal(&mut rng), ..*u }).collect();
        let paired = paired_bootstrap(&a, &b, 0).unwrap();
        assert!(!paired.is_tie() && (paired.estimate - 0.1).abs() < 0.01, "{paired:?}");
        assert!(bootstrap_mean(&a, 0).unwrap().high - bootstrap_mean(&b, 0).unwrap().low > 1.0);
    }

    #[test]
    fn too_little_or_unpaired_gives_no_interval() {
        let unit = Unit { sum: 1.0, count: 2 };
        assert_eq!(bootstrap_mean(&[unit], 0), None);
        assert_eq!(paired_bootstrap(&[unit; 3], &[unit; 2], 0), None);
        assert_eq!(paired_bootstrap(&[unit; 2], &[Unit { count: 3, ..unit }; 2], 0), None);
    }

    #[test]
    fn tabled_values() {
        for (freedom, t) in [(3.0, 3.1824), (5.0, 2.5706), (10.0, 2.2281), (30.0, 2.0423)] {
            let ours = student_quantile_975(freedom);
            assert!((ours / t - 1.0).abs() < 0.02, "{freedom}: {ours} for {t}");
        }
        assert!((normal_cdf(-1.96) - 0.0249979).abs() < 1e-6 && (normal_cdf(1.0) - 0.8413447).abs() < 1e-6);
    }
}
