use super::{Context, Keep, RECENT, SINKS, Step, interval};
use crate::context::{Buffers, Candidates, EMPTY, GroupQueries, Softcap};
use crate::method::{Call, Choice, Kind, Method, Parameter};
use crate::state::{Reader, StateError, Writer};
use half::f16;
use sketchkv_kernels::attention::{add_scaled, exponentials, maximum};
use sketchkv_kernels::half::{f16_to_f32, to_f16};

pub(super) static METHOD: Method = Method {
    name: "snapkv",
    choice: Choice::Keep,
    summary: "the tokens that the last queries look at, and their neighbours",
    formula: "s_i = mean over the last `window` queries and the group of a_i, averaged over `pool` neighbouring \
              positions; evict argmin s",
    state: "2·window·d B a query head",
    paper: "SnapKV, arXiv 2404.14469",
    differs: "The paper selects once, after the prompt. Here the last queries wait in a ring, in f16, and the selection \
              is repeated every `interval` tokens, under a cap; neighbours are those among the kept. The protected \
              newest tokens are `recent`, whatever the window.",
    parameters: &[
        Parameter {
            name: "window",
            kind: Kind::Integer(1, 1024),
            default: "32",
            help: "queries whose attention counts",
        },
        Parameter {
            name: "pool",
            kind: Kind::Integer(1, 63),
            default: "5",
            help: "neighbouring positions over which attention is averaged",
        },
        interval("128"),
        SINKS,
        RECENT,
    ],
};

/// Queries multiplied at a time: what bounds the working memory.
const BLOCK: usize = 16;

pub(super) fn build(call: &Call, context: &Context<'_>) -> Box<dyn Keep> {
    let (window, width) = (call.count("window"), context.layer().group() * context.layer().key_dim);
    Box::new(SnapKv {
        pool: call.count("pool"),
        interval: call.count("interval"),
        head_dim: context.layer().key_dim,
        scale: context.layer().scale,
        softcap: context.softcap(),
        ring: vec![f16::ZERO; window * width],
        width,
        seen: 0,
    })
}

#[derive(Clone)]
struct SnapKv {
    pool: usize,
    interval: usize,
    head_dim: usize,
    scale: f32,
    softcap: Softcap,
    /// The queries of the token at position p lie at p modulo the window: `[window][query][head_dim]`.
    ring: Vec<f16>,
    /// Numbers in the queries of a token.
    width: usize,
    /// Position of the next token.
    seen: usize,
}

impl Keep for SnapKv {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        self.ring.capacity() * size_of::<f16>()
    }

    fn is_attention(&self) -> bool {
        true
    }

    fn batch(&self) -> usize {
        self.interval
    }

    /// The last queries.
    fn digest(&self, queries: &GroupQueries<'_>, out: &mut Vec<f32>) {
        let first = queries.tokens().saturating_sub(self.window());
        (first..queries.tokens()).for_each(|token| out.extend_from_slice(queries.token(token)));
    }

    fn observe(&mut self, step: &Step<'_>, _: &mut [u32]) {
        let window = self.window();
        self.seen = step.position + step.tokens;
        let first = self.seen - step.digest.len() / self.width;
        for (position, queries) in (first..).zip(step.digest.chunks_exact(self.width)) {
            let place = position % window * self.width;
            for (to, from) in self.ring[place..][..self.width].iter_mut().zip(queries) {
                *to = to_f16(*from);
            }
        }
    }

    fn weigh(&mut self, candidates: &mut [Candidates<'_>; 2], out: &mut [f32], buffers: &mut Buffers) {
        let mut attention = buffers.floats(out.len());
        self.attend(candidates, &mut attention, buffers);
        self.smooth(candidates, &attention, out, buffers);
        buffers.give_floats([attention]);
    }

    fn save(&self, out: &mut Writer) {
        out.u64(self.seen as u64);
        self.ring.iter().for_each(|x| out.raw(&x.to_le_bytes()));
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.seen = from.length(u32::MAX as usize)?;
        let bytes = from.raw(self.ring.len() * size_of::<f16>())?;
        for (x, bytes) in self.ring.iter_mut().zip(bytes.as_chunks().0) {
            *x = f16::from_le_bytes(*bytes);
        }
        Ok(())
    }
}

