//! Who goes where all heads of a cache compete for its slots.

use crate::admit::{Admission, AdmitScratch};
use crate::context::EMPTY;
use crate::cost::HeadCost;
use crate::head::Head;
use crate::plan::Ranked;
use crate::profile::Stopwatch;
use sketchkv_kernels::attention::layout::STRIP;
use sketchkv_kernels::{ThreadPool, for_each_mut};

/// The heads of a layer that takes part.
pub(crate) struct Rivals<'a> {
    pub(crate) admission: Admission<'a>,
    pub(crate) cost: &'a HeadCost,
    pub(crate) heads: &'a mut [Head],
    pub(crate) scratch: &'a mut AdmitScratch,
}

impl Rivals<'_> {
    fn competes(&self) -> bool {
        self.admission.visible == usize::MAX
    }

    fn arriving(&self) -> usize {
        self.admission.new_tokens(0).count
    }

    /// Tokens of a head when those who go have gone and those who come have come.
    fn left(&self, h: usize) -> usize {
        self.heads[h].slots.count() + self.arriving() - self.scratch.departures[h].count()
    }
}

/// Takes the tokens of a pass into all layers: those that give come before those that take, so that the sum never exceeds
/// the cap.
pub(crate) fn admit(
    layers: &mut [Rivals<'_>],
    floor: f32,
    pool: &ThreadPool,
    order: &mut Vec<Ranked>,
    timed: bool,
) {
    for_each_mut(pool, layers, |_, layer| {
        layer.scratch.watch = Stopwatch::start(timed);
        layer.admission.arrive(layer.heads, layer.scratch);
        // What has a window keeps that, whatever the others do.
        if !layer.competes() {
            layer.admission.plan(layer.heads, layer.scratch);
        }
    });
    let heads: usize = competing(layers).map(|layer| layer.heads.len()).sum();
    let excess = excess(layers);
    if excess > 0 {
        let equal = excess.div_ceil(heads);
        for_each_mut(pool, layers, |_, layer| {
            if layer.competes() {
                layer.admission.weigh(layer.heads, layer.scratch, equal);
            }
        });
        choose(layers, excess, floor, order);
    }
    set_limits(layers);
    for_each_mut(pool, layers, |_, layer| layer.admission.leave(layer.heads, layer.scratch));
    for_each_mut(pool, layers, |_, layer| layer.admission.settle(layer.heads, layer.scratch));
}

/// Those that have no sliding window.
fn competing<'l, 'a>(layers: &'l [Rivals<'a>]) -> impl Iterator<Item = &'l Rivals<'a>> {
    layers.iter().filter(|layer| layer.competes())
}

