//! Who goes, so that the tokens of a chunk fit: a value, computed before anything moves.

use crate::context::{Buffers, NewTokens};
use crate::format::Env;
use crate::head::{Head, Trace};
use crate::judgement::{Departures, Judgement};
use crate::refine::Refine;
use sketchkv_kernels::attention::layout::STRIP;
use std::cmp::Ordering;
use std::mem::size_of;

/// How the heads of a layer choose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Choosing {
    /// Each for itself.
    Alone,
    /// The same tokens in every head: those of least mean importance.
    Alike,
    /// All tokens of the heads of a layer compete; each head keeps this share of an equal part.
    InLayer(f32),
    /// All heads of the cache compete (`contest.rs`); each keeps this share of an equal part.
    InCache(f32),
}

/// How much a head may hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limit {
    /// Tokens in slots.
    pub(crate) slots: usize,
    /// Bytes, everything of this head included.
    pub(crate) bytes: usize,
}

impl Limit {
    pub(crate) const NONE: Limit = Limit { slots: usize::MAX, bytes: usize::MAX };

    /// Slots that a head has in the mean where heads compete: each may leave part of a strip empty, and that much less
    /// is held.
    fn pooled_slots(self) -> usize {
        if self.bytes == usize::MAX { self.slots } else { self.slots - (STRIP - 1) }
    }
}

/// A candidate on its way through a selection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ranked {
    pub(crate) importance: f32,
    pub(crate) position: u32,
    pub(crate) candidate: u32,
    pub(crate) head: u32,
}

impl Ranked {
    /// Less important first; of equals, older first.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        let by_importance = self.importance.total_cmp(&other.importance);
        by_importance.then(self.position.cmp(&other.position)).then(self.head.cmp(&other.head))
    }
}

/// Buffers of a selection.
#[derive(Default)]
pub(crate) struct Ranking {
    order: Vec<Ranked>,
    mean: Vec<f32>,
    buffers: Buffers,
}

impl Ranking {
    pub(crate) fn bytes(&self) -> usize {
        self.order.capacity() * size_of::<Ranked>()
            + self.mean.capacity() * size_of::<f32>()
            + self.buffers.bytes()
    }
}

/// What the plan of a layer is made from.
pub(crate) struct Question<'a> {
    pub(crate) env: Env<'a>,
    pub(crate) choosing: Choosing,
    pub(crate) refine: Option<&'a dyn Refine>,
    pub(crate) limit: Limit,
    /// Layer.
    pub(crate) layer: usize,
    /// How many tokens of the chunk the layer's window has left behind already.
    pub(crate) skipped: usize,
    /// Whether there is a window, which lets tokens go by itself: few more have to.
    pub(crate) slides: bool,
    /// New tokens of each head.
    pub(crate) tokens: &'a dyn Fn(usize) -> NewTokens<'a>,
    /// Of each head.
    pub(crate) traces: &'a [Trace],
}

/// Decides which tokens of each head go; judgements hold what the keeps know of the new tokens.
pub(crate) fn plan(
    question: &Question<'_>,
    heads: &mut [Head],
    judgements: &mut [Judgement],
    departures: &mut [Departures],
    ranking: &mut Ranking,
) {
    let Question { choosing, limit, tokens, refine, .. } = *question;
    let most = if question.slides { STRIP } else { usize::MAX };
    let batch = batch(&heads[0], refine).min(most);
    match choosing {
        // What has a window has its own part, whatever the others do.
        Choosing::Alone | Choosing::InCache(_) => {
            for (h, head) in heads.iter_mut().enumerate() {
                let excess = head.excess(&tokens(h), limit.slots, batch);
                if excess > 0 {
                    weigh(question, h, head, &mut judgements[h], excess, ranking);
                    choose(
                        head,
                        &tokens(h),
                        &judgements[h],
                        limit.slots,
                        excess,
                        ranking,
                        &mut departures[h],
                    );
                }
            }
        }
        Choosing::Alike => {
            let excess = heads[0].excess(&tokens(0), limit.slots, batch);
            if excess > 0 {
                for (h, head) in heads.iter_mut().enumerate() {
                    weigh(question, h, head, &mut judgements[h], excess, ranking);
                }
                average(judgements, &mut ranking.mean);
                for (h, head) in heads.iter().enumerate() {
                    choose(
                        head,
                        &tokens(h),
                        &judgements[h],
                        limit.slots,
                        excess,
                        ranking,
                        &mut departures[h],
                    );
                }
            }
        }
        Choosing::InLayer(floor) => {
            let slots = limit.pooled_slots();
            let excess = pooled_excess(heads, tokens(0).count, slots.saturating_mul(heads.len()), batch);
            if excess > 0 {
                let equal = excess.div_ceil(heads.len());
                for (h, head) in heads.iter_mut().enumerate() {
                    weigh(question, h, head, &mut judgements[h], equal, ranking);
                }
                let floor = (limit.slots as f32 * floor) as usize;
                choose_pooled(question, heads, judgements, excess, floor, ranking, departures);
            }
        }
    }
}

/// How many tokens of a head go at a time.
pub(crate) fn batch(head: &Head, refine: Option<&dyn Refine>) -> usize {
    head.keep.batch().max(refine.map_or(1, |refine| refine.batch()))
}

