//! SplitMix64.

/// A small generator that gives the same numbers for a seed on every machine, for ever; not for secrets.
///
/// The state counts in steps of 2^64 / φ, and each number is [`mix`] of the state: 2^64 numbers, every one of them once.
///
/// Source: Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014.
///
/// ```
/// use sketchkv_sketch::SplitMix64;
///
/// let mut random = SplitMix64::new(1234567);
/// assert_eq!(random.next_u64(), 6457827717110365317);
/// // The state is all there is: a generator made from it goes on.
/// assert_eq!(SplitMix64::new(random.state()).next_u64(), random.next_u64());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// A generator whose whole output `seed` determines.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The seed of a generator that goes on from here.
    pub fn state(&self) -> u64 {
        self.state
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A uniform number in `[0, 1)`, a multiple of 2^-53.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The finalizer of [`SplitMix64`]: a bijection each of whose output bits depends on every input bit.
///
/// ```
/// assert_eq!(sketchkv_sketch::mix(0), 0);
/// assert_ne!(sketchkv_sketch::mix(1) >> 32, sketchkv_sketch::mix(2) >> 32);
/// ```
#[inline]
pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_authors_program() {
        let mut random = SplitMix64::new(1_234_567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(expected.map(|_| random.next_u64()), expected);
    }

    #[test]
    fn units_are_below_one_and_uniform() {
        let mut random = SplitMix64::new(5);
        let units: Vec<f64> = (0..100_000).map(|_| random.unit()).collect();
        assert!(units.iter().all(|unit| (0.0..1.0).contains(unit)));
        // The standard error of the mean is 0.0009.
        assert!((units.iter().sum::<f64>() / 1e5 - 0.5).abs() < 0.005);
    }
}
