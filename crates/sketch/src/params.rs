//! How large a sketch must be for an error, and what error a size means.
//!
//! ```
//! use sketchkv_sketch::{CountMin, params};
//!
//! // At most 1 % of the stream too much, but for one time in a thousand:
//! assert_eq!(params::count_min(0.01, 0.001)?, (272, 7));
//! let sketch = CountMin::<u32>::for_error(0.01, 0.001, 42)?;
//! assert_eq!((sketch.width(), sketch.depth()), (272, 7));
//! # Ok::<(), sketchkv_sketch::SketchError>(())
//! ```

use crate::SketchError;
use crate::table::{MAX_DEPTH, check_dimensions};

fn check_unit(what: &'static str, x: f64) -> Result<(), SketchError> {
    if x > 0.0 && x < 1.0 {
        return Ok(());
    }
    Err(SketchError::parameter(what, x, "above 0 and below 1"))
}

/// A count as far as a table may be wide; the check that follows refuses what is too large.
fn ceil(x: f64) -> usize {
    x.ceil() as usize
}

/// Width and depth of a Count-Min sketch whose estimates are too large by at most `epsilon · ‖f‖₁`, but for
/// probability `delta`: `(⌈e / ε⌉, ⌈ln 1/δ⌉)`.
///
/// # Errors
/// If `epsilon` or `delta` is not between 0 and 1, or no sketch is that large.
pub fn count_min(epsilon: f64, delta: f64) -> Result<(usize, usize), SketchError> {
    check_unit("epsilon", epsilon)?;
    check_unit("delta", delta)?;
    let (width, depth) = (suggest_width(epsilon), ceil(-delta.ln()));
    check_dimensions(width, depth)?;
    Ok((width, depth))
}

/// The width at which one row of a Count-Min sketch is too large by more than `epsilon · ‖f‖₁` with probability at
/// most `1 / e`: `⌈e / ε⌉`.
pub fn suggest_width(epsilon: f64) -> usize {
    ceil(std::f64::consts::E / epsilon)
}

/// The number of rows that brings a failure probability of `1 / e` a row down to `delta`: `⌈ln 1/δ⌉`, at least 1.
pub fn suggest_depth(delta: f64) -> usize {
    ceil(-delta.ln()).clamp(1, MAX_DEPTH)
}

/// Width and depth of the smallest Count-Sketch whose estimates miss by at most `epsilon · ‖f‖₂`, but for
/// probability `delta`.
///
/// A row misses with probability at most `1 / (ε² width)` (Chebyshev), the median only if half of the rows do; over
/// all odd depths the least width · depth is taken.
///
/// # Errors
/// If `epsilon` or `delta` is not between 0 and 1, or no sketch is that large.
pub fn count_sketch(epsilon: f64, delta: f64) -> Result<(usize, usize), SketchError> {
    check_unit("epsilon", epsilon)?;
    check_unit("delta", delta)?;
    let width_for = |depth: usize| {
        // The largest probability a row may miss with, by bisection: the tail grows with it.
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let p = f64::midpoint(low, high);
            if binomial_tail(depth, p, depth.div_ceil(2)) <= delta { low = p } else { high = p }
        }
        ceil(1.0 / (low * epsilon * epsilon))
    };
    let sizes = (1..MAX_DEPTH).step_by(2).map(|depth| (width_for(depth), depth));
    let (width, depth) =
        sizes.min_by_key(|&(width, depth)| width.saturating_mul(depth)).expect("there are odd depths");
    check_dimensions(width, depth)?;
    Ok((width, depth))
}

/// The probability, at most, that a Count-Sketch estimate misses by more than `epsilon · ‖f‖₂`:
/// `P[Binomial(depth, 1/(ε² width)) ≥ depth/2]`.
pub fn count_sketch_failure(width: usize, depth: usize, epsilon: f64) -> f64 {
    binomial_tail(depth, (1.0 / (epsilon * epsilon * width as f64)).min(1.0), depth.div_ceil(2))
}

