//! What attention looked at, for those who measure it.

use crate::attend::{Call, Scratch};
use crate::head::{EMPTY, Head};

/// Where the attention of one single-token step went, in one layer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attention {
    /// Weight of each position up to the token's own, `[query head][position]`; 0 where none was read.
    pub weights: Vec<Vec<f32>>,
    /// Weight of what stands for positions that were not read, a tail's or a read's estimate, `[query head]`.
    pub remembered: Vec<f32>,
}

impl Attention {
    /// Takes what a step left behind, before its token is stored.
    pub(crate) fn of_step(call: &Call<'_>, heads: &[Head], scratch: &Scratch) -> Attention {
        let mut attention = Attention::default();
        for (h, head) in heads.iter().enumerate() {
            for query in 0..call.group {
                let mut slots = vec![0.0; head.slots()];
                let own = scratch.weights(call, h, query, &mut slots);
                let mut weights = vec![0.0; call.chunks[h].position + 1];
                for (weight, &position) in slots.iter().zip(head.positions()) {
                    if position != EMPTY {
                        weights[position as usize] = *weight;
                    }
                }
                weights[call.chunks[h].position] = own;
                attention.remembered.push((1.0 - weights.iter().sum::<f32>()).max(0.0));
                attention.weights.push(weights);
            }
        }
        attention
    }
}
