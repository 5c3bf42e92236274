/// Tokens that may be chosen: bit i % 32 of word i / 32 is token i. Tokens beyond the last word may not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mask<'m>(pub(super) &'m [u32]);

impl<'m> Mask<'m> {
    /// Those below `vocabulary` that are allowed, the smallest first.
    pub(super) fn tokens(self, vocabulary: usize) -> impl Iterator<Item = u32> + 'm {
        let words = self.0.iter().enumerate().filter(|(_, bits)| **bits != 0);
        let tokens = words.flat_map(|(word, &bits)| {
            let mut left = bits;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.wrapping_sub(1);
                (bit < u32::BITS).then_some(word as u32 * u32::BITS + bit)
            })
        });
        tokens.take_while(move |&token| (token as usize) < vocabulary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_tokens() {
        let tokens = |words: &[u32], vocabulary| Mask(words).tokens(vocabulary).collect::<Vec<_>>();
        assert_eq!(tokens(&[0b1010, 0, 1 << 31 | 1], 100), [1, 3, 64, 95]);
        assert_eq!(tokens(&[0b1010, 0, 1 << 31 | 1], 95), [1, 3, 64]);
        assert_eq!(tokens(&[u32::MAX], 32), (0..32).collect::<Vec<_>>());
        assert!(tokens(&[], 9).is_empty() && tokens(&[1], 0).is_empty());
    }
}
