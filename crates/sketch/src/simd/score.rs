//! Scores of one real query against many sign codes, by table lookup.
//!
//! `Σ_j y_j s_j` over the 64 signs of a code word is a sum of 16 numbers, each a function of four bits of the code:
//! 16 tables of 16 sums replace 64 additions.

use super::Level;

/// The lookup tables of a query for one level.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    level: Level,
    words: usize,
    /// `[word][16 nibbles][16 values]`.
    sums: Vec<f32>,
}

impl Tables {
    /// The tables of projections `y`, one per bit; bits beyond them count nothing.
    pub(crate) fn new(level: Level, y: &[f32]) -> Self {
        let words = y.len().div_ceil(64);
        let mut sums = Vec::with_capacity(words * 256);
        for nibble in 0..words * 16 {
            let y = |bit: usize| y.get(4 * nibble + bit).copied().unwrap_or(0.0);
            let sign = |value: usize, bit: usize| if value >> bit & 1 == 1 { y(bit) } else { -y(bit) };
            sums.extend((0..16).map(|v| (sign(v, 0) + sign(v, 1)) + (sign(v, 2) + sign(v, 3))));
        }
        Self { level, words, sums }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.sums.capacity() * size_of::<f32>()
    }

    /// `out[i] = Σ_j y_j s_j(codes[i])`; `codes` is `[i][word]`.
    ///
    /// # Panics
    /// If `codes` is not `out.len()` codes.
    pub(crate) fn score_many(&self, codes: &[u64], out: &mut [f32]) {
        assert_eq!(Some(codes.len()), self.words.checked_mul(out.len()), "as many codes as outputs");
        let _ = self.level;
        self.scalar(codes, out);
    }

    fn scalar(&self, codes: &[u64], out: &mut [f32]) {
        for (out, code) in out.iter_mut().zip(codes.chunks_exact(self.words)) {
            *out = 0.0;
            for (&word, tables) in code.iter().zip(self.sums.chunks_exact(256)) {
                for (nibble, table) in tables.chunks_exact(16).enumerate() {
                    *out += table[(word >> (4 * nibble) & 15) as usize];
                }
            }
        }
    }
}
