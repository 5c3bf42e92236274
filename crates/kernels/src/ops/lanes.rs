//! Building blocks that the compiler turns into vectors: inlined into functions with a level's target features.
//!
//! Loops are `for` loops: the closure of a `fold` or `for_each` may stay a function of its own, without those features.

/// Values handled at a time: one 512-bit register, two of 256 bits, four of 128.
pub(crate) const CHUNK: usize = 16;

/// eˣ to about one unit in the last place (relative error below 2e-7); 0 below −87.3, infinite above 88.7.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2; eʳ by its Taylor polynomial of degree 7, 2ⁿ by the exponent bits.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// Adding 1.5·2²³ leaves the rounded integer in the low bits.
    const TO_INTEGER: f32 = 12_582_912.0;
    let clamped = x.clamp(-88.0, 89.0);
    let shifted = clamped * std::f32::consts::LOG2_E + TO_INTEGER;
    let n = shifted - TO_INTEGER;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, clamped));
    let mut polynomial = 1.0 / 5040.0_f32;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        polynomial = polynomial.mul_add(r, coefficient);
    }
    // Two factors, since 2¹²⁸ alone is beyond the exponent.
    let bits = (shifted.to_bits() as i32).wrapping_sub(TO_INTEGER.to_bits() as i32);
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) << 23) as u32);
    let half = bits >> 1;
    let result = polynomial * power(half) * power(bits.wrapping_sub(half));
    // What the clamp kept in range goes where it belongs; NaN passes through.
    let result = if x < -87.336_55 { 0.0 } else { result };
    if x > 88.722_84 {
        f32::INFINITY
    } else if x.is_nan() {
        x
    } else {
        result
    }
}

/// Sum of `f(value)` in 16 interleaved partial sums, added pairwise: the same order at every level.
#[inline(always)]
pub(crate) fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut partial = [0.0_f32; CHUNK];
    let (chunks, rest) = values.as_chunks::<CHUNK>();
    for chunk in chunks {
        for (p, v) in partial.iter_mut().zip(chunk) {
            *p += f(*v);
        }
    }
    for (p, v) in partial.iter_mut().zip(rest) {
        *p += f(*v);
    }
    fold(partial, |a, b| a + b)
}

/// Largest value, NaN ignored; −∞ for none.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut partial = [f32::NEG_INFINITY; CHUNK];
    let (chunks, rest) = values.as_chunks::<CHUNK>();
    for chunk in chunks {
        for (p, v) in partial.iter_mut().zip(chunk) {
            *p = larger(*p, *v);
        }
    }
    for (p, v) in partial.iter_mut().zip(rest) {
        *p = larger(*p, *v);
    }
    fold(partial, larger)
}

#[inline(always)]
fn fold(mut partial: [f32; CHUNK], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = CHUNK / 2;
    while width > 0 {
        for i in 0..width {
            partial[i] = f(partial[i], partial[i + width]);
        }
        width /= 2;
    }
    partial[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_everywhere() {
        let mut worst = 0.0_f64;
        for i in -872_000..=887_000 {
            let x = i as f32 * 1e-4;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            if want > f64::from(f32::MIN_POSITIVE) {
                worst = worst.max((got / want - 1.0).abs());
            }
        }
        assert!(worst < 2e-7, "relative error {worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn sum_and_max_take_every_value() {
        for len in 0..70 {
            let values: Vec<f32> = (0..len).map(|i| ((i * 37) % 64) as f32 - 20.0).collect();
            assert_eq!(sum(&values, |v| v), values.iter().sum::<f32>());
            assert_eq!(max(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
