//! Rotary frequencies, with the scalings that checkpoints ask for.

use sketchkv_cache::Rotation;
use std::f64::consts::TAU;
use std::sync::Arc;

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
    /// YaRN (arXiv 2309.00071): as Llama 3.1's, the blend linear in the dimension's index.
    Yarn {
        factor: f32,
        fast: f32,
        slow: f32,
        original_context: f32,
        /// Whether the ends of the blend are whole indices.
        truncated: bool,
        magnitude: f32,
    },
    /// LongRoPE (arXiv 2402.13753): a divisor for each dimension, one list up to `original_context` tokens, another
    /// beyond.
    Longrope {
        short: Vec<f32>,
        long: Vec<f32>,
        original_context: usize,
        magnitude: f32,
    },
    /// Dynamic NTK: a base that grows with the length of the sequence beyond `context`.
    Dynamic {
        factor: f32,
        context: usize,
    },
}

/// How queries and keys of a layer are rotated.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rotary {
    frequencies: Frequencies,
    /// Multiplies what is rotated.
    magnitude: f32,
}

#[derive(Debug, Clone, PartialEq)]
enum Frequencies {
    Fixed(Arc<[f32]>),
    /// `short` for calls that end within `original_context` tokens, `long` for others.
    Switched {
        short: Arc<[f32]>,
        long: Arc<[f32]>,
        original_context: usize,
    },
    Dynamic {
        base: f64,
        dimensions: usize,
        factor: f64,
        context: usize,
    },
}

impl Rotary {
    /// `base^(-2i/dimensions)` for each pair i of dimensions, scaled.
    pub(super) fn new(base: f32, dimensions: usize, scaling: &Scaling) -> Rotary {
        let base = f64::from(base);
        let pair = |i: usize| base.powf(-2.0 * i as f64 / dimensions as f64);
        let each = |scale: &dyn Fn(usize, f64) -> f64| {
            (0..dimensions / 2).map(|i| scale(i, pair(i)) as f32).collect::<Arc<[f32]>>()
        };
        let fixed = |scale: &dyn Fn(usize, f64) -> f64| Frequencies::Fixed(each(scale));
        let plain = |frequencies| Rotary { frequencies, magnitude: 1.0 };
        match scaling {
            Scaling::None => plain(fixed(&|_, frequency| frequency)),
            Scaling::Linear { factor } => plain(fixed(&|_, frequency| frequency / f64::from(*factor))),
            &Scaling::Llama3 { factor, low, high, original_context } => {
                let (low, high) = (f64::from(low), f64::from(high));
                plain(fixed(&|_, frequency| {
                    // Turns this dimension makes within the original context.
                    let turns = f64::from(original_context) * frequency / TAU;
                    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    blend(frequency, factor, kept)
                }))
            }
            &Scaling::Yarn { factor, fast, slow, original_context, truncated, magnitude } => {
                // The index of the dimension that turns so often within the original context.
                let index = |turns: f32| {
                    let wavelength = f64::from(original_context) / (f64::from(turns) * TAU);
                    dimensions as f64 * wavelength.ln() / (2.0 * base.ln())
                };
                let (low, high) = (index(fast), index(slow));
                let (low, high) = if truncated { (low.floor(), high.ceil()) } else { (low, high) };
                let (low, high) = (low.max(0.0), high.min(dimensions as f64 - 1.0));
                let width = if low == high { 0.001 } else { high - low };
                let frequencies = fixed(&|i, frequency| {
                    let kept = 1.0 - ((i as f64 - low) / width).clamp(0.0, 1.0);
                    blend(frequency, factor, kept)
                });
                Rotary { frequencies, magnitude }
            }
            Scaling::Longrope { short, long, original_context, magnitude } => {
                let divided = |by: &[f32]| each(&|i, frequency| frequency / f64::from(by[i]));
                let frequencies = Frequencies::Switched {
                    short: divided(short),
                    long: divided(long),
                    original_context: *original_context,
                };
                Rotary { frequencies, magnitude: *magnitude }
            }
            &Scaling::Dynamic { factor, context } => {
                plain(Frequencies::Dynamic { base, dimensions, factor: f64::from(factor), context })
            }
        }
    }

    /// The frequencies divided by `divisors`, which a file gives one by one; they do not change with the length.
    pub(super) fn divided_by(&self, divisors: &[f32]) -> Rotary {
        let mut frequencies = vec![];
        self.frequencies(0, &mut frequencies);
        let divided = frequencies.iter().zip(divisors).map(|(frequency, divisor)| frequency / divisor);
        Rotary { frequencies: Frequencies::Fixed(divided.collect()), magnitude: self.magnitude }
    }

