use super::lanes;
use crate::cpu::{self, Level, per_level};
use std::ops::RangeInclusive;

/// `out = x / √(mean(x²) + eps) · weight`, over one token's values; finite where x and the result are.
///
/// # Panics
/// When the lengths differ.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    rms_norm_at(cpu::level(), x, weight, eps, out);
}

/// `out = (x − mean(x)) / √(variance(x) + eps) · weight + bias`, over one token's values; finite where x and the result
/// are.
///
/// # Panics
/// When the lengths differ.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    layer_norm_at(cpu::level(), x, weight, bias, eps, out);
}

pub(crate) fn rms_norm_at(level: Level, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == out.len(), "rms_norm takes slices of one length");
    if level == Level::Scalar {
        let root = root(mean(x, |x| x * x), eps);
        out.iter_mut().zip(x).zip(weight).for_each(|((o, x), w)| *o = (f64::from(*x) / root) as f32 * w);
    } else {
        scale(level, x, weight, inverse_root_mean_square(level, x, eps), out);
    }
}

pub(crate) fn layer_norm_at(
    level: Level,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    let len = x.len();
    assert!(
        len == weight.len() && len == bias.len() && len == out.len(),
        "layer_norm takes slices of one length"
    );
    if level == Level::Scalar {
        let mean_of_x = mean(x, |x| x);
        let root = root(mean(x, |x| (x - mean_of_x).powi(2)), eps);
        for (((o, x), w), b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
            *o = ((f64::from(*x) - mean_of_x) / root) as f32 * w + b;
        }
    } else {
        let (mean, scale) = mean_and_inverse_deviation(level, x, eps);
        centre(level, x, weight, bias, mean, scale, out);
    }
}

/// The mean of `f(x)`, in f64, where no square of an f32 is too large or too small.
fn mean(x: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    x.iter().map(|x| f(f64::from(*x))).sum::<f64>() / x.len() as f64
}

/// √(square + eps), above 0: zeros without an eps stay zeros.
fn root(square: f64, eps: f32) -> f64 {
    let root = (square + f64::from(eps)).sqrt();
    if root == 0.0 { 1.0 } else { root }
}

/// Mean squares that f32 computes without leaving its range on the way.
const SAFE: RangeInclusive<f32> = 1e-30..=f32::MAX;

/// 1 / [`root`], where f32 has twice that number.
fn inverse_root(square: f64, eps: f32) -> f32 {
    let inverse = 1.0 / root(square, eps);
    let largest = f64::from(f32::MAX / 2.0);
    // Not `min`, which would hide NaN.
    if inverse > largest { largest as f32 } else { inverse as f32 }
}

per_level! {
    /// 1 / √(mean(x²) + eps)
    pub(crate) fn inverse_root_mean_square(x: &[f32], eps: f32) -> f32 {
        let mean_square = lanes::sum(x, |x| x * x) / x.len() as f32;
        if SAFE.contains(&mean_square) {
            1.0 / (mean_square + eps).sqrt()
        } else {
            inverse_root(mean(x, |x| x * x), eps)
        }
    }
}

per_level! {
    /// mean(x) and 1 / √(variance(x) + eps), the variance from the centred values.
    pub(crate) fn mean_and_inverse_deviation(x: &[f32], eps: f32) -> (f32, f32) {
        let mean_of_x = lanes::sum(x, |x| x) / x.len() as f32;
        let variance = lanes::sum(x, |x| (x - mean_of_x) * (x - mean_of_x)) / x.len() as f32;
        if SAFE.contains(&variance) {
            (mean_of_x, 1.0 / (variance + eps).sqrt())
        } else {
            let mean_of_x = mean(x, |x| x);
            (mean_of_x as f32, inverse_root(mean(x, |x| (x - mean_of_x).powi(2)), eps))
        }
    }
}

per_level! {
    /// `out = x · scale · weight`
    pub(crate) fn scale(x: &[f32], weight: &[f32], scale: f32, out: &mut [f32]) {
        for ((o, x), w) in out.iter_mut().zip(x).zip(weight) {
            *o = x * scale * w;
        }
    }
}

per_level! {
    /// `out = (x − mean) · scale · weight + bias`
    pub(crate) fn centre(x: &[f32], weight: &[f32], bias: &[f32], mean: f32, scale: f32, out: &mut [f32]) {
        // Halves, since a difference of two f32 may be beyond their range.
        let (half_mean, double_scale) = (mean / 2.0, scale * 2.0);
        for (((o, x), w), b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
            *o = x.mul_add(0.5, -half_mean) * double_scale * w + b;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn norms_agree_with_the_reference(values in prop::collection::vec((-1e3_f32..1e3, -2.0_f32..2.0, -2.0_f32..2.0), 1..200), skip in 0..3_usize) {
            let skip = skip.min(values.len() - 1);
            let column = |f: fn(&(f32, f32, f32)) -> f32| values.iter().map(f).collect::<Vec<_>>();
            let (x, w, b) = (column(|v| v.0), column(|v| v.1), column(|v| v.2));
            // A shifted start makes the slices unaligned.
            let (x, w, b) = (&x[skip..], &w[skip..], &b[skip..]);
            let (mut want, mut got) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            for &level in Level::available() {
                rms_norm_at(Level::Scalar, x, w, 1e-5, &mut want);
                rms_norm_at(level, x, w, 1e-5, &mut got);
                for (g, e) in got.iter().zip(&want) {
                    prop_assert!((g - e).abs() <= 1e-5 * (1.0 + e.abs()), "{level:?}: {g} is not {e}");
                }
                layer_norm_at(Level::Scalar, x, w, b, 1e-5, &mut want);
                layer_norm_at(level, x, w, b, 1e-5, &mut got);
                for (g, e) in got.iter().zip(&want) {
                    prop_assert!((g - e).abs() <= 1e-3 * (1.0 + e.abs()), "{level:?}: {g} is not {e}");
                }
            }
        }
    }

    #[test]
    fn a_norm_of_known_values() {
        let mut out = [0.0; 2];
        rms_norm(&[3.0, 4.0], &[1.0, 2.0], 0.0, &mut out);
        let root = 12.5_f32.sqrt();
        assert!((out[0] - 3.0 / root).abs() < 1e-6 && (out[1] - 8.0 / root).abs() < 1e-6);
        layer_norm(&[1.0, 3.0], &[1.0, 2.0], &[0.5, 0.0], 0.0, &mut out);
        assert_eq!(out, [-0.5, 2.0]);
    }
}
