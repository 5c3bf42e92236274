//! Taking the tokens of a pass into a layer: its keeps learn what was attended to, those who must go do, the others come in.

use crate::context::{Buffers, NewTokens, Sample};
use crate::format::Env;
use crate::head::{Head, Trace};
use crate::judgement::{Departures, Judgement};
use crate::plan::{Choosing, Limit, Question, Ranking, batch, plan, weigh};
use crate::profile::{Part, Stopwatch};
use crate::refine::Refine;
use crate::stakes::Stakes;
use std::cmp::Reverse;
use std::mem::size_of;

/// What a layer is asked to take in.
pub(crate) struct Admission<'a> {
    pub(crate) env: Env<'a>,
    pub(crate) layer: usize,
    pub(crate) choosing: Choosing,
    pub(crate) refine: Option<&'a dyn Refine>,
    /// An equal head's part.
    pub(crate) limit: Limit,
    /// How many tokens before the next one it still sees.
    pub(crate) visible: usize,
    /// Keys `[token][kv_head][key_dim]` and values `[token][kv_head][value_dim]` of the chunk.
    pub(crate) keys: &'a [f32],
    pub(crate) values: &'a [f32],
    /// How many; none where only the cap has changed.
    pub(crate) tokens: usize,
    /// Position of the first token.
    pub(crate) position: usize,
    /// What attention left behind, of each head.
    pub(crate) traces: &'a [Trace],
}

/// What becomes of one layer's admission from stage to stage, and its buffers.
#[derive(Default)]
pub(crate) struct AdmitScratch {
    pub(crate) judgements: Vec<Judgement>,
    pub(crate) departures: Vec<Departures>,
    /// What each head may hold.
    pub(crate) limits: Vec<Limit>,
    /// What is at stake in each head, where all heads of a cache compete.
    pub(crate) stakes: Vec<Stakes>,
    ranking: Ranking,
    expired: Vec<u32>,
    /// Of what is stored, tails and indexes.
    buffers: Buffers,
    /// Where the time of this admission goes, while that is taken.
    pub(crate) watch: Stopwatch,
}

impl AdmitScratch {
    pub(crate) fn bytes(&self) -> usize {
        self.judgements.iter().map(Judgement::bytes).sum::<usize>()
            + self.judgements.capacity() * size_of::<Judgement>()
            + self.departures.iter().map(Departures::bytes).sum::<usize>()
            + self.departures.capacity() * size_of::<Departures>()
            + self.ranking.bytes()
            + self.limits.capacity() * size_of::<Limit>()
            + self.stakes.iter().map(Stakes::bytes).sum::<usize>()
            + self.stakes.capacity() * size_of::<Stakes>()
            + self.expired.capacity() * size_of::<u32>()
            + self.buffers.bytes()
    }
}

impl<'a> Admission<'a> {
    /// Whether there is a sliding window.
    pub(crate) fn slides(&self) -> bool {
        self.visible != usize::MAX
    }

    /// The first position that the token after the chunk sees.
    fn first_visible(&self) -> usize {
        (self.position + self.tokens).saturating_sub(self.visible)
    }

    /// How many of the chunk's tokens are out of sight already: of a chunk longer than the window the first ones.
    fn skipped(&self) -> usize {
        self.first_visible().saturating_sub(self.position).min(self.tokens)
    }

