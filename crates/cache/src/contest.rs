//! Who goes, and whose pages lose bits, where all heads of a cache compete for its bytes.
//!
//! What a head is to lose is found by a price of a byte: at that price a head goes down to the rung, and lets the tokens go,
//! whose loss costs least with what is still to be paid for. The lowest price at which all heads fit is the one that holds, so
//! that a byte more would be worth the same wherever it went.

use crate::admit::{Admission, AdmitScratch};
use crate::context::EMPTY;
use crate::cost::HeadCost;
use crate::head::Head;
use crate::plan::{Limit, Ranked};
use crate::profile::Stopwatch;
use crate::stakes::{Left, Stakes};
use crate::{CacheShape, Sensitivity};
use sketchkv_kernels::{ThreadPool, for_each_mut};
use std::mem::{size_of, take};

/// Prices among which the one that holds is looked for, in nats a byte.
const PRICES: (f64, f64) = (1e-30, 1e30);
/// How often their range, and that of what is left to share out, is halved.
const HALVINGS: usize = 40;
/// The importance of those who go when nobody else is left.
const LAST: f32 = 1e25;

/// A layer of a cache whose heads compete, and what it takes in.
pub(crate) struct LayerAdmission<'a> {
    pub(crate) admission: Admission<'a>,
    pub(crate) cost: &'a HeadCost,
    pub(crate) shape: &'a CacheShape,
    pub(crate) heads: &'a mut [Head],
    pub(crate) scratch: &'a mut AdmitScratch,
}

impl LayerAdmission<'_> {
    /// Whether the cap is one in bytes.
    fn is_capped(&self) -> bool {
        self.admission.limit.bytes != usize::MAX
    }

    /// Whether the loss of tokens is known in nats, so that it can be weighed against that of bits, and windows against all else.
    fn weighs(&self) -> bool {
        self.is_capped() && self.heads[0].keep.horizon().is_some()
    }

    fn competes(&self) -> bool {
        !self.admission.slides() || self.weighs()
    }

    fn arriving(&self) -> usize {
        self.admission.new_tokens(0).count
    }

    /// The fewest tokens that a head keeps.
    fn least(&self, h: usize, floor: f32) -> usize {
        self.heads[h].least_slots().max((self.admission.limit.slots as f32 * floor) as usize)
    }

    /// Slots of a head that nothing goes from.
    fn slots(&self, h: usize) -> usize {
        let slots = &self.heads[h].slots;
        slots.len().max(slots.count() + self.arriving())
    }

    /// The most that a head takes, in slots or in bytes, if nothing goes and no bits fall.
    fn unchanged(&self, h: usize) -> usize {
        let (head, arriving) = (&self.heads[h], self.arriving());
        match self.is_capped() {
            false => head.slots.count() + arriving,
            true if self.weighs() && self.admission.env.format.opens() => {
                head.fixed_bytes() + head.slots.needed(self.admission.env.format, arriving)
            }
            true => self.cost.of(self.slots(h)),
        }
    }

    /// What its heads may hold together, in slots or in bytes.
    fn cap(&self) -> usize {
        let limit = self.admission.limit;
        let of_head = if self.is_capped() { limit.bytes } else { limit.slots };
        of_head.saturating_mul(self.heads.len())
    }

    /// Slots of a head that is left with so much, in whole pages, so that the last page, with the newest tokens, stays open; and
    /// what they take, in slots or in bytes.
    fn size(&self, stakes: &Stakes, left: Left) -> (usize, usize) {
        if !self.is_capped() {
            return (left.tokens, left.tokens);
        }
        let slots = self.cost.whole((left.tokens + stakes.room).min(stakes.most), stakes.least);
        (slots, self.cost.on(left.rung, slots))
    }

    /// Notes what a head is left with: its limit, and who goes.
    fn leave(&mut self, h: usize, left: Left) {
        let (slots, bytes) = self.size(&self.scratch.stakes[h], left);
        let AdmitScratch { stakes, limits, departures, .. } = &mut *self.scratch;
        let (stakes, departures, held) = (&stakes[h], &mut departures[h], &self.heads[h].slots);
        limits[h] = Limit { slots, bytes };
        let go = stakes.tokens - left.tokens.min(slots);
        stakes.order[..go].iter().for_each(|ranked| departures.push(ranked.candidate, held.len()));
        departures.sort(held.positions());
    }

    /// Room for what is at stake, when slots come and not when it is asked for.
    fn make_room(&mut self) {
        self.scratch.stakes.resize_with(self.heads.len(), Stakes::default);
        let AdmitScratch { stakes, departures, judgements, .. } = &mut *self.scratch;
        for (h, head) in self.heads.iter().enumerate() {
            let (slots, tokens) = (head.slots.len(), self.admission.tokens);
            stakes[h].make_room(slots + tokens);
            departures[h].make_room(slots, tokens);
            judgements[h].importance.reserve_exact(slots + tokens);
        }
    }

    /// Puts down what is at stake in each head.
    fn weigh(&mut self, floor: f32, equal: usize) {
        self.admission.weigh(self.heads, self.scratch, equal);
        let (weighs, arriving) = (self.weighs(), self.arriving());
        let mut stakes = take(&mut self.scratch.stakes);
        for (h, stakes) in stakes.iter_mut().enumerate() {
            let (head, judgement) = (&self.heads[h], &self.scratch.judgements[h]);
            let importance = &judgement.importance;
            let tokens = self.admission.new_tokens(h);
            head.for_each_candidate(&tokens, self.admission.limit.slots, |candidate, position, recent| {
                let importance = if recent { LAST } else { importance[candidate as usize].min(LAST) };
                stakes.order.push(Ranked { importance, position, candidate, head: h as u32 });
            });
            stakes.order.sort_unstable_by(Ranked::order);
            let mut sum = 0.0;
            let sums = stakes.order.iter().map(|ranked| {
                sum += f64::from(ranked.importance.max(0.0));
                sum
            });
            stakes.sums.push(0.0);
            stakes.sums.extend(sums);
            let sensitivity = self.shape.sensitivity(self.admission.layer, h);
            (stakes.eviction, stakes.coding) = match head.keep.horizon() {
                Some(queries) => (
                    sensitivity.eviction * Sensitivity::QUERIES / queries as f32,
                    f64::from(sensitivity.coding),
                ),
                None if head.keep.is_attention() && !head.keep.is_comparable() => {
                    // Attention is relative to all that the head holds.
                    let positions = head.slots.positions().iter().chain(&judgement.positions);
                    let counted = positions.zip(importance).filter(|(at, x)| **at != EMPTY && **x < f32::MAX);
                    let sum: f64 = counted.map(|(_, x)| f64::from(*x)).sum();
                    (if sum > 0.0 { (1.0 / sum) as f32 } else { 1.0 }, 0.0)
                }
                None => (1.0, 0.0),
            };
            let least = stakes.order.first().map_or(0.0, |ranked| ranked.importance);
            stakes.base = least.min(0.0);
            stakes.rung = if weighs { head.slots.rung() } else { self.cost.rungs() - 1 };
            stakes.tokens = head.slots.count() + arriving;
            stakes.least = self.least(h, floor);
            stakes.most = self.admission.visible;
            stakes.room = self.admission.batch(head).min(head.slots.count() / 4).saturating_sub(arriving);
        }
        self.scratch.stakes = stakes;
    }
}

