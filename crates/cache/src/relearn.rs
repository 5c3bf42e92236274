//! Tokens judged anew by queries that run over a fork: a text that is read once and asked often.

use crate::Cache;

impl Cache {
    /// Whether the model is to repeat a document that is read whole, over forks that this cache [learns from](Cache::learn_from),
    /// before a cap lets tokens of it go.
    pub fn asks_for_repetition(&self) -> bool {
        self.layers.iter().flatten().any(|head| head.keep.asks_for_repetition())
    }

    /// Keeps that judge by attention (`kvzip`) forget what they have seen of it: the tokens held are to be judged by queries to
    /// come.
    pub fn forget_attention(&mut self) {
        for head in self.layers.iter_mut().flatten() {
            let (_, _, state) = head.slots.judged();
            head.keep.restart(state);
        }
    }

    /// Takes over what the keeps of `fork`, a [fork](Cache::fork) of this cache that has run on without evicting, have learned of
    /// the tokens that both hold.
    pub fn learn_from(&mut self, fork: &Cache) {
        for (head, fork) in self.layers.iter_mut().flatten().zip(fork.layers.iter().flatten()) {
            head.keep = fork.keep.clone_box();
            let words = head.keep.words();
            let (positions, _, state) = head.slots.judged();
            let both = positions.iter().zip(fork.slots.positions()).enumerate().filter(|(_, (a, b))| a == b);
            for (slot, _) in both {
                let own = slot * words..(slot + 1) * words;
                state[own.clone()].copy_from_slice(&fork.slots.state()[own]);
            }
        }
    }
}