    /// The frequencies of a call at whose end a sequence has `length` tokens.
    pub(crate) fn frequencies(&self, length: usize, out: &mut Vec<f32>) {
        out.clear();
        match &self.frequencies {
            Frequencies::Fixed(frequencies) => out.extend_from_slice(frequencies),
            Frequencies::Switched { short, long, original_context } => {
                out.extend_from_slice(if length > *original_context { long } else { short });
            }
            &Frequencies::Dynamic { base, dimensions, factor, context } => {
                let stretch = factor * length.max(context) as f64 / context as f64 - (factor - 1.0);
                let d = dimensions as f64;
                let base = base * stretch.powf(d / (d - 2.0));
                out.extend((0..dimensions / 2).map(|i| base.powf(-2.0 * i as f64 / d) as f32));
            }
        }
    }

    /// Dimensions of a head that are rotated, its first ones.
    pub(crate) fn dimensions(&self) -> usize {
        match &self.frequencies {
            Frequencies::Fixed(frequencies) => 2 * frequencies.len(),
            Frequencies::Switched { short, .. } => 2 * short.len(),
            Frequencies::Dynamic { dimensions, .. } => *dimensions,
        }
    }

    /// What multiplies cosine and sine of every angle.
    pub(crate) fn magnitude(&self) -> f32 {
        self.magnitude
    }

    /// As a cache is told, which knows one list: that of sequences beyond the original context, or of a base that has not
    /// grown yet.
    pub(super) fn rotation(&self) -> Rotation {
        let length = match &self.frequencies {
            Frequencies::Dynamic { context, .. } => *context,
            Frequencies::Fixed(_) | Frequencies::Switched { .. } => usize::MAX,
        };
        let mut frequencies = vec![];
        self.frequencies(length, &mut frequencies);
        Rotation { inverse_frequencies: frequencies.into() }
    }
}

/// `kept` of the frequency as it is, the rest divided by `factor`.
fn blend(frequency: f64, factor: f32, kept: f64) -> f64 {
    (1.0 - kept) * frequency / f64::from(factor) + kept * frequency
}

/// YaRN's magnitude for a stretch by `factor`.
pub(super) fn yarn_magnitude(factor: f32, weight: f32) -> f32 {
    if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 }
}

/// LongRoPE's magnitude for a stretch of `original_context` by `factor`.
pub(super) fn longrope_magnitude(factor: f32, original_context: usize) -> f32 {
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original_context as f32).ln()).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(base: f32, dimensions: usize, scaling: &Scaling, length: usize) -> Vec<f32> {
        let mut out = vec![];
        Rotary::new(base, dimensions, scaling).frequencies(length, &mut out);
        out
    }

    #[test]
    fn unscaled_frequencies_fall_from_one_by_the_base() {
        assert_eq!(frequencies(10_000.0, 4, &Scaling::None, 1), [1.0, 0.01]);
        let linear = frequencies(10_000.0, 4, &Scaling::Linear { factor: 4.0 }, 1);
        assert_eq!(linear, [0.25, 0.0025]);
    }

    #[test]
    fn llama3_keeps_fast_dimensions_and_slows_slow_ones() {
        let scaling = Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_context: 8192.0 };
        let plain = frequencies(500_000.0, 128, &Scaling::None, 1);
        let scaled = frequencies(500_000.0, 128, &scaling, 1);
        assert_eq!(plain[0], scaled[0]);
        assert!((plain[63] / scaled[63] - 8.0).abs() < 1e-4);
        let ratios: Vec<f32> = plain.iter().zip(scaled.iter()).map(|(p, s)| p / s).collect();
        assert!(ratios.windows(2).all(|r| r[0] <= r[1] + 1e-5), "the slowing grows with the dimension");
    }

    #[test]
    fn longrope_switches_behind_the_original_context() {
        let (short, long) = (vec![1.0, 2.0], vec![4.0, 8.0]);
        let scaling = Scaling::Longrope { short, long, original_context: 100, magnitude: 1.1 };
        assert_eq!(frequencies(10_000.0, 4, &scaling, 100), [1.0, 0.005]);
        assert_eq!(frequencies(10_000.0, 4, &scaling, 101), [0.25, 0.00125]);
    }

    #[test]
    fn a_dynamic_base_grows_with_the_length() {
        let scaling = Scaling::Dynamic { factor: 2.0, context: 100 };
        let at = |length| frequencies(10_000.0, 8, &scaling, length);
        assert_eq!(at(100), frequencies(10_000.0, 8, &Scaling::None, 1));
        // 2 · 300 / 100 − 1 = 5, to the power 8 / 6.
        let grown = frequencies(10_000.0 * 5.0_f32.powf(8.0 / 6.0), 8, &Scaling::None, 1);
        at(300).iter().zip(grown).for_each(|(a, b)| assert!((a / b - 1.0).abs() < 1e-5));
        assert_eq!(*Rotary::new(10_000.0, 8, &scaling).rotation().inverse_frequencies, *at(100));
    }
}
