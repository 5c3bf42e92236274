//! Taking a chunk's tokens into a layer, and evicting what must go.

use crate::attend::{Call, HeadScratch};
use crate::head::{Head, Limit, Work, before};
use crate::profile::{Part, Stopwatch};
use sketchkv_kernels::attention::layout::STRIP;
use sketchkv_kernels::for_each_pair_mut;

/// Lets the keeps see what was attended to, evicts down to the limit, and stores the chunk.
///
/// `limit` is an equal head's part; `pooled` the share of it that each head keeps when heads compete.
pub(crate) fn admit(
    call: &Call<'_>,
    heads: &mut [Head],
    own: &mut [HeadScratch],
    limit: Limit,
    pooled: Option<f32>,
    watch: &mut Stopwatch,
) {
    let timed = watch.is_on();
    let together = heads[0].keep.same_in_all_heads() || pooled.is_some();
    if !together {
        for_each_pair_mut(call.pool, heads, own, |h, head, own| {
            let (chunk, work) = (&call.chunks[h], &mut own.work);
            let mut watch = Stopwatch::start(timed);
            see(call, h, head, work);
            let excess = head.excess(chunk, limit.slots);
            if excess > 0 {
                head.weigh(call.env, chunk, work);
                head.choose_victims(chunk, work, limit.slots, excess);
            }
            watch.lap(Part::Keep);
            take_in(call, h, head, work, limit.bytes, watch);
        });
        watch.lap_shared(own.iter().map(|own| own.work.times), Part::Store);
        return;
    }
    let excess = match pooled {
        None => heads[0].excess(&call.chunks[0], limit.slots),
        Some(_) => {
            pooled_excess(heads, call.chunks[0].tokens, pooled_slots(limit).saturating_mul(heads.len()))
        }
    };
    for_each_pair_mut(call.pool, heads, own, |h, head, own| {
        see(call, h, head, &mut own.work);
        if excess > 0 {
            head.weigh(call.env, &call.chunks[h], &mut own.work);
        }
    });
    match pooled {
        None => {
            if excess > 0 {
                same_victims(call, heads, own, limit.slots, excess);
            }
            watch.lap(Part::Keep);
            for_each_pair_mut(call.pool, heads, own, |h, head, own| {
                take_in(call, h, head, &mut own.work, limit.bytes, Stopwatch::start(timed));
            });
            watch.lap_shared(own.iter().map(|own| own.work.times), Part::Store);
        }
        Some(floor) => {
            if excess > 0 {
                let floor = (limit.slots as f32 * floor) as usize;
                pooled_victims(call, heads, own, pooled_slots(limit), excess, floor);
            }
            watch.lap(Part::Keep);
            // Heads that give come before heads that take, so that the sum never exceeds the limit.
            for (h, (head, own)) in heads.iter_mut().zip(own.iter_mut()).enumerate() {
                head.evict(call.env, &call.chunks[h], &mut own.work);
                if limit.bytes != usize::MAX {
                    head.compact(call.env);
                }
            }
            watch.lap(Part::Tail);
            // Open strips are dearer than sealed ones: when it gets narrow, each head keeps only one.
            let total = limit.bytes.saturating_mul(heads.len());
            let tokens = call.chunks[0].tokens;
            let next: usize =
                heads.iter().map(|head| head.bytes() + head.growth(call.env.format, tokens)).sum();
            if next > total {
                heads.iter_mut().for_each(|head| head.seal(call.env.format, 1));
            }
            for h in 0..heads.len() {
                let others: usize =
                    heads.iter().enumerate().filter(|(o, _)| *o != h).map(|(_, head)| head.bytes()).sum();
                // Then no head opens another that the others would have to pay for.
                let bytes = total.saturating_sub(others).min(if next > total { 0 } else { usize::MAX });
                heads[h].store(call.env, &call.chunks[h], &mut own[h].work, bytes);
            }
            watch.lap(Part::Store);
        }
    }
}

/// Shows a head's keep what was attended to and what is new.
fn see(call: &Call<'_>, h: usize, head: &mut Head, work: &mut Work) {
    head.observe(&work.mass, call.group_queries(h), &call.chunks[h]);
    head.arrive(&call.chunks[h], work);
}

/// Evicts what was chosen and stores the chunk; leaves the times in `work`.
fn take_in(call: &Call<'_>, h: usize, head: &mut Head, work: &mut Work, bytes: usize, mut watch: Stopwatch) {
    head.evict(call.env, &call.chunks[h], work);
    watch.lap(Part::Tail);
    head.store(call.env, &call.chunks[h], work, bytes);
    watch.lap(Part::Store);
    work.times = watch.stop();
}

/// Chooses the same tokens in every head: those of least mean importance.
fn same_victims(call: &Call<'_>, heads: &mut [Head], own: &mut [HeadScratch], limit: usize, excess: usize) {
    let count = heads.len() as f32;
    let mut mean = vec![0.0f32; own[0].work.importance.len()];
    for own in own.iter() {
        mean.iter_mut().zip(&own.work.importance).for_each(|(m, x)| *m += x / count);
    }
    for (head, own) in heads.iter().zip(own.iter_mut()) {
        own.work.importance.copy_from_slice(&mean);
        head.choose_victims(&call.chunks[0], &mut own.work, limit, excess);
    }
}

/// Slots that a head has in the mean where heads compete: each may leave part of a strip empty, and that much less is held.
fn pooled_slots(limit: Limit) -> usize {
    if limit.bytes == usize::MAX { limit.slots } else { limit.slots - (STRIP - 1) }
}

/// How many tokens of all heads together must go so that `tokens` new ones in each fit into `slots`.
fn pooled_excess(heads: &[Head], tokens: usize, slots: usize) -> usize {
    let total: usize = heads.iter().map(|head| head.count() + tokens).sum();
    match total.saturating_sub(slots) {
        0 => 0,
        over => over
            .max((heads[0].keep.batch() * heads.len()).min(heads.iter().map(Head::count).sum::<usize>() / 4)),
    }
}

/// Chooses the `excess` least important of all heads together, but leaves each head `floor`.
fn pooled_victims(
    call: &Call<'_>,
    heads: &mut [Head],
    own: &mut [HeadScratch],
    limit: usize,
    mut excess: usize,
    floor: usize,
) {
    let tokens = call.chunks[0].tokens;
    let mut all: Vec<((f32, u32, u32), usize)> = vec![];
    for (h, (head, own)) in heads.iter().zip(own.iter()).enumerate() {
        head.for_each_candidate(&call.chunks[h], &own.work, limit, |importance, position, i, recent| {
            let importance = if recent { f32::MAX } else { importance };
            all.push(((importance, position, i), h));
        });
    }
    all.sort_unstable_by(|a, b| before(&a.0, &b.0).then(a.1.cmp(&b.1)));
    let mut left: Vec<usize> = heads.iter().map(|head| head.count() + tokens).collect();
    for ((_, _, candidate), h) in all {
        if excess == 0 {
            break;
        }
        if left[h] > floor {
            left[h] -= 1;
            excess -= 1;
            own[h].work.victims.push(candidate);
        }
    }
    for (h, (head, own)) in heads.iter().zip(own.iter_mut()).enumerate() {
        head.sort_by_position(&call.chunks[h], &mut own.work.victims);
    }
}
