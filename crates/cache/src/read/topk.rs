use super::{Estimate, K, PROMPT, Read, View, Written};
use crate::context::{Buffers, Context, Partial, Softcap};
use crate::means::{Means, load_strips};
use crate::method::{Call, Choice, Kind, Method, Parameter};
use crate::state::{Reader, StateError, Writer};
use half::f16;
use sketchkv_kernels::attention::codes::{CODE_PAGE, code_page_bytes, code_scores, put_code};
use sketchkv_kernels::attention::layout::{MAX_DIM, STRIP};
use sketchkv_kernels::attention::{Strips, maximum, strip_exponentials};
use sketchkv_kernels::cpu;
use sketchkv_kernels::half::to_f16;
use sketchkv_sketch::{Projection, SimHash};
use std::mem::size_of;
use std::ops::Range;

pub(super) static METHOD: Method = Method {
    name: "topk",
    choice: Choice::Read,
    summary: "a sketch index: the strips in which sign codes of the keys promise most attention",
    formula: "s_i = sign(R(k_i − m)), c_i = mean |R(k_i − m)|; logit_i ≈ ⟨Rq, s_i⟩·c_i / (bits·√d); a strip of 16 slots is \
              worth Σ_i of the mean over the group of softmax_i; the k/16 worthiest are read",
    state: "bits/8 + 2 B a slot, 16d B a head; with rest=pages, 4d + 8 B a page of 64 slots",
    paper: "the top-k strategy of the original project; asymmetric sign codes after Dong, Charikar & Li 2008",
    differs: "Whole strips are chosen, because a strip is what memory gives at once. On real keys that needs about \
              twice the slots of choosing single ones, and by sums of estimated attention fewer than by the best slot of \
              a strip. m is the mean of the first 64 keys.",
    parameters: &[
        K,
        PROMPT,
        Parameter {
            name: "bits",
            kind: Kind::Integer(16, MAX_BITS as i64),
            default: "64",
            help: "bits of a code, rounded up to a multiple of 8",
        },
        Parameter {
            name: "rest",
            kind: Kind::Word(&["none", "pages"]),
            default: "none",
            help: "pages: what is not read of a page of 64 slots enters as one token of the page's means",
        },
    ],
};

pub(super) fn build(call: &Call, context: &Context<'_>) -> Option<Box<dyn Read>> {
    let bits = call.count("bits").next_multiple_of(8);
    let dim = context.layer().key_dim;
    // Three rounds of signs and transforms cost next to nothing to hold and to apply; one rotation serves all heads
    // alike, so the seed is the run's.
    let hash = SimHash::new(dim, bits, Projection::Hadamard, context.seed)
        .expect("the parameters are within the bounds of the sketch");
    Some(Box::new(TopK {
        k: call.count("k"),
        softcap: context.softcap(),
        hash,
        mean: vec![0.0; dim].into(),
        seen: 0,
        codes: Strips::default(),
        factors: vec![],
        rest: (call.word("rest") == "pages").then(|| Means::new(0, context)),
    }))
}

/// The most bits of a code.
const MAX_BITS: usize = 512;

/// Keys after which the mean is left alone: codes are comparable only around the same mean.
const MEAN_OF: u32 = 64;

/// Strips whose logits are estimated at a time, so that they stay in the first-level cache.
const BLOCK: usize = 64;

/// The share β of the spread of a page's keys that counts, see [`Means`]; the best of 0, 0.3 and 0.5 on real keys.
const SPREAD: f32 = 0.3;

#[derive(Clone)]
struct TopK {
    k: usize,
    softcap: Softcap,
    hash: SimHash,
    /// m
    mean: Box<[f32]>,
    /// Keys that the mean is of.
    seen: u32,
    /// Pages of codes.
    codes: Strips,
    /// c_i, `[slot]`.
    factors: Vec<f16>,
    /// Of each page of slots.
    rest: Option<Means>,
}

impl TopK {
    fn bits(&self) -> usize {
        self.hash.bits()
    }

    /// Projections of `x`, `[row][head_dim]`, times `scale`, `[row][bit]`.
    fn project(&self, x: &[f32], scale: f32, out: &mut [f32]) {
        for (x, out) in x.chunks_exact(self.hash.dim()).zip(out.chunks_exact_mut(self.bits())) {
            self.hash.project(x, out);
        }
        out.iter_mut().for_each(|x| *x *= scale);
    }
}

/// Groups of the means of so many slots: one a page, in strips.
fn groups(slots: usize) -> usize {
    slots.div_ceil(CODE_PAGE).next_multiple_of(STRIP)
}

impl Read for TopK {
    fn clone_box(&self) -> Box<dyn Read> {
        Box::new(self.clone())
    }

    fn bytes(&self, slots: usize) -> usize {
        let pages = slots.div_ceil(CODE_PAGE);
        self.hash.bytes()
            + self.mean.len() * size_of::<f32>()
            + pages * (code_page_bytes(self.bits()) + CODE_PAGE * size_of::<f16>())
            + self.rest.as_ref().map_or(0, |rest| rest.bytes_of(groups(slots)))
    }

    fn resize(&mut self, slots: usize) {
        let pages = slots.div_ceil(CODE_PAGE);
        self.codes.resize(pages * code_page_bytes(self.bits()));
        self.factors.reserve_exact((pages * CODE_PAGE).saturating_sub(self.factors.len()));
        self.factors.resize(pages * CODE_PAGE, f16::ZERO);
        self.factors.shrink_to_fit();
        if let Some(rest) = &mut self.rest {
            rest.resize(groups(slots));
        }
        if slots == 0 {
            self.mean.fill(0.0);
            self.seen = 0;
        }
    }