/// Room for layers from pass to pass.
#[derive(Default)]
pub(crate) struct ContestScratch {
    /// None; room for those of a pass.
    layers: Vec<LayerAdmission<'static>>,
    left: Vec<Left>,
    more: Vec<Left>,
    between: Vec<Left>,
}

impl ContestScratch {
    /// Room for layers, none yet.
    pub(crate) fn layers<'a>(&mut self) -> Vec<LayerAdmission<'a>> {
        emptied(take(&mut self.layers))
    }

    /// Takes the room back.
    pub(crate) fn give_layers(&mut self, layers: Vec<LayerAdmission<'_>>) {
        self.layers = emptied(layers);
    }

    pub(crate) fn bytes(&self) -> usize {
        let left = self.left.capacity() + self.more.capacity() + self.between.capacity();
        self.layers.capacity() * size_of::<LayerAdmission<'_>>() + left * size_of::<Left>()
    }
}

/// The same room for layers that live otherwise: collecting from a vector what is as large goes back into it.
fn emptied<'a>(mut layers: Vec<LayerAdmission<'_>>) -> Vec<LayerAdmission<'a>> {
    layers.clear();
    layers.into_iter().map(|_| unreachable!("all are gone")).collect()
}

/// Takes the tokens of a pass into all layers: those that give come before those that take, so that the sum never exceeds
/// the cap. Each head keeps `floor` of an equal part.
pub(crate) fn admit(
    layers: &mut [LayerAdmission<'_>],
    floor: f32,
    pool: &ThreadPool,
    scratch: &mut ContestScratch,
    timed: bool,
) {
    for_each_mut(pool, layers, |_, layer| {
        layer.scratch.watch = Stopwatch::start(timed);
        layer.admission.arrive(layer.heads, layer.scratch);
        if layer.competes() {
            if layer.admission.limit != Limit::NONE {
                layer.make_room();
            }
            for h in 0..layer.heads.len() {
                layer.scratch.limits[h] = Limit { slots: layer.slots(h), bytes: layer.unchanged(h) };
            }
        } else {
            // What has a window has its own part, whatever the others do.
            layer.admission.plan(layer.heads, layer.scratch);
        }
    });
    let cap = competing(layers).map(LayerAdmission::cap).fold(0, usize::saturating_add);
    let over = taken(layers).saturating_sub(cap);
    if over > 0 {
        let of_slot = |layer: &LayerAdmission<'_>| if layer.is_capped() { layer.cost.of_slot() } else { 1 };
        let heads: usize = competing(layers).map(|layer| layer.heads.len() * of_slot(layer)).sum();
        let equal = over.div_ceil(heads.max(1));
        for_each_mut(pool, layers, |_, layer| {
            if layer.competes() {
                layer.weigh(floor, equal);
            }
        });
        share_out(layers, cap, scratch);
    }
    let spare = cap.saturating_sub(taken(layers)) as f64;
    let slots: usize =
        competing(layers).flat_map(|layer| &layer.scratch.limits).map(|limit| limit.slots).sum();
    for layer in layers.iter_mut().filter(|layer| layer.competes()) {
        let capped = layer.is_capped();
        for limit in &mut layer.scratch.limits {
            // What is left over goes to all, by their slots.
            let more = (spare * limit.slots as f64 / slots.max(1) as f64) as usize;
            limit.bytes = if capped { limit.bytes + more } else { usize::MAX };
        }
    }
    for_each_mut(pool, layers, |_, layer| layer.admission.leave(layer.heads, layer.scratch));
    for_each_mut(pool, layers, |_, layer| layer.admission.settle(layer.heads, layer.scratch));
}

/// Those who compete.
fn competing<'l, 'a>(layers: &'l [LayerAdmission<'a>]) -> impl Iterator<Item = &'l LayerAdmission<'a>> {
    layers.iter().filter(|layer| layer.competes())
}