    /// The new tokens of a head.
    pub(crate) fn new_tokens(&self, h: usize) -> NewTokens<'a> {
        NewTokens::new(self.keys, self.values, (self.traces.len(), h), self.tokens, self.position)
            .after(self.skipped())
    }

    /// Lets the keeps see what was attended to, evicts down to the limit, and stores the chunk.
    pub(crate) fn run(&self, heads: &mut [Head], scratch: &mut AdmitScratch, timed: bool) {
        scratch.watch = Stopwatch::start(timed);
        self.arrive(heads, scratch);
        self.plan(heads, scratch);
        self.leave(heads, scratch);
        self.settle(heads, scratch);
    }

    /// Lets the keeps see what was attended to and who comes, and forgets what a window has left behind.
    pub(crate) fn arrive(&self, heads: &mut [Head], scratch: &mut AdmitScratch) {
        let AdmitScratch { judgements, departures, limits, expired, .. } = scratch;
        judgements.resize_with(heads.len(), Judgement::default);
        departures.resize_with(heads.len(), Departures::default);
        departures.iter_mut().for_each(Departures::clear);
        limits.clear();
        limits.resize(heads.len(), self.limit);
        let skipped = self.skipped();
        for (h, head) in heads.iter_mut().enumerate() {
            if self.tokens > 0 {
                head.observe(&self.traces[h], self.tokens, self.position);
                head.expire(self.first_visible(), expired);
            }
            let (_, mass) = self.traces[h].masses(head.slots.len(), skipped);
            head.arrive(&self.new_tokens(h), mass, &mut judgements[h]);
        }
    }

    /// Chooses who goes, where the heads of a layer do so by themselves.
    pub(crate) fn plan(&self, heads: &mut [Head], scratch: &mut AdmitScratch) {
        let AdmitScratch { judgements, departures, ranking, .. } = scratch;
        plan(&self.question(&|h| self.new_tokens(h)), heads, judgements, departures, ranking);
        scratch.watch.lap(Part::Keep);
    }

    /// Weighs all tokens of all heads, as `excess` of each are about to go.
    pub(crate) fn weigh(&self, heads: &mut [Head], scratch: &mut AdmitScratch, excess: usize) {
        let AdmitScratch { judgements, ranking, .. } = scratch;
        let tokens = |h| self.new_tokens(h);
        let question = self.question(&tokens);
        for (h, (head, judgement)) in heads.iter_mut().zip(judgements).enumerate() {
            weigh(&question, h, head, judgement, excess, ranking);
        }
        scratch.watch.lap(Part::Keep);
    }

    /// How many tokens of a head go at a time.
    pub(crate) fn batch(&self, head: &Head) -> usize {
        batch(head, self.refine)
    }

    fn question<'q>(&'q self, tokens: &'q dyn Fn(usize) -> NewTokens<'q>) -> Question<'q> {
        Question {
            env: self.env,
            choosing: self.choosing,
            refine: self.refine,
            limit: self.limit,
            layer: self.layer,
            skipped: self.skipped(),
            slides: self.slides(),
            tokens,
            traces: self.traces,
        }
    }

    /// Frees the slots of those who go, and makes room for those who come.
    pub(crate) fn leave(&self, heads: &mut [Head], scratch: &mut AdmitScratch) {
        let AdmitScratch { judgements, departures, limits, buffers, watch, .. } = scratch;
        let skipped = self.skipped();
        for (h, head) in heads.iter_mut().enumerate() {
            let trace = &self.traces[h];
            let masses = trace.masses(head.slots.len(), skipped);
            head.evict(self.env, &self.new_tokens(h), masses, &judgements[h], &departures[h], buffers);
            if let Some(tail) = &mut head.tail
                && departures[h].count() > 0
            {
                tail.settle(&Sample::new(&trace.sample, self.env.format.keys.width), buffers);
            }
        }
        watch.lap(Part::Tail);
        let arriving = self.new_tokens(0).count;
        if matches!(self.choosing, Choosing::InLayer(_)) && self.limit.bytes != usize::MAX {
            make_room(self.env, heads, arriving, self.limit.bytes);
            return coarsen_together(self.env, heads, arriving, departures, self.limit.bytes);
        }
        match self.choosing {
            _ if self.tokens == 0 => {
                heads.iter_mut().for_each(|head| head.slots.compact(self.env, 0));
            }
            // Heads give back what they will not need themselves, and windows what others need more.
            choosing => {
                for (head, limit) in heads.iter_mut().zip(&*limits) {
                    if self.slides() || matches!(choosing, Choosing::InCache(_)) {
                        head.slots.compact(self.env, limit.slots);
                    }
                    // What is left of the last page may be open, which is dearer.
                    if self.slides() && head.bytes() > limit.bytes {
                        head.slots.seal(self.env, 1);
                    }
                }
            }
        }
        for (h, head) in heads.iter_mut().enumerate() {
            head.coarsen(self.env, arriving - departures[h].tokens.len(), limits[h].bytes);
        }
    }

    /// Stores those who stay.
    pub(crate) fn settle(&self, heads: &mut [Head], scratch: &mut AdmitScratch) {
        let AdmitScratch { judgements, departures, limits, buffers, .. } = scratch;
        for h in 0..heads.len() {
            let tokens = self.new_tokens(h);
            let bytes = match self.choosing {
                Choosing::InLayer(_) => pooled_bytes(self.env, heads, h, tokens.count, limits[h].bytes),
                _ => limits[h].bytes,
            };
            heads[h].store(self.env, &tokens, &judgements[h], &departures[h], buffers, bytes);
        }
        scratch.watch.lap(Part::Store);
    }
}

/// Where heads compete those that give come before those that take, so that the sum never exceeds the limit: they give
/// whole strips back and, when it gets narrow, each keeps only one open strip, which is dearer than a sealed one.
fn make_room(env: Env<'_>, heads: &mut [Head], tokens: usize, bytes: usize) {
    heads.iter_mut().for_each(|head| head.slots.compact(env, 0));
    if is_narrow(env, heads, tokens, bytes) {
        heads.iter_mut().for_each(|head| head.slots.seal(env, 1));
    }
}

/// Where heads compete they lose bits together: one that has less than its part must leave room to those that have more.
fn coarsen_together(
    env: Env<'_>,
    heads: &mut [Head],
    tokens: usize,
    departures: &[Departures],
    bytes: usize,
) {
    if !env.format.opens() {
        return;
    }
    let stay = |h: usize| tokens - departures[h].tokens.len();
    loop {
        let needed = heads.iter().enumerate().map(|(h, head)| head.needed(env.format, stay(h)));
        if needed.sum::<usize>() <= bytes.saturating_mul(heads.len()) {
            return;
        }
        let finest = heads.iter_mut().min_by_key(|head| (head.slots.rung(), Reverse(head.slots.len())));
        if !finest.is_some_and(|head| head.slots.coarsen_next(env)) {
            return;
        }
    }
}

fn is_narrow(env: Env<'_>, heads: &[Head], tokens: usize, bytes: usize) -> bool {
    let next = heads.iter().map(|head| head.bytes() + head.slots.growth(env.format, tokens));
    next.sum::<usize>() > bytes.saturating_mul(heads.len())
}

/// What a head may grow to beside the others. When it is narrow no head opens another strip that the others would have to
/// pay for.
fn pooled_bytes(env: Env<'_>, heads: &[Head], h: usize, tokens: usize, bytes: usize) -> usize {
    if bytes == usize::MAX {
        return bytes;
    }
    if is_narrow(env, heads, tokens, bytes) {
        return 0;
    }
    let others = heads.iter().enumerate().filter(|(other, _)| *other != h);
    (bytes * heads.len()).saturating_sub(others.map(|(_, head)| head.bytes()).sum())
}