impl SnapKv {
    fn window(&self) -> usize {
        self.ring.len() / self.width
    }

    /// Adds the mean attention weight of every candidate over the queries in the ring.
    fn attend(&self, candidates: &[Candidates<'_>; 2], mean: &mut [f32], buffers: &mut Buffers) {
        let (d, n, level) = (self.head_dim, mean.len(), candidates[0].level());
        let group = self.width / d;
        let window = self.window().min(self.seen);
        let first = self.seen - window;
        // What some query of the ring must not see, by position and index: later tokens, and slots without one.
        let mut hidden = buffers.words();
        hidden.extend(placed(candidates).filter(|&word| position_of(word) > first));
        let weight = 1.0 / (window * group) as f32;
        let split = candidates[0].len();
        let block = (BLOCK / group).max(1);
        let mut queries = buffers.floats(block * self.width);
        let mut products = [split, n - split].map(|keys| buffers.floats(block * group * keys));
        let mut scores = buffers.floats(n);
        for token in (first..self.seen).step_by(block) {
            let tokens = block.min(self.seen - token);
            for (position, queries) in (token..token + tokens).zip(queries.chunks_exact_mut(self.width)) {
                let place = position % self.window() * self.width;
                f16_to_f32(&self.ring[place..][..self.width], queries);
                queries.iter_mut().for_each(|q| *q *= self.scale);
            }
            for (candidates, products) in candidates.iter().zip(&mut products) {
                candidates.dot(&queries[..tokens * self.width], products, buffers);
            }
            for query in 0..tokens * group {
                let position = token + query / group;
                scores[..split].copy_from_slice(&products[0][query * split..][..split]);
                scores[split..].copy_from_slice(&products[1][query * (n - split)..][..n - split]);
                self.softcap.apply(&mut scores);
                for &word in hidden.iter().filter(|&&word| position_of(word) > position) {
                    scores[index_of(word)] = f32::NEG_INFINITY;
                }
                let max = maximum(level, &scores);
                if max == f32::NEG_INFINITY {
                    // Of the tokens this query saw none is left.
                    continue;
                }
                let sum = exponentials(level, &mut scores, max);
                add_scaled(level, mean, weight / sum, &scores);
            }
        }
        buffers.give_words(hidden);
        buffers.give_floats(products.into_iter().chain([queries, scores]));
    }

    /// Averages over the neighbours in the order of positions; at the ends over those that there are.
    fn smooth(
        &self,
        candidates: &[Candidates<'_>; 2],
        attention: &[f32],
        out: &mut [f32],
        buffers: &mut Buffers,
    ) {
        let mut order = buffers.words();
        order.extend(placed(candidates).filter(|&word| position_of(word) != EMPTY as usize));
        order.sort_unstable();
        let mut sorted = buffers.floats(order.len());
        sorted.iter_mut().zip(&order).for_each(|(sorted, &word)| *sorted = attention[index_of(word)]);
        let (before, after) = (self.pool / 2, self.pool.div_ceil(2));
        for (rank, &word) in order.iter().enumerate() {
            let near = &sorted[rank.saturating_sub(before)..(rank + after).min(sorted.len())];
            out[index_of(word)] = near.iter().sum::<f32>() / near.len() as f32;
        }
        buffers.give_words(order);
        buffers.give_floats([sorted]);
    }
}

/// Of every candidate its position and its index, a word that sorts by position.
fn placed<'a>(candidates: &'a [Candidates<'_>; 2]) -> impl Iterator<Item = u64> + 'a {
    let positions = candidates.iter().flat_map(|candidates| candidates.positions);
    positions.zip(0..).map(|(&position, index)| u64::from(position) << 32 | index)
}

fn position_of(word: u64) -> usize {
    (word >> 32) as usize
}

fn index_of(word: u64) -> usize {
    (word & u64::from(u32::MAX)) as usize
}
