//! Who goes where all heads of a cache compete for its slots.

use crate::admit::{Admission, AdmitScratch};
use crate::context::EMPTY;
use crate::cost::HeadCost;
use crate::head::Head;
use crate::page::PAGE;
use crate::plan::Ranked;
use crate::profile::Stopwatch;
use sketchkv_kernels::{ThreadPool, for_each_mut};
use std::mem::{size_of, take};

/// A layer of a cache whose heads compete, and what it takes in; one with a sliding window takes no part.
pub(crate) struct LayerAdmission<'a> {
    pub(crate) admission: Admission<'a>,
    pub(crate) cost: &'a HeadCost,
    pub(crate) heads: &'a mut [Head],
    pub(crate) scratch: &'a mut AdmitScratch,
}

impl LayerAdmission<'_> {
    fn competes(&self) -> bool {
        !self.admission.slides()
    }

    fn arriving(&self) -> usize {
        self.admission.new_tokens(0).count
    }

    /// Tokens of a head when those who go have gone and those who come have come.
    fn left(&self, h: usize) -> usize {
        self.heads[h].slots.count() + self.arriving() - self.scratch.departures[h].count()
    }

    fn least(&self, h: usize, floor: f32) -> usize {
        self.heads[h].least_slots().max((self.admission.limit.slots as f32 * floor) as usize)
    }
}

/// Buffers of a choice among all heads.
#[derive(Default)]
pub(crate) struct ContestScratch {
    order: Vec<Ranked>,
    places: Vec<Place>,
    /// None; room for those of a pass.
    layers: Vec<LayerAdmission<'static>>,
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
        self.order.capacity() * size_of::<Ranked>()
            + self.places.capacity() * size_of::<Place>()
            + self.layers.capacity() * size_of::<LayerAdmission<'_>>()
    }
}

/// The same room for layers that live otherwise: collecting from a vector what is as large goes back into it.
fn emptied<'a>(mut layers: Vec<LayerAdmission<'_>>) -> Vec<LayerAdmission<'a>> {
    layers.clear();
    layers.into_iter().map(|_| unreachable!("all are gone")).collect()
}

/// A head on its way.
struct Place {
    layer: usize,
    head: usize,
    slots: usize,
    /// Tokens it has, those who come included, and the fewest it may have.
    tokens: usize,
    least: usize,
    goes: usize,
}

/// Takes the tokens of a pass into all layers: those that give come before those that take, so that the sum never exceeds
/// the cap.
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
            for h in 0..layer.heads.len() {
                layer.scratch.limits[h].slots = layer.heads[h].slots.len().max(layer.left(h));
            }
        } else {
            // What has a window has its own part, whatever the others do.
            layer.admission.plan(layer.heads, layer.scratch);
        }
    });
    let over = over(layers);
    if over > 0 {
        let heads: usize = competing(layers).map(|layer| layer.heads.len()).sum();
        let sum = |of: &dyn Fn(&LayerAdmission<'_>, &Head) -> usize| -> usize {
            competing(layers).flat_map(|layer| layer.heads.iter().map(|head| of(layer, head))).sum()
        };
        let batch =
            sum(&|layer, head| layer.admission.batch(head)).min(sum(&|_, head| head.slots.count()) / 4);
        let excess = over.max(batch);
        let equal = excess.div_ceil(heads);
        for_each_mut(pool, layers, |_, layer| {
            if layer.competes() {
                layer.admission.weigh(layer.heads, layer.scratch, equal);
            }
        });
        choose(layers, excess, (excess - over) / heads, floor, scratch);
    }
    set_bytes(layers);
    for_each_mut(pool, layers, |_, layer| layer.admission.leave(layer.heads, layer.scratch));
    for_each_mut(pool, layers, |_, layer| layer.admission.settle(layer.heads, layer.scratch));
}

/// Those that have no sliding window.
fn competing<'l, 'a>(layers: &'l [LayerAdmission<'a>]) -> impl Iterator<Item = &'l LayerAdmission<'a>> {
    layers.iter().filter(|layer| layer.competes())
}