/// The expected cosine, nearly, between a unit vector and its reconstruction from one row of a vector Count-Sketch
/// of `width` buckets that holds `n` unit vectors of unrelated directions: `1 / √(1 + (n - 1) / width)`.
pub fn reconstruction_cosine(n: usize, width: usize) -> f64 {
    1.0 / (1.0 + (n.max(1) - 1) as f64 / width as f64).sqrt()
}

/// Bits of a SimHash code for which an angle is estimated to within `error` radians, but for probability `delta`:
/// `⌈π² ln(2/δ) / (2 error²)⌉` (Hoeffding).
///
/// # Errors
/// If `error` is not above 0 or `delta` not between 0 and 1.
pub fn simhash_bits(error: f64, delta: f64) -> Result<usize, SketchError> {
    check_unit("delta", delta)?;
    if error.is_nan() || error <= 0.0 {
        return Err(SketchError::parameter("error", error, "above 0"));
    }
    Ok(ceil((std::f64::consts::PI / error).powi(2) * (2.0 / delta).ln() / 2.0))
}

/// Rows of a RACE sketch for a standard error of `epsilon` times the density: `⌈(S / (ε D))²⌉` with the density
/// `D = Σ w k` and `S = Σ w √k` over the weights w and kernel values k of what was added.
///
/// # Errors
/// If one of the three is not above 0.
pub fn race_rows(epsilon: f64, density: f64, root_density: f64) -> Result<usize, SketchError> {
    for (what, x) in [("epsilon", epsilon), ("density", density), ("root density", root_density)] {
        if x.is_nan() || x <= 0.0 {
            return Err(SketchError::parameter(what, x, "above 0"));
        }
    }
    Ok(ceil((root_density / (epsilon * density)).powi(2)))
}

/// `P[Binomial(n, p) ≥ k]`.
fn binomial_tail(n: usize, p: f64, k: usize) -> f64 {
    if k == 0 || p >= 1.0 {
        return 1.0;
    }
    // Term by term from P[0]; n is at most 64, so that nothing underflows to a wrong sum.
    let mut term = (1.0 - p).powi(n as i32);
    let mut tail = 0.0;
    for i in 0..=n {
        if i >= k {
            tail += term;
        }
        term *= (n - i) as f64 / (i + 1) as f64 * p / (1.0 - p);
    }
    tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binomial_tails_are_right() {
        assert!((binomial_tail(3, 0.5, 2) - 0.5).abs() < 1e-12);
        assert!((binomial_tail(5, 0.25, 3) - 0.103_515_625).abs() < 1e-12);
        assert!((binomial_tail(64, 0.01, 1) - (1.0 - 0.99f64.powi(64))).abs() < 1e-12);
        assert_eq!(binomial_tail(5, 1.0, 5), 1.0);
        assert_eq!(binomial_tail(5, 0.0, 1), 0.0);
    }

    #[test]
    fn suggested_sizes_meet_the_bounds_they_were_asked_for() {
        for epsilon in [0.5, 0.1, 0.01] {
            for delta in [0.3, 0.05, 1e-3, 1e-9] {
                let (width, depth) = count_min(epsilon, delta).unwrap();
                assert!(std::f64::consts::E / width as f64 <= epsilon && (-(depth as f64)).exp() <= delta);
                let (width, depth) = count_sketch(epsilon, delta).unwrap();
                assert!(count_sketch_failure(width, depth, epsilon) <= delta);
                assert!(
                    count_sketch_failure(width - width / 20 - 1, depth, epsilon) > delta,
                    "not the smallest"
                );
            }
        }
    }

    #[test]
    fn impossible_wishes_are_errors() {
        assert!(count_min(0.0, 0.1).is_err());
        assert!(count_min(0.1, 1.0).is_err());
        assert!(count_min(1e-12, 0.1).is_err());
        assert!(count_min(f64::NAN, 0.1).is_err());
        assert!(count_sketch(1e-6, 0.1).is_err());
        assert!(simhash_bits(0.0, 0.1).is_err());
        assert!(race_rows(0.1, 0.0, 1.0).is_err());
    }
}
