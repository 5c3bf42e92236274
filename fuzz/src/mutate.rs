use sketchkv_sketch::SplitMix64;

/// Makes new inputs out of seeds, the way coverage-guided fuzzers do, but blindly and reproducibly.
pub struct Mutator {
    random: SplitMix64,
}

/// Numbers at which length and offset arithmetic goes wrong.
const EDGES: [u64; 9] =
    [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX - 7, u64::MAX];

impl Mutator {
    /// A mutator that always takes the same path from the same `seed`.
    pub fn new(seed: u64) -> Self {
        Mutator { random: SplitMix64::new(seed) }
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.random.next_u64() % bound.max(1) as u64) as usize
    }

    /// One of `seeds`, changed in one to eight places; `seeds` must not be empty.
    pub fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut input = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(8) {
            self.change(&mut input, seeds);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(input.len());
        match self.below(7) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 if !input.is_empty() => input[at] = self.random.next_u64() as u8,
            2 => input.truncate(at),
            3 => input.insert(at, self.random.next_u64() as u8),
            4 => {
                let edge = EDGES[self.below(EDGES.len())].to_le_bytes();
                let width = 1 << self.below(4);
                let end = (at + width).min(input.len());
                input[at..end].copy_from_slice(&edge[..end - at]);
            }
            5 => {
                let end = at + self.below(input.len() - at + 1);
                let piece = input[at..end].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, piece);
            }
            _ => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
}
