//! Taking the tokens of a pass into a layer: its keeps learn what was attended to, those who must go do, the others come in.

use crate::context::NewTokens;
use crate::format::Env;
use crate::head::{Head, Trace};
use crate::judgement::{Departures, Judgement};
use crate::plan::{Choosing, Limit, Question, Ranking, plan};
use crate::profile::{Part, Stopwatch};
use crate::refine::Refine;
use crate::slots::Turned;

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
    pub(crate) tokens: usize,
    /// Position of the first token.
    pub(crate) position: usize,
    /// What attention left behind, of each head.
    pub(crate) traces: &'a [Trace],
}

/// Buffers of one layer's admission.
#[derive(Default)]
pub(crate) struct AdmitScratch {
    judgements: Vec<Judgement>,
    departures: Vec<Departures>,
    ranking: Ranking,
    expired: Vec<u32>,
    turned: Turned,
}

impl AdmitScratch {
    pub(crate) fn bytes(&self) -> usize {
        self.judgements.iter().map(Judgement::bytes).sum::<usize>()
            + self.departures.iter().map(Departures::bytes).sum::<usize>()
            + self.ranking.bytes()
            + self.expired.capacity() * size_of::<u32>()
            + self.turned.bytes()
    }
}

/// Lets the keeps see what was attended to, evicts down to the limit, and stores the chunk.
pub(crate) fn admit(
    admission: &Admission<'_>,
    heads: &mut [Head],
    scratch: &mut AdmitScratch,
    watch: &mut Stopwatch,
) {
    let Admission { env, keys, values, traces, limit, .. } = *admission;
    let kv_heads = heads.len();
    // Of a chunk longer than the window the first tokens are out of sight already.
    let next = admission.position + admission.tokens;
    let first_visible = next.saturating_sub(admission.visible);
    let skipped = first_visible.saturating_sub(admission.position).min(admission.tokens);
    let tokens = move |h: usize| {
        NewTokens::new(keys, values, (kv_heads, h), admission.tokens, admission.position).after(skipped)
    };
    let AdmitScratch { judgements, departures, ranking, expired, turned } = scratch;
    judgements.resize_with(kv_heads, Judgement::default);
    departures.resize_with(kv_heads, Departures::default);
    for (h, head) in heads.iter_mut().enumerate() {
        head.observe(&traces[h], admission.tokens, admission.position);
        head.expire(first_visible, expired);
        let (_, mass) = traces[h].masses(head.slots.len(), skipped);
        head.arrive(&tokens(h), mass, &mut judgements[h]);
    }
    let question = Question {
        env,
        choosing: admission.choosing,
        refine: admission.refine,
        limit,
        layer: admission.layer,
        skipped,
        tokens: &tokens,
        traces,
    };
    plan(&question, heads, judgements, departures, ranking);
    watch.lap(Part::Keep);
    for (h, head) in heads.iter_mut().enumerate() {
        let masses = traces[h].masses(head.slots.len(), skipped);
        head.evict(env, &tokens(h), masses, &judgements[h], &departures[h]);
    }
    watch.lap(Part::Tail);
    if matches!(admission.choosing, Choosing::Pooled(_)) && limit.bytes != usize::MAX {
        make_room(env, heads, tokens(0).count, limit.bytes);
    }
    for (h, head) in heads.iter_mut().enumerate() {
        head.coarsen(env, tokens(h).count - departures[h].tokens.len(), limit.bytes);
    }
    for h in 0..kv_heads {
        let bytes = match admission.choosing {
            Choosing::Pooled(_) => pooled_bytes(env, heads, h, tokens(0).count, limit.bytes),
            Choosing::Alone | Choosing::Alike => limit.bytes,
        };
        heads[h].store(env, &tokens(h), &judgements[h], &departures[h], turned, bytes);
    }
    watch.lap(Part::Store);
}

/// Where heads compete those that give come before those that take, so that the sum never exceeds the limit: they give
/// whole strips back and, when it gets narrow, each keeps only one open strip, which is dearer than a sealed one.
fn make_room(env: Env<'_>, heads: &mut [Head], tokens: usize, bytes: usize) {
    heads.iter_mut().for_each(|head| head.slots.compact(env));
    if is_narrow(env, heads, tokens, bytes) {
        heads.iter_mut().for_each(|head| head.slots.seal(env.format, 1));
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