/// The keep's importance, refined where `excess` of the candidates are about to go.
pub(crate) fn weigh(
    question: &Question<'_>,
    h: usize,
    head: &mut Head,
    judgement: &mut Judgement,
    excess: usize,
    ranking: &mut Ranking,
) {
    let tokens = (question.tokens)(h);
    let masses = question.traces[h].masses(head.slots.len(), question.skipped);
    head.weigh(question.env, &tokens, masses, judgement, &mut ranking.buffers);
    let Some(refine) = question.refine else { return };
    rank(head, h, &tokens, judgement, question.limit.slots, ranking);
    ranking.order.sort_unstable_by(|a, b| b.order(a));
    // Most important first: those of the first half of what stays keep their places whatever their values are.
    let stay = ranking.order.len().saturating_sub(excess);
    let sure = stay / 2;
    let slots = head.slots.len();
    let format = question.env.format;
    let buffers = &mut ranking.buffers;
    let (mut key, mut value) = (buffers.floats(format.keys.dim), buffers.floats(format.values.dim));
    for (place, ranked) in ranking.order.iter().enumerate() {
        let importance = &mut judgement.importance[ranked.candidate as usize];
        if place < sure {
            *importance = f32::MAX;
            continue;
        }
        let value = match (ranked.candidate as usize).checked_sub(slots) {
            Some(token) => tokens.value(token),
            None => {
                head.slots.load(question.env, ranked.candidate as usize, &mut key, &mut value);
                &value[..format.values.width]
            }
        };
        *importance = refine.importance(*importance, question.layer, h, value);
    }
    buffers.give_floats([key, value]);
}

/// Puts all candidates of a head that are not recent into the ranking.
fn rank(
    head: &Head,
    h: usize,
    tokens: &NewTokens<'_>,
    judgement: &Judgement,
    limit: usize,
    ranking: &mut Ranking,
) {
    ranking.order.clear();
    head.for_each_candidate(tokens, limit, |candidate, position, recent| {
        if !recent {
            let importance = judgement.importance[candidate as usize];
            ranking.order.push(Ranked { importance, position, candidate, head: h as u32 });
        }
    });
}

/// Gives every judgement the mean importance of all.
fn average(judgements: &mut [Judgement], mean: &mut Vec<f32>) {
    let count = judgements.len() as f32;
    mean.clear();
    mean.resize(judgements[0].importance.len(), 0.0);
    for judgement in judgements.iter() {
        mean.iter_mut().zip(&judgement.importance).for_each(|(m, x)| *m += x / count);
    }
    judgements.iter_mut().for_each(|judgement| judgement.importance.copy_from_slice(mean));
}

/// Chooses the `excess` candidates of one head that go.
fn choose(
    head: &Head,
    tokens: &NewTokens<'_>,
    judgement: &Judgement,
    limit: usize,
    excess: usize,
    ranking: &mut Ranking,
    departures: &mut Departures,
) {
    let slots = head.slots.len();
    if excess == 1 {
        let mut least: Option<Ranked> = None;
        head.for_each_candidate(tokens, limit, |candidate, position, recent| {
            let importance = judgement.importance[candidate as usize];
            let this = Ranked { importance, position, candidate, head: 0 };
            if !recent && least.is_none_or(|least| this.order(&least).is_lt()) {
                least = Some(this);
            }
        });
        if let Some(least) = least {
            return departures.push(least.candidate, slots);
        }
    }
    rank(head, 0, tokens, judgement, limit, ranking);
    let order = &mut ranking.order;
    if order.len() > excess {
        order.select_nth_unstable_by(excess, Ranked::order);
        order.truncate(excess);
    }
    // More must go than is unprotected: the oldest of the recent go next.
    if order.len() < excess {
        let chosen = order.len();
        head.for_each_candidate(tokens, limit, |candidate, position, recent| {
            if recent {
                order.push(Ranked { importance: 0.0, position, candidate, head: 0 });
            }
        });
        order[chosen..].sort_unstable_by_key(|ranked| ranked.position);
        order.truncate(excess);
    }
    order.iter().for_each(|ranked| departures.push(ranked.candidate, slots));
    departures.sort(head.slots.positions());
}

/// How many tokens of all heads together must go so that `tokens` new ones in each fit into `slots`; `batch` a head when
/// any must.
fn pooled_excess(heads: &[Head], tokens: usize, slots: usize, batch: usize) -> usize {
    let held: usize = heads.iter().map(|head| head.slots.count()).sum();
    match (held + heads.len() * tokens).saturating_sub(slots) {
        0 => 0,
        over => over.max((batch * heads.len()).min(held / 4)),
    }
}

/// Chooses the `excess` least important of all heads together, but leaves each head `floor`.
fn choose_pooled(
    question: &Question<'_>,
    heads: &[Head],
    judgements: &[Judgement],
    mut excess: usize,
    floor: usize,
    ranking: &mut Ranking,
    departures: &mut [Departures],
) {
    let order = &mut ranking.order;
    order.clear();
    for (h, head) in heads.iter().enumerate() {
        let importance = &judgements[h].importance;
        let limit = question.limit.pooled_slots();
        head.for_each_candidate(&(question.tokens)(h), limit, |candidate, position, recent| {
            let importance = if recent { f32::INFINITY } else { importance[candidate as usize] };
            order.push(Ranked { importance, position, candidate, head: h as u32 });
        });
    }
    order.sort_unstable_by(Ranked::order);
    for ranked in order {
        let h = ranked.head as usize;
        if excess == 0 {
            break;
        }
        let gone = departures[h].count();
        if heads[h].slots.count() + (question.tokens)(h).count - gone > floor {
            excess -= 1;
            departures[h].push(ranked.candidate, heads[h].slots.len());
        }
    }
    heads.iter().zip(departures).for_each(|(head, departures)| departures.sort(head.slots.positions()));
}
