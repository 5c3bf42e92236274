use super::{Estimate, K, PROMPT, Read, View, Written};
use crate::context::{Buffers, Context, Softcap};
use crate::means::{load_strips, wide};
use crate::method::{Call, Choice, Kind, Method, Parameter};
use crate::state::{Reader, StateError, Writer};
use sketchkv_kernels::attention::layout::{Encoding, STRIP, Side, StripLayout, padded};
use sketchkv_kernels::attention::{Strips, exponentials, key_scores, maximum};
use sketchkv_kernels::cpu;
use std::ops::Range;

pub(super) static METHOD: Method = Method {
    name: "quest",
    choice: Choice::Read,
    summary: "the pages whose keys could promise most: bounds of every dimension",
    formula: "bound = Σ_j max(q_j·min_j, q_j·max_j)/√d; the pages of largest mean over the group of softmax(bound) are \
              read, k slots in all",
    state: "4d B a page, in f16",
    paper: "Quest, arXiv 2406.10774",
    differs: "The heads of a group choose together, since they share the keys. Where a slot is reused the bounds of its \
              page only widen, until the page is empty.",
    parameters: &[
        K,
        PROMPT,
        Parameter {
            name: "page",
            kind: Kind::Word(&["16", "32", "64"]),
            default: "32",
            help: "slots that share bounds",
        },
    ],
};

pub(super) fn build(call: &Call, context: &Context<'_>) -> Option<Box<dyn Read>> {
    Some(Box::new(Quest {
        k: call.count("k"),
        softcap: context.softcap(),
        page: call.word("page").parse().expect("the words are numbers"),
        layout: StripLayout::new(Side::Keys, Encoding::F16, padded(context.layer().key_dim)),
        head_dim: context.layer().key_dim,
        low: Strips::default(),
        high: Strips::default(),
    }))
}

#[derive(Clone)]
struct Quest {
    k: usize,
    softcap: Softcap,
    /// Slots a page.
    page: usize,
    /// Of 16 pages, where a page has the place of a slot.
    layout: StripLayout,
    head_dim: usize,
    /// Least of each dimension.
    low: Strips,
    /// Largest of each dimension.
    high: Strips,
}

impl Quest {
    /// Bytes of the lower or of the upper bounds.
    fn side_bytes(&self, slots: usize) -> usize {
        slots.div_ceil(self.page).div_ceil(STRIP) * self.layout.strip_bytes()
    }
}

impl Read for Quest {
    fn clone_box(&self) -> Box<dyn Read> {
        Box::new(self.clone())
    }

    fn bytes(&self, slots: usize) -> usize {
        2 * self.side_bytes(slots)
    }

    fn resize(&mut self, slots: usize) {
        let bytes = self.side_bytes(slots);
        self.low.resize(bytes);
        self.high.resize(bytes);
    }

    fn write(&mut self, token: &Written<'_>, _: &mut Buffers) {
        let (page, bytes) = (token.slot / self.page, self.layout.strip_bytes());
        let first = token.slot % 64 / self.page * self.page;
        let slots = u64::MAX >> (64 - self.page) << first;
        let alone = token.others & slots == 0;
        let move_bound = |side: &mut Strips, further: fn(f32, f32) -> f32| {
            let strip = &mut side[page / STRIP * bytes..][..bytes];
            let mut bound = [0.0; 512];
            let bound = &mut bound[..self.layout.dim()];
            self.layout.get(strip, page % STRIP, None, bound);
            for (bound, &x) in bound.iter_mut().zip(token.key) {
                *bound = if alone { x } else { further(*bound, x) };
            }
            self.layout.put(strip, page % STRIP, bound);
        };
        move_bound(&mut self.low, f32::min);
        move_bound(&mut self.high, f32::max);
    }

    fn slots_read(&self) -> usize {
        self.k
    }

    fn estimate(&self, queries: &[f32], view: &View<'_>, strips: Range<usize>, out: &mut Estimate) {
        // max(q·min, q·max) = max(q, 0)·max + min(q, 0)·min: two products.
        let level = cpu::level();
        let Estimate { logits, masses, max: maxima, sum: sums, buffers, .. } = out;
        let mut split = |part: fn(f32, f32) -> f32| {
            let mut parts = buffers.floats(queries.len());
            parts.iter_mut().zip(queries).for_each(|(x, &q)| *x = part(q, 0.0));
            let wide = wide(&parts, self.head_dim, buffers);
            buffers.give_floats([parts]);
            wide
        };
        let (above, below) = (split(f32::max), split(f32::min));
        // Of 16 pages.
        let bounds = strips.start / self.page..strips.end.div_ceil(self.page);
        let (pages, bytes) = (bounds.len() * STRIP, self.layout.strip_bytes());
        let bytes = bounds.start * bytes..bounds.end * bytes;
        logits.resize(2 * above.count() * pages, 0.0);
        let (logits, lower) = logits.split_at_mut(above.count() * pages);
        key_scores(level, &self.layout, None, &above, self.high[bytes.clone()].into(), logits, pages);
        key_scores(level, &self.layout, None, &below, self.low[bytes].into(), lower, pages);
        logits.iter_mut().zip(&*lower).for_each(|(bound, lower)| *bound += lower);
        self.softcap.apply(logits);

        masses.resize(above.count() * strips.len(), 0.0);
        let masses = masses.chunks_exact_mut(strips.len());
        let in_page = self.page / STRIP;
        for (bounds, masses) in logits.chunks_exact_mut(pages).zip(masses) {
            for (page, bound) in bounds.iter_mut().enumerate() {
                let first = strips.start + page * in_page;
                let live =
                    (first..first + in_page).any(|strip| strip < strips.end && view.live_in(strip) != 0);
                if !live {
                    *bound = f32::NEG_INFINITY;
                }
            }
            let max = maximum(level, bounds);
            maxima.push(max);
            sums.push(exponentials(level, bounds, max));
            for (strip, mass) in masses.iter_mut().enumerate() {
                *mass = bounds[strip / in_page];
            }
        }
        buffers.give_queries([above, below]);
    }

    fn save(&self, out: &mut Writer) {
        out.blob(&self.low);
        out.blob(&self.high);
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        load_strips(&mut self.low, from)?;
        load_strips(&mut self.high, from)
    }
}
