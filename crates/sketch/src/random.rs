//! What the sketches draw from their seed, the same on every machine.

use crate::SplitMix64;
use crate::hash::P;

/// Draws from [`SplitMix64`].
#[derive(Debug, Clone)]
pub(crate) struct Random {
    bits: SplitMix64,
    /// The second of a pair of normal variates, kept for the next call.
    spare: Option<f64>,
}

impl Random {
    /// `purpose` separates streams drawn from one seed, so that no two tables share their randomness.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        Self { bits: SplitMix64::new(SplitMix64::new(purpose).next_u64() ^ seed), spare: None }
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.bits.next_u64()
    }

    /// Uniform on the field of 2^61 - 1 elements.
    pub(crate) fn field(&mut self) -> u64 {
        loop {
            let x = self.next_u64() >> 3;
            if x < P {
                return x;
            }
        }
    }

    /// Uniform on (-1, 1).
    fn symmetric(&mut self) -> f64 {
        ((self.next_u64() >> 11) as f64 + 0.5) * 2.0_f64.powi(-52) - 1.0
    }

    /// A standard normal variate by Marsaglia's polar method.
    ///
    /// The logarithm is `libm`'s, not the platform's: projections must come out the same to the last bit
    /// everywhere, or sketches built from one seed on two machines could not be merged.
    pub(crate) fn normal(&mut self) -> f64 {
        if let Some(z) = self.spare.take() {
            return z;
        }
        loop {
            let (u, v) = (self.symmetric(), self.symmetric());
            let s = u * u + v * v;
            if s < 1.0 && s > 0.0 {
                let r = (-2.0 * libm::log(s) / s).sqrt();
                self.spare = Some(v * r);
                return u * r;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_has_the_moments_of_a_standard_normal() {
        let mut random = Random::new(1, 2);
        let n = 200_000;
        let (mut m1, mut m2, mut m4) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            let z = random.normal();
            m1 += z;
            m2 += z * z;
            m4 += z.powi(4);
        }
        let n = n as f64;
        // Standard errors of the three means: 1, √2 and √96 over √n.
        assert!((m1 / n).abs() < 5.0 / n.sqrt());
        assert!((m2 / n - 1.0).abs() < 5.0 * (2.0 / n).sqrt());
        assert!((m4 / n - 3.0).abs() < 5.0 * (96.0 / n).sqrt());
    }

    #[test]
    fn streams_of_different_purpose_differ() {
        assert_ne!(Random::new(1, 1).next_u64(), Random::new(1, 2).next_u64());
        assert_ne!(Random::new(1, 1).next_u64(), Random::new(2, 1).next_u64());
    }
}
