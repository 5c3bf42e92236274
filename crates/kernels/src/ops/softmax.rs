use super::lanes;
use crate::cpu::{self, Level, per_level};

/// Softmax in place: xᵢ ← e^(xᵢ − max) / Σ e^(xⱼ − max). −∞ becomes 0, even where there is nothing else.
pub fn softmax(x: &mut [f32]) {
    softmax_at(cpu::level(), x);
}

pub(crate) fn softmax_at(level: Level, x: &mut [f32]) {
    // ∞ − ∞ must not become NaN.
    if x.iter().all(|x| *x == f32::NEG_INFINITY) {
        x.fill(0.0);
    } else if level == Level::Scalar {
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        x.iter_mut().for_each(|x| *x = (*x - max).exp());
        let sum: f32 = x.iter().sum();
        x.iter_mut().for_each(|x| *x /= sum);
    } else {
        softmax_lanes(level, x);
    }
}

per_level! {
    fn softmax_lanes(x: &mut [f32]) {
        let max = lanes::max(x);
        for x in x.iter_mut() {
            *x = lanes::exp(*x - max);
        }
        let inverse = 1.0 / lanes::sum(x, |x| x);
        for x in x {
            *x *= inverse;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn softmax_agrees_with_the_reference(mut x in prop::collection::vec(-200.0_f32..200.0, 1..300), masked in any::<prop::sample::Index>()) {
            if x.len() > 1 {
                let masked = masked.index(x.len());
                x[masked] = f32::NEG_INFINITY;
            }
            let mut want = x.clone();
            softmax_at(Level::Scalar, &mut want);
            for &level in Level::available() {
                let mut got = x.clone();
                softmax_at(level, &mut got);
                for (g, e) in got.iter().zip(&want) {
                    prop_assert!((g - e).abs() <= 2e-6 * e + 1e-37, "{level:?}: {g} is not {e}");
                }
                prop_assert!((got.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            }
        }
    }
    #[test]
    fn rows_of_extremes_are_finite() {
        let (none, huge) = (f32::NEG_INFINITY, f32::MAX);
        for &level in Level::available() {
            for len in [1, 15, 16, 40] {
                let softmax = |mut x: Vec<f32>| {
                    softmax_at(level, &mut x);
                    x
                };
                assert_eq!(softmax(vec![none; len]), vec![0.0; len], "{level:?}");
                let same = softmax(vec![-huge; len]);
                assert!(same.iter().all(|x| (x - 1.0 / len as f32).abs() < 1e-6), "{level:?}: {same:?}");
                let mut apart = vec![-huge; len];
                apart[len / 2] = huge;
                let one = softmax(apart);
                assert_eq!((one[len / 2], one.iter().sum::<f32>()), (1.0, 1.0), "{level:?}");
            }
        }
    }
}
