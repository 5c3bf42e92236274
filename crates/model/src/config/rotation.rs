//! Rotary frequencies, with the scalings that checkpoints ask for.

use sketchkv_cache::Rotation;

/// How a checkpoint stretches its rotary embedding to a longer context.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scaling {
    None,
    /// Every position divided by `factor` (arXiv 2306.15595).
    Linear {
        factor: f32,
    },
    /// Llama 3.1: slow dimensions divided by `factor`, fast ones left, a linear blend between.
    Llama3 {
        factor: f32,
        low: f32,
        high: f32,
        original_context: f32,
    },
}

/// `base^(-2i/dimensions)` for each pair i of dimensions, scaled.
pub(super) fn frequencies(base: f32, dimensions: usize, scaling: &Scaling) -> Rotation {
    let pair = |i: usize| f64::from(base).powf(-2.0 * i as f64 / dimensions as f64);
    let inverse_frequencies = (0..dimensions / 2).map(|i| scale(pair(i), scaling) as f32).collect();
    Rotation { inverse_frequencies }
}

fn scale(frequency: f64, scaling: &Scaling) -> f64 {
    match *scaling {
        Scaling::None => frequency,
        Scaling::Linear { factor } => frequency / f64::from(factor),
        Scaling::Llama3 { factor, low, high, original_context } => {
            let (factor, low, high) = (f64::from(factor), f64::from(low), f64::from(high));
            // Turns this dimension makes within the original context.
            let turns = f64::from(original_context) * frequency / std::f64::consts::TAU;
            let blend = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            (1.0 - blend) * frequency / factor + blend * frequency
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unscaled_frequencies_fall_from_one_by_the_base() {
        let plain = frequencies(10_000.0, 4, &Scaling::None);
        assert_eq!(*plain.inverse_frequencies, [1.0, 0.01]);
        let linear = frequencies(10_000.0, 4, &Scaling::Linear { factor: 4.0 });
        assert_eq!(*linear.inverse_frequencies, [0.25, 0.0025]);
    }

    #[test]
    fn llama3_keeps_fast_dimensions_and_slows_slow_ones() {
        let scaling = Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_context: 8192.0 };
        let plain = frequencies(500_000.0, 128, &Scaling::None).inverse_frequencies;
        let scaled = frequencies(500_000.0, 128, &scaling).inverse_frequencies;
        assert_eq!(plain[0], scaled[0]);
        assert!((plain[63] / scaled[63] - 8.0).abs() < 1e-4);
        let ratios: Vec<f32> = plain.iter().zip(scaled.iter()).map(|(p, s)| p / s).collect();
        assert!(ratios.windows(2).all(|r| r[0] <= r[1] + 1e-5), "the slowing grows with the dimension");
    }
}