/// How many tokens of all heads together must go, about; some for each head when any must.
fn excess(layers: &[Rivals<'_>]) -> usize {
    let sum = |of: &dyn Fn(&Rivals<'_>, &Head) -> usize| {
        let heads = competing(layers).flat_map(|layer| layer.heads.iter().map(|head| of(layer, head)));
        heads.fold(0, usize::saturating_add)
    };
    let held = sum(&|_, head| head.slots.count());
    let over = match bytes(layers) {
        usize::MAX => {
            let slots = sum(&|layer, _| layer.admission.limit.slots);
            (held + sum(&|layer, _| layer.arriving())).saturating_sub(slots)
        }
        bytes => needed(layers).saturating_sub(bytes).div_ceil(slot_cost(layers)),
    };
    match over {
        0 => 0,
        over => over.max(sum(&|layer, head| layer.admission.batch(head)).min(held / 4)),
    }
}

/// Bytes of the dearest slot.
fn slot_cost(layers: &[Rivals<'_>]) -> usize {
    competing(layers).map(|layer| layer.cost.of_slot()).max().unwrap_or(1)
}

/// Chooses the `excess` least important of all heads, more where they do not fit then; each head keeps `floor` of an equal
/// part.
fn choose(layers: &mut [Rivals<'_>], mut excess: usize, floor: f32, order: &mut Vec<Ranked>) {
    rank(layers, order);
    let bytes = bytes(layers);
    // Those who go are among the first; few heads are down at their floor.
    let mut sorted = 0;
    loop {
        let wanted = (excess + excess / 4 + STRIP).min(order.len());
        if wanted > sorted {
            if wanted < order.len() {
                order.select_nth_unstable_by(wanted, Ranked::order);
            }
            order[..wanted].sort_unstable_by(Ranked::order);
            sorted = wanted;
        }
        let chosen = pick(layers, &order[..sorted], excess, floor);
        if chosen < excess && sorted < order.len() {
            order.sort_unstable_by(Ranked::order);
            sorted = order.len();
            continue;
        }
        let over = needed(layers).saturating_sub(bytes);
        if over == 0 || chosen < excess {
            break;
        }
        excess += over.div_ceil(slot_cost(layers));
    }
    for Rivals { heads, scratch, .. } in layers.iter_mut().filter(|layer| layer.competes()) {
        for (head, departures) in heads.iter().zip(&mut scratch.departures) {
            departures.sort(head.slots.positions());
        }
    }
}

/// Sets what each head may hold: what its slots need, and of what is left over a share by its slots.
fn set_limits(layers: &mut [Rivals<'_>]) {
    let (bytes, needed) = (bytes(layers), needed(layers));
    if bytes == usize::MAX {
        return;
    }
    let left = |layer: &Rivals<'_>| (0..layer.heads.len()).map(|h| layer.left(h)).sum::<usize>();
    let slots: usize = competing(layers).map(left).sum();
    let over = bytes.saturating_sub(needed) as f64 / slots.max(1) as f64;
    for layer in layers.iter_mut().filter(|layer| layer.competes()) {
        for h in 0..layer.heads.len() {
            let left = layer.left(h);
            layer.scratch.limits[h].bytes = layer.cost.of(left) + (over * left as f64) as usize;
        }
    }
}

/// What all together may hold.
fn bytes(layers: &[Rivals<'_>]) -> usize {
    let of = |layer: &Rivals<'_>| layer.admission.limit.bytes.saturating_mul(layer.heads.len());
    competing(layers).map(of).fold(0, usize::saturating_add)
}

/// What they need for the tokens that are left.
fn needed(layers: &[Rivals<'_>]) -> usize {
    let of = |layer: &Rivals<'_>| (0..layer.heads.len()).map(|h| layer.cost.of(layer.left(h))).sum::<usize>();
    competing(layers).map(of).sum()
}

/// Puts all that may go into `order`.
fn rank(layers: &[Rivals<'_>], order: &mut Vec<Ranked>) {
    order.clear();
    let mut number = 0;
    for Rivals { admission, heads, scratch, .. } in competing(layers) {
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

/// Lets the first `excess` go whose heads are not at their floor; returns how many that were.
fn pick(layers: &mut [Rivals<'_>], order: &[Ranked], excess: usize, floor: f32) -> usize {
    let mut places = vec![];
    for (number, layer) in layers.iter_mut().enumerate().filter(|(_, layer)| layer.competes()) {
        let Rivals { admission, heads, scratch, .. } = layer;
        let floor = (admission.limit.slots as f32 * floor) as usize;
        let arriving = admission.new_tokens(0).count;
        for (h, head) in heads.iter().enumerate() {
            scratch.departures[h].clear();
            let most = (head.slots.count() + arriving).saturating_sub(floor.max(head.least_slots()));
            places.push((number, h, head.slots.len(), most));
        }
    }
    let mut chosen = 0;
    for ranked in order {
        if chosen == excess {
            break;
        }
        let (layer, h, slots, most) = &mut places[ranked.head as usize];
        if *most > 0 {
            *most -= 1;
            chosen += 1;
            layers[*layer].scratch.departures[*h].push(ranked.candidate, *slots);
        }
    }
    chosen
}