    fn slots_read(&self) -> usize {
        self.k
    }

    fn write(&mut self, token: &Written<'_>, buffers: &mut Buffers) {
        let mut centred = [0.0; MAX_DIM];
        let centred = &mut centred[..token.key.len()];
        let of_both = token.key.iter().zip(&self.mean);
        centred.iter_mut().zip(of_both).for_each(|(x, (k, m))| *x = k - m);
        let mut projections = [0.0; MAX_BITS];
        let projections = &mut projections[..self.bits()];
        self.project(centred, 1.0, projections);
        let bytes = code_page_bytes(self.bits());
        let page = &mut self.codes[token.slot / CODE_PAGE * bytes..][..bytes];
        let factor = put_code(page, token.slot % CODE_PAGE, projections);
        self.factors[token.slot] = to_f16(factor);
        if self.seen < MEAN_OF {
            self.seen += 1;
            let rate = 1.0 / self.seen as f32;
            self.mean.iter_mut().zip(&*centred).for_each(|(m, x)| *m += x * rate);
        }
        if let Some(rest) = &mut self.rest {
            // A token that takes the place of another cannot take it out of the mean, but weighs as if it did.
            let rate = 1.0 / (token.others.count_ones() + 1) as f32;
            let page = token.slot / CODE_PAGE;
            let mut distance = 0.0;
            if token.others != 0 {
                let distances = rest.distances(token.key, buffers);
                distance = distances[page];
                buffers.give_floats([distances]);
            }
            rest.join(page, token.key, token.value, rate, distance);
        }
    }

    fn estimate(&self, queries: &[f32], view: &View<'_>, strips: Range<usize>, out: &mut Estimate) {
        let level = cpu::level();
        let Estimate { coded, logits, masses, max, sum, buffers, .. } = out;
        let mut projections = buffers.floats(queries.len() / self.hash.dim() * self.bits());
        self.project(queries, 1.0 / self.bits() as f32, &mut projections);
        coded.set(level, &projections, self.bits());
        buffers.give_floats([projections]);
        let bytes = code_page_bytes(self.bits());
        max.resize(coded.count(), f32::NEG_INFINITY);
        sum.resize(coded.count(), 0.0);
        masses.resize(coded.count() * strips.len(), 0.0);
        for first in strips.clone().step_by(BLOCK) {
            let block = (strips.end - first).min(BLOCK);
            let pages = first * STRIP / CODE_PAGE..((first + block) * STRIP).div_ceil(CODE_PAGE);
            let (slots, live) = (pages.len() * CODE_PAGE, &view.live[pages.clone()]);
            let codes = &self.codes[pages.start * bytes..pages.end * bytes];
            let factors = &self.factors[pages.start * CODE_PAGE..pages.end * CODE_PAGE];
            logits.resize(coded.count() * slots, 0.0);
            code_scores(level, coded, codes, factors, logits, slots);
            self.softcap.apply(logits);
            let rows = logits.chunks_exact_mut(slots).zip(masses.chunks_exact_mut(strips.len()));
            for ((logits, masses), (max, sum)) in rows.zip(max.iter_mut().zip(sum.iter_mut())) {
                mask(live, logits);
                let (before, masses) = masses.split_at_mut(first - strips.start);
                let most = maximum(level, logits);
                if most > *max {
                    let scale = (*max - most).exp();
                    before.iter_mut().for_each(|mass| *mass *= scale);
                    (*max, *sum) = (most, *sum * scale);
                }
                *sum += strip_exponentials(level, &logits[..block * STRIP], *max, &mut masses[..block]);
            }
        }
    }

    fn rest(
        &self,
        queries: &[f32],
        view: &View<'_>,
        chosen: &[u32],
        partial: &mut Partial,
        buffers: &mut Buffers,
    ) {
        let Some(rest) = &self.rest else { return };
        let mut unread = buffers.words();
        unread.extend_from_slice(view.live);
        for &strip in chosen {
            unread[strip as usize / 4] &= !(0xffff << (strip % 4 * 16));
        }
        if unread.iter().any(|&slots| slots != 0) {
            // ln 0 = −∞ leaves a page out.
            let mut logs = buffers.floats(groups(view.positions.len()));
            logs.fill(f32::NEG_INFINITY);
            logs.iter_mut().zip(&unread).for_each(|(log, slots)| *log = (slots.count_ones() as f32).ln());
            rest.attend(queries, &logs, SPREAD, partial, buffers);
            buffers.give_floats([logs]);
        }
        buffers.give_words(unread);
    }

    fn save(&self, out: &mut Writer) {
        out.u64(self.seen.into());
        out.floats(&self.mean);
        out.blob(&self.codes);
        self.factors.iter().for_each(|factor| out.raw(&factor.to_le_bytes()));
        if let Some(rest) = &self.rest {
            rest.save(out);
        }
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.seen = from.length(MEAN_OF as usize)? as u32;
        self.mean = from.floats(self.mean.len())?.into();
        load_strips(&mut self.codes, from)?;
        let bytes = from.raw(self.factors.len() * size_of::<f16>())?;
        for (factor, bytes) in self.factors.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *factor = f16::from_le_bytes(*bytes);
        }
        self.rest.as_mut().map_or(Ok(()), |rest| rest.load(from))
    }
}

/// Takes out the slots that hold no token.
fn mask(live: &[u64], scores: &mut [f32]) {
    for (live, scores) in live.iter().zip(scores.chunks_exact_mut(CODE_PAGE)) {
        let mut dead = !live;
        while dead != 0 {
            scores[dead.trailing_zeros() as usize] = f32::NEG_INFINITY;
            dead &= dead - 1;
        }
    }
}
