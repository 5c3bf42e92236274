use sketchkv_sketch::SplitMix64;

/// What tasks and resamples draw from a seed, the same on every machine and version.
#[derive(Debug, Clone)]
pub struct Rng {
    bits: SplitMix64,
}

impl Rng {
    /// A generator whose whole output is determined by `seed`.
    pub fn new(seed: u64) -> Self {
        Rng { bits: SplitMix64::new(seed) }
    }

    /// An independent generator for the part of a job that `label` names: parts can then be made in any order.
    pub fn for_part(seed: u64, label: &str) -> Self {
        // FNV-1a over the label, mixed with the seed by one step of the generator.
        let hash = label
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        Rng::new(Rng::new(seed ^ hash.rotate_left(32)).next_u64())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.bits.next_u64()
    }

    /// A uniform index below `bound`, which must not be 0 (0 gives 0).
    pub fn below(&mut self, bound: usize) -> usize {
        // The high half of a 128-bit product; the bias is below 2^-32 for every bound used here.
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// A uniform number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        self.bits.unit()
    }

    /// A uniform element of `items`, which must not be empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// A uniform permutation in place.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_differ_and_repeat() {
        let draw = |seed, label| Rng::for_part(seed, label).next_u64();
        assert_eq!(draw(1, "niah"), draw(1, "niah"));
        assert_ne!(draw(1, "niah"), draw(2, "niah"));
        assert_ne!(draw(1, "niah"), draw(1, "niah2"));
    }

    #[test]
    fn below_is_uniform() {
        let mut rng = Rng::new(7);
        let mut counts = [0usize; 10];
        (0..100_000).for_each(|_| counts[rng.below(10)] += 1);
        // 10,000 expected each, standard deviation 95.
        assert!(counts.iter().all(|&c| (9_500..10_500).contains(&c)), "{counts:?}");
    }

    #[test]
    fn shuffle_keeps_every_item() {
        let mut items: Vec<usize> = (0..100).collect();
        Rng::new(3).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
