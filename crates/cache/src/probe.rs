//! What attention looked at, for those who measure it.

use crate::attend::{Attend, StepScratch};
use crate::context::EMPTY;
use crate::head::Head;

/// Where the attention of one single-token step went, in one layer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attention {
    /// Weight of each position up to the token's own, `[query head][position]`; 0 where none was read. What a read
    /// gives to the mean of a page's unread slots is shared evenly among them.
    pub weights: Vec<Vec<f32>>,
    /// Weight of what stands for positions that are kept no longer, `[query head]`.
    pub remembered: Vec<f32>,
}

impl Attention {
    /// Takes what a step left behind, before its token is stored.
    pub(crate) fn of_step(attend: &Attend<'_>, heads: &[Head], scratch: &StepScratch) -> Attention {
        let mut attention = Attention::default();
        for (h, head) in heads.iter().enumerate() {
            let mut slots = vec![vec![0.0; head.slots.len()]; attend.shape.group()];
            let own: Vec<f32> = slots
                .iter_mut()
                .enumerate()
                .map(|(query, slots)| scratch.weights(attend, h, query, slots))
                .collect();
            scratch.add_rest(attend, h, head, &mut slots);
            for (slots, own) in slots.iter().zip(own) {
                let mut weights = vec![0.0; attend.position + 1];
                for (weight, &position) in slots.iter().zip(head.slots.positions()) {
                    if position != EMPTY {
                        weights[position as usize] = *weight;
                    }
                }
                weights[attend.position] = own;
                attention.remembered.push((1.0 - weights.iter().sum::<f32>()).max(0.0));
                attention.weights.push(weights);
            }
        }
        attention
    }
}