/// How many tokens of all heads together are too many, about.
fn over(layers: &[LayerAdmission<'_>]) -> usize {
    match bytes(layers) {
        usize::MAX => {
            let left =
                |layer: &LayerAdmission<'_>| (0..layer.heads.len()).map(|h| layer.left(h)).sum::<usize>();
            let slots =
                |layer: &LayerAdmission<'_>| layer.admission.limit.slots.saturating_mul(layer.heads.len());
            let slots = competing(layers).map(slots).fold(0, usize::saturating_add);
            competing(layers).map(left).sum::<usize>().saturating_sub(slots)
        }
        bytes => needed(layers).saturating_sub(bytes).div_ceil(slot_cost(layers)),
    }
}

/// Bytes that a slot less saves, rather too many: more go in the next round where that was not enough. In the mean a slot costs more
/// than one more does, for what a head has of pages and of open strips.
fn slot_cost(layers: &[LayerAdmission<'_>]) -> usize {
    let slots =
        |layer: &LayerAdmission<'_>| layer.scratch.limits.iter().map(|limit| limit.slots).sum::<usize>();
    let mean = needed(layers) / competing(layers).map(slots).sum::<usize>().max(1);
    competing(layers).map(|layer| layer.cost.of_slot()).max().unwrap_or(1).max(mean)
}

/// Chooses the `excess` least important of all heads, more where they do not fit then; each head keeps `floor` of an equal
/// part. Sets the slots of each head: those of the tokens that are left and of `room` to come, in whole pages, so that the
/// last page, with the newest tokens, stays open.
fn choose(
    layers: &mut [LayerAdmission<'_>],
    mut excess: usize,
    room: usize,
    floor: f32,
    scratch: &mut ContestScratch,
) {
    let ContestScratch { order, places, .. } = scratch;
    rank(layers, order);
    let bytes = bytes(layers);
    let heads: usize = competing(layers).map(|layer| layer.heads.len()).sum();
    // Those who go are among the first; few heads are down at their floor.
    let mut sorted = 0;
    loop {
        let wanted = (excess + excess / 4 + PAGE * heads).min(order.len());
        if wanted > sorted {
            if wanted < order.len() {
                order.select_nth_unstable_by(wanted, Ranked::order);
            }
            order[..wanted].sort_unstable_by(Ranked::order);
            sorted = wanted;
        }
        let missing = pick(layers, &order[..sorted], excess, room, floor, places);
        if missing > 0 && sorted < order.len() {
            order.sort_unstable_by(Ranked::order);
            sorted = order.len();
            continue;
        }
        let over = needed(layers).saturating_sub(bytes);
        if over == 0 || missing > 0 {
            break;
        }
        excess += over.div_ceil(slot_cost(layers));
    }
    for LayerAdmission { heads, scratch, .. } in layers.iter_mut().filter(|layer| layer.competes()) {
        for (head, departures) in heads.iter().zip(&mut scratch.departures) {
            departures.sort(head.slots.positions());
        }
    }
}

/// Sets what each head may hold: what its slots need, and of what is left over a share by its slots.
fn set_bytes(layers: &mut [LayerAdmission<'_>]) {
    let (bytes, needed) = (bytes(layers), needed(layers));
    if bytes == usize::MAX {
        return;
    }
    let slots =
        |layer: &LayerAdmission<'_>| layer.scratch.limits.iter().map(|limit| limit.slots).sum::<usize>();
    let slots: usize = competing(layers).map(slots).sum();
    let over = bytes.saturating_sub(needed) as f64 / slots.max(1) as f64;
    for layer in layers.iter_mut().filter(|layer| layer.competes()) {
        for limit in &mut layer.scratch.limits {
            limit.bytes = layer.cost.of(limit.slots) + (over * limit.slots as f64) as usize;
        }
    }
}

/// What all together may hold.
fn bytes(layers: &[LayerAdmission<'_>]) -> usize {
    let of = |layer: &LayerAdmission<'_>| layer.admission.limit.bytes.saturating_mul(layer.heads.len());
    competing(layers).map(of).fold(0, usize::saturating_add)
}

/// What they need for their slots.
fn needed(layers: &[LayerAdmission<'_>]) -> usize {
    let of = |layer: &LayerAdmission<'_>| {
        layer.scratch.limits.iter().map(|limit| layer.cost.of(limit.slots)).sum::<usize>()
    };
    competing(layers).map(of).sum()
}

/// Puts all that may go into `order`.
fn rank(layers: &[LayerAdmission<'_>], order: &mut Vec<Ranked>) {
    order.clear();
    let mut number = 0;
    for LayerAdmission { admission, heads, scratch, .. } in competing(layers) {
        for (h, (head, judgement)) in heads.iter().zip(&scratch.judgements).enumerate() {
            let importance = &judgement.importance;
            let tokens = admission.new_tokens(h);
            let positions = head.slots.positions().iter().chain(&judgement.positions);
            // Attention is relative to all that the head holds.
            let counted =
                positions.zip(importance).filter(|(position, x)| **position != EMPTY && **x < f32::MAX);
            let relative = head.keep.is_attention() && !head.keep.is_comparable();
            let sum = if relative { counted.map(|(_, x)| f64::from(*x)).sum() } else { 1.0 };
            let share = if sum > 0.0 { (1.0 / sum) as f32 } else { 1.0 };
            head.for_each_candidate(&tokens, admission.limit.slots, |candidate, position, recent| {
                let importance = match importance[candidate as usize] {
                    _ if recent => f32::INFINITY,
                    most if most == f32::MAX => most,
                    importance => importance * share,
                };
                order.push(Ranked { importance, position, candidate, head: number });
            });
            number += 1;
        }
    }
}

/// Lets the first `excess` go whose heads are not at their floor, and as many more as whole pages ask for; returns how many are
/// missing from `order`.
fn pick(
    layers: &mut [LayerAdmission<'_>],
    order: &[Ranked],
    excess: usize,
    room: usize,
    floor: f32,
    places: &mut Vec<Place>,
) -> usize {
    places.clear();
    for (layer, rivals) in layers.iter_mut().enumerate().filter(|(_, layer)| layer.competes()) {
        for head in 0..rivals.heads.len() {
            rivals.scratch.departures[head].clear();
            let (tokens, least) = (rivals.left(head), rivals.least(head, floor));
            let slots = rivals.heads[head].slots.len();
            places.push(Place { layer, head, slots, tokens, least, goes: 0 });
        }
    }
    let mut missing = excess;
    for ranked in order {
        if missing == 0 {
            break;
        }
        let place = &mut places[ranked.head as usize];
        if place.tokens - place.goes > place.least {
            place.goes += 1;
            missing -= 1;
        }
    }
    let capped = bytes(layers) != usize::MAX;
    for place in &mut *places {
        let left = place.tokens - place.goes;
        let slots = if capped { layers[place.layer].cost.whole(left + room, place.least) } else { left };
        layers[place.layer].scratch.limits[place.head].slots = slots;
        place.goes = place.tokens - left.min(slots);
    }
    for ranked in order {
        let Place { layer, head, slots, goes, .. } = &mut places[ranked.head as usize];
        if *goes > 0 {
            *goes -= 1;
            layers[*layer].scratch.departures[*head].push(ranked.candidate, *slots);
        }
    }
    missing + places.iter().map(|place| place.goes).sum::<usize>()
}
