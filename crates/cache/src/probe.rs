//! What attention looked at, for those who measure it.

use crate::attend::{Attend, StepScratch};
use crate::context::EMPTY;
use crate::head::{Head, Trace};

/// Where the attention of a pass went, in one layer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attention {
    /// Where the keep asks for attention, what each position up to the last drew of it, `[kv_head][position]`: summed over
    /// the tokens of the pass as the keep wants them weighed, mean over the group.
    pub drawn: Vec<Vec<f32>>,
    /// Of a single-token step, the weight of each position up to the token's own, `[query head][position]`; 0 where none was
    /// read. What a read gives to the mean of a page's unread slots is shared evenly among them.
    pub weights: Vec<Vec<f32>>,
    /// Of a single-token step, the weight of what stands for positions that are kept no longer, `[query head]`.
    pub remembered: Vec<f32>,
}

impl Attention {
    /// Takes what a pass left behind, before its tokens are stored.
    pub(crate) fn of_pass(
        attend: &Attend<'_>,
        heads: &[Head],
        traces: &[Trace],
        scratch: &StepScratch,
    ) -> Attention {
        let drawn = heads.iter().zip(traces).filter(|(_, trace)| !trace.mass.is_empty());
        let drawn = drawn.map(|(head, trace)| {
            let (old, new) = trace.mass.split_at(head.slots.len());
            let mut weights = by_position(head, old, attend.position);
            weights.extend_from_slice(new);
            weights
        });
        let mut attention = Attention { drawn: drawn.collect(), ..Attention::default() };
        if attend.tokens > 1 {
            return attention;
        }
        for (h, head) in heads.iter().enumerate() {
            let mut slots = vec![vec![0.0; head.slots.len()]; attend.shape.group()];
            let own: Vec<f32> = slots
                .iter_mut()
                .enumerate()
                .map(|(query, slots)| scratch.weights(attend, h, query, slots))
                .collect();
            scratch.add_rest(attend, h, head, &mut slots);
            for (slots, own) in slots.iter().zip(own) {
                let mut weights = by_position(head, slots, attend.position);
                weights.push(own);
                attention.remembered.push((1.0 - weights.iter().sum::<f32>()).max(0.0));
                attention.weights.push(weights);
            }
        }
        attention
    }
}

/// The weights of slots in the order of positions, those before `end`; 0 where there is no slot.
fn by_position(head: &Head, slots: &[f32], end: usize) -> Vec<f32> {
    let mut weights = vec![0.0; end];
    for (weight, &position) in slots.iter().zip(head.slots.positions()) {
        if position != EMPTY {
            weights[position as usize] = *weight;
        }
    }
    weights
}