/// What the limits of all that compete add up to, in slots or in bytes.
fn taken(layers: &[LayerAdmission<'_>]) -> usize {
    competing(layers).flat_map(|layer| &layer.scratch.limits).map(|limit| limit.bytes).sum()
}

/// Decides what is left of each head, so that all fit: who goes, and how much each may hold.
fn share_out(layers: &mut [LayerAdmission<'_>], cap: usize, scratch: &mut ContestScratch) {
    let ContestScratch { left, more, between, .. } = scratch;
    // Of numbers that may be negative all heads count from the least of all.
    let base = competing(layers).flat_map(|layer| &layer.scratch.stakes).map(|stakes| stakes.base);
    let base = base.fold(0.0, f32::min);
    let all = layers.iter_mut().flat_map(|layer| &mut layer.scratch.stakes);
    all.for_each(|stakes| stakes.base = base);
    let (mut low, mut high) = (PRICES.0.ln(), PRICES.1.ln());
    at(layers, high, left);
    if size(layers, left) > cap {
        // All are down at what they keep at any rate.
        let stakes = layers.iter_mut().flat_map(|layer| &mut layer.scratch.stakes);
        stakes.for_each(|stakes| stakes.room = 0);
    }
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        at(layers, middle, left);
        *if size(layers, left) <= cap { &mut high } else { &mut low } = middle;
    }
    // At the lower price there is not room for all that would stay, for a part of it there is.
    at(layers, low, more);
    at(layers, high, left);
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS / 4 {
        let middle = (low + high) / 2.0;
        part_of(left, more, middle, between);
        *if size(layers, between) <= cap { &mut low } else { &mut high } = middle;
    }
    part_of(left, more, low, between);
    let mut left = between.iter();
    for layer in layers.iter_mut().filter(|layer| layer.competes()) {
        for (h, left) in (0..layer.heads.len()).zip(&mut left) {
            layer.leave(h, *left);
        }
    }
}

/// What is left of each head at a price of a byte of which this is the logarithm.
fn at(layers: &[LayerAdmission<'_>], price: f64, left: &mut Vec<Left>) {
    left.clear();
    for layer in competing(layers) {
        left.extend(layer.scratch.stakes.iter().map(|stakes| stakes.at(price.exp(), layer.cost)));
    }
}

/// What that takes, in slots or in bytes.
fn size(layers: &[LayerAdmission<'_>], left: &[Left]) -> usize {
    let heads =
        competing(layers).flat_map(|layer| layer.scratch.stakes.iter().map(move |stakes| (layer, stakes)));
    let sizes = heads.zip(left).map(|((layer, stakes), left)| layer.size(stakes, *left).1);
    sizes.sum()
}

/// What is left, and this part of what would be left beyond that.
fn part_of(left: &[Left], more: &[Left], part: f64, between: &mut Vec<Left>) {
    between.clear();
    between.extend(left.iter().zip(more).map(|(left, more)| {
        let beyond = more.tokens.saturating_sub(left.tokens) as f64;
        Left { tokens: left.tokens + (part * beyond) as usize, ..*left }
    }));
}
