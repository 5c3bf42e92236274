//! Scales: what one unit of a code is worth.

use crate::half::{f16, to_f16};

/// The scale of a block and its reciprocal: x ≈ scale · q with q = round(x · inverse).
///
/// Both are finite for whatever finite numbers are in the block, and every code takes them from here: 127 / max is
/// infinite for a max just above the smallest normal number, and 0 · ∞ is none. A scale is therefore never closer to 0
/// than the smallest number with 1 / scale finite, and what is far below it is rounded to 0. A block of zeros has the
/// scale 0 and the inverse 0. What is not finite makes the scale so, and is not hidden.
///
/// ```
/// use sketchkv_kernels::Scale;
/// let Scale { scale, inverse } = Scale::new(1e-37, 127.0);
/// let q = (1e-37 * inverse).round();
/// assert!((q * scale - 1e-37).abs() <= scale / 2.0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scale {
    /// What a code of 1 is worth.
    pub scale: f32,
    /// 1 / scale, or 0.
    pub inverse: f32,
}

impl Scale {
    /// The scale by which `largest`, the value of largest magnitude of a block, has the code `code`, positive or not.
    ///
    /// |x · inverse| is |code| at most, but for rounding, where |x| is |largest| at most.
    #[inline(always)]
    pub fn new(largest: f32, code: f32) -> Scale {
        // Two quotients that do not wait for each other: this stands in the loops of the attention kernels.
        let (scale, inverse) = (largest / code, code / largest);
        if largest == 0.0 {
            Scale::default()
        } else if scale.abs() < f32::MIN_POSITIVE {
            // Not `max`, which would hide NaN.
            Scale {
                scale: f32::MIN_POSITIVE.copysign(scale),
                inverse: f32::MIN_POSITIVE.recip().copysign(scale),
            }
        } else {
            Scale { scale, inverse }
        }
    }

    /// [`Scale::new`] with the scale rounded to what f16 holds, and the inverse that of the rounded scale.
    ///
    /// From 65,504 on a scale is 65,504: |x · inverse| may be above |code|, and is to be clamped. Where f16 is
    /// subnormal, and rounding might halve a scale, it is rounded away from 0, so that the largest value stays in reach.
    pub fn in_f16(largest: f32, code: f32) -> Scale {
        let exact = largest / code;
        let near = to_f16(exact);
        let short = near.to_f32().abs() < exact.abs() && near.to_f32().abs() < f16::MIN_POSITIVE.to_f32();
        let scale = if short { f16::from_bits(near.to_bits() + 1) } else { near }.to_f32();
        if largest == 0.0 { Scale::default() } else { Scale { scale, inverse: 1.0 / scale } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any finite number: every exponent is as likely as the others.
    fn finite() -> impl Strategy<Value = f32> {
        any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |x| x.is_finite())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn every_finite_number_has_a_finite_scale(largest in finite(), part in -1.0_f32..=1.0, code in prop::sample::select(vec![1.0_f32, -8.0, 7.0, 15.0, 127.0])) {
            let Scale { scale, inverse } = Scale::new(largest, code);
            prop_assert!(scale.is_finite() && inverse.is_finite(), "{scale} and {inverse}");
            let x = part * largest;
            let q = (x * inverse).round();
            prop_assert!(q.abs() <= code.abs());
            // Half a step, and the rounding of the scale and of the product.
            let (error, step) = ((f64::from(q) * f64::from(scale) - f64::from(x)).abs(), f64::from(scale.abs()));
            prop_assert!(error <= 0.5 * step + 1e-6 * f64::from(x.abs()), "{x} became {q} · {scale}");
        }

        #[test]
        fn every_finite_number_has_a_scale_in_f16(largest in finite(), part in -1.0_f32..=1.0, code in prop::sample::select(vec![1.0_f32, -8.0, 7.0, 15.0, 127.0])) {
            let Scale { scale, inverse } = Scale::in_f16(largest, code);
            prop_assert!(scale.is_finite() && inverse.is_finite(), "{scale} and {inverse}");
            prop_assert_eq!(f16::from_f32(scale).to_f32(), scale);
            let exact = f64::from(largest) / f64::from(code);
            if exact.abs() >= 65_504.0 {
                prop_assert_eq!(f64::from(scale), 65_504.0_f64.copysign(exact));
                return Ok(());
            }
            let x = part * largest;
            let q = (x * inverse).round().clamp(-code.abs(), code.abs());
            // Half a step; the largest values fall short by the rounding of the scale, in 11 bits.
            let error = (f64::from(q) * f64::from(scale) - f64::from(x)).abs();
            prop_assert!(error <= 0.5 * f64::from(scale.abs()) + f64::from(x.abs()) / 2040.0, "{x} became {q} · {scale}");
        }
    }

    #[test]
    fn zeros_have_the_scale_zero_and_nothing_hides() {
        for scale in [Scale::new, Scale::in_f16] {
            assert_eq!(scale(0.0, 127.0), Scale::default());
            assert_eq!(scale(-0.0, -8.0), Scale::default());
            assert!(scale(f32::NAN, 127.0).scale.is_nan());
            assert!(scale(f32::INFINITY, 127.0).scale.is_infinite());
        }
    }
}
