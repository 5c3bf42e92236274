//! The cache of one sequence.

use crate::admit::Admission;
use crate::allot::Allotment;
use crate::budget::Rivals;
use crate::context::Context;
use crate::cost::HeadCost;
use crate::format::{Env, Format};
use crate::head::Head;
use crate::keep::Keep;
use crate::plan::{Choosing, Limit};
use crate::probe::Attention;
use crate::profile::Profile;
use crate::refine::Refine;
use crate::slots::Slots as HeadSlots;
use crate::workspace::DraftLayer;
use crate::{CacheError, CacheShape, LayerShape, Ledger, Spec};
use sketchkv_kernels::cpu;
use std::mem::size_of;
use std::sync::Arc;

/// The cache of one sequence: all layers.
pub struct Cache {
    pub(crate) shape: CacheShape,
    pub(crate) spec: Spec,
    pub(crate) seed: u64,
    pub(crate) position: usize,
    /// KV heads, `[layer][kv_head]`.
    pub(crate) layers: State,
    /// What all caches of one spec and shape share.
    pub(crate) common: Arc<Common>,
    /// A pass has begun to commit and has not come to its end.
    pub(crate) torn: bool,
    pub(crate) guessing: Guessing,
    /// Where the time went, if asked for.
    pub(crate) profile: Option<Box<Profile>>,
    /// Of each layer, if asked for.
    pub(crate) attention: Option<Vec<Attention>>,
}

/// What a KV head holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Slots {
    /// Positions of the tokens, ascending.
    pub positions: Vec<usize>,
    /// Their keys as the store gives them back, `[token][key_dim]`.
    pub keys: Vec<f32>,
    /// Their values as the store gives them back, `[token][value_dim]`.
    pub values: Vec<f32>,
}

pub(crate) struct Common {
    /// Of each layer; layers of the same widths share one.
    pub(crate) formats: Vec<Arc<Format>>,
    pub(crate) allotment: Allotment,
    pub(crate) choosing: Choosing,
    pub(crate) refine: Option<Box<dyn Refine>>,
}

impl Common {
    /// What a layer is asked to take in: `tokens` tokens, the first at `position`, as `draft` has seen them.
    pub(crate) fn admission<'a>(
        &'a self,
        shape: &CacheShape,
        (layer, position): (usize, usize),
        limit: Limit,
        draft: &'a DraftLayer,
        tokens: usize,
    ) -> Admission<'a> {
        Admission {
            env: Env { format: &self.formats[layer], level: cpu::level() },
            layer,
            choosing: self.choosing,
            refine: self.refine.as_deref(),
            limit,
            visible: shape.layers[layer].visible(usize::MAX),
            keys: &draft.keys,
            values: &draft.values,
            tokens,
            position,
            traces: &draft.traces,
        }
    }
}

/// A state of all layers, `[layer][kv_head]`.
pub(crate) type State = Vec<Vec<Head>>;

/// Whether a cache takes guesses, and what it can go back to.
#[derive(Default)]
pub(crate) struct Guessing {
    /// The next pass is one over guesses.
    pub(crate) next: bool,
    /// The states after the tokens of the last pass, if that was one, but for the last token.
    pub(crate) states: Vec<State>,
}

impl Cache {
    /// An empty cache for a model of this `shape`; `seed` is for the methods that draw at random.
    ///
    /// # Errors
    /// When the spec contradicts itself or does not fit the shape, or its cap is below the minimum that it needs.
    pub fn new(shape: CacheShape, spec: &Spec, seed: u64) -> Result<Self, CacheError> {
        spec.check()?;
        shape.check()?;
        let budget = spec.budget.build();
        let formats = new_formats(&shape, spec);
        let layers = new_layers(&shape, spec, &formats, seed);
        let refine = new_refine(&shape, spec, &*layers[0][0].keep, seed)?;
        let choosing = match budget.competition() {
            Some((Rivals::InLayer, floor)) => Choosing::InLayer(floor),
            Some((Rivals::InCache, floor)) => Choosing::InCache(floor),
            None if layers[0][0].keep.same_in_all_heads() => Choosing::Alike,
            None => Choosing::Alone,
        };
        let costs = layers.iter().zip(&formats).map(|(heads, format)| {
            let ragged = matches!(choosing, Choosing::InLayer(_));
            (HeadCost::new(&heads[0], format, ragged), heads[0].least_slots())
        });
        let base = base_bytes(&shape, spec, &formats, refine.as_deref());
        let allotment = Allotment::new(&shape, &*budget, base, costs.collect());
        allotment.check(spec)?;
        let common = Arc::new(Common { formats, allotment, choosing, refine });
        let spec = spec.clone();
        Ok(Cache {
            shape,
            spec,
            seed,
            position: 0,
            layers,
            common,
            torn: false,
            guessing: Guessing::default(),
            profile: None,
            attention: None,
        })
    }

    /// The spec this cache runs.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The shape of the model it serves.
    pub fn shape(&self) -> &CacheShape {
        &self.shape
    }

    /// Position of the next token, which is the number of tokens seen.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Whether a token has been evicted: from then on the cap binds.
    pub fn has_evicted(&self) -> bool {
        self.layers.iter().flatten().any(|head| head.evicted > 0)
    }

    /// Tokens in slots of one layer, per KV head.
    pub fn kept(&self, layer: usize) -> Vec<usize> {
        self.layers[layer].iter().map(|head| head.slots.count()).collect()
    }

    /// Positions of the tokens in slots of one KV head, ascending.
    pub fn positions(&self, layer: usize, kv_head: usize) -> Vec<usize> {
        self.layers[layer][kv_head].slots.in_order().into_iter().map(|(position, _)| position).collect()
    }

    /// What one KV head holds, decoded, in the order of positions.
    pub fn slots(&self, layer: usize, kv_head: usize) -> Slots {
        let head = &self.layers[layer][kv_head];
        let format = &*self.common.formats[layer];
        let env = Env { format, level: cpu::level() };
        let (mut key, mut value) = (vec![0.0; format.keys.dim], vec![0.0; format.values.dim]);
        let mut slots = Slots::default();
        for (position, slot) in head.slots.in_order() {
            head.slots.load(env, slot, &mut key, &mut value);
            slots.positions.push(position);
            slots.keys.extend_from_slice(&key[..format.keys.width]);
            slots.values.extend_from_slice(&value[..format.values.width]);
        }
        slots
    }

    /// The cap in bytes at this position, if there is one in bytes or percent; a share is no less than the floor.
    pub fn cap_bytes(&self) -> Option<usize> {
        self.common.allotment.cap_bytes(self.spec.cap, &self.shape, self.position)
    }

    /// The bytes that the cap asks for when `seen` tokens have been seen, if there is one in bytes or percent: below
    /// [`Cache::floor_bytes`] a share is exceeded.
    pub fn asked_bytes(&self, seen: usize) -> Option<usize> {
        Allotment::asked_bytes(self.spec.cap, &self.shape, seen)
    }

    /// The fewest bytes that this composition works with on this model.
    pub fn floor_bytes(&self) -> usize {
        self.common.allotment.minimum()
    }

    /// What the cache takes now.
    pub fn ledger(&self) -> Ledger {
        let mut ledger = Ledger { tables: self.common.allotment.base(), ..Ledger::default() };
        for (heads, format) in self.layers.iter().zip(&self.common.formats) {
            heads.iter().for_each(|head| head.enter(format, &mut ledger));
        }
        // The array of a layer's heads is counted with the heads.
        ledger
    }

    /// Bytes that this cache takes beyond the pages that it shares with `other`, from which it was forked: those that neither
    /// has written to since.
    pub fn bytes_beyond(&self, other: &Cache) -> usize {
        let heads = self.layers.iter().flatten().zip(other.layers.iter().flatten());
        self.ledger().total()
            - heads.map(|(head, other)| head.slots.bytes_shared(&other.slots)).sum::<usize>()
    }

    /// Begins to take the time of the parts of attention, from zero.
    pub fn start_profile(&mut self) {
        self.profile = Some(Box::default());
    }

    /// Ends it: where the time went since [`Cache::start_profile`]; nothing without that.
    pub fn stop_profile(&mut self) -> Profile {
        self.profile.take().map(|profile| *profile).unwrap_or_default()
    }

    /// From now on, notes where the attention of passes goes; costs time, and memory that no ledger counts.
    pub fn watch_attention(&mut self) {
        self.attention = Some(vec![Attention::default(); self.layers.len()]);
    }

    /// Where the attention of the last pass went, `[layer]`; empty unless it is watched.
    pub fn attention(&self) -> &[Attention] {
        self.attention.as_deref().unwrap_or_default()
    }

    /// Forgets every token; the next sequence runs as in a new cache.
    pub fn reset(&mut self) {
        (self.position, self.torn) = (0, false);
        self.guessing = Guessing::default();
        self.layers = new_layers(&self.shape, &self.spec, &self.common.formats, self.seed);
    }

    /// A second sequence that goes on from here. Pages are shared until one of the two writes to them, so the ledgers of
    /// both count them.
    pub fn fork(&self) -> Cache {
        Cache {
            shape: self.shape.clone(),
            spec: self.spec.clone(),
            seed: self.seed,
            position: self.position,
            layers: self.layers.clone(),
            common: self.common.clone(),
            torn: self.torn,
            guessing: Guessing::default(),
            profile: None,
            attention: None,
        }
    }

    /// Gives this sequence pages of its own, so that no later step has to copy one that a fork shares.
    pub fn unshare(&mut self) {
        self.layers.iter_mut().flatten().for_each(|head| head.slots.unshare());
    }

    /// Forgets the tokens from `position` on, so that another text can follow the first `position` tokens. Stores of less
    /// than 8 bits hold the newest tokens in more of them at first: what was coded since stays coded.
    ///
    /// # Errors
    /// When tokens have been evicted or have left a sliding window (those before `position` cannot be had back), or the
    /// keep has learned from the tokens to be forgotten and will evict by it.
    pub fn truncate(&mut self, position: usize) -> Result<(), CacheError> {
        self.guessing = Guessing::default();
        if position >= self.position {
            return Ok(());
        }
        let head = &self.layers[0][0];
        let learns = head.keep.feedback(2).is_some() || head.keep.bytes() > 0;
        let why = if self.has_evicted() {
            "tokens were evicted that cannot be had back"
        } else if self.layers.iter().flatten().any(|head| head.expired > 0) {
            "tokens have left a sliding window that cannot be had back"
        } else if learns && self.spec.evicts() {
            "its scores have learned from the tokens to be forgotten"
        } else {
            for (heads, format) in self.layers.iter_mut().zip(&self.common.formats) {
                let env = Env { format, level: cpu::level() };
                heads.iter_mut().for_each(|head| head.slots.truncate(env, position));
            }
            self.position = position;
            return Ok(());
        };
        Err(CacheError::Unsupported(format!(
            "`{}` cannot be cut back to position {position}: {why}; fork the cache before going on, or start again",
            self.spec
        )))
    }
}

/// How the slots of each layer are encoded.
fn new_formats(shape: &CacheShape, spec: &Spec) -> Vec<Arc<Format>> {
    let mut known: Vec<(&LayerShape, Arc<Format>)> = vec![];
    // Where nothing is to go, there is room for it.
    let exactly = spec.keeps_all();
    let told_apart = |layer: &LayerShape| (layer.key_dim, layer.value_dim, layer.biased_keys);
    let format = |layer| {
        if let Some((_, format)) = known.iter().find(|(known, _)| told_apart(known) == told_apart(layer)) {
            return format.clone();
        }
        let (keys, values) = (spec.keys.build(layer.key_dim), spec.values.build(layer.value_dim));
        let format = Arc::new(Format::new(keys, values, layer, exactly));
        known.push((layer, format.clone()));
        format
    };
    shape.layers.iter().map(format).collect()
}

/// What a cache takes beside its heads: the structures themselves, and what they own.
fn base_bytes(
    shape: &CacheShape,
    spec: &Spec,
    formats: &[Arc<Format>],
    refine: Option<&dyn Refine>,
) -> usize {
    let counts = 2 * size_of::<usize>();
    let mut own: Vec<&Arc<Format>> = vec![];
    for format in formats {
        if !own.iter().any(|known| Arc::ptr_eq(known, format)) {
            own.push(format);
        }
    }
    let formats: usize = own.iter().map(|format| counts + size_of::<Format>() + format.bytes()).sum();
    size_of::<Cache>()
        + size_of::<Common>()
        + counts
        + formats
        + spec.bytes()
        + refine.map_or(0, size_of_val)
        + shape.bytes()
        + shape.layers.len() * (size_of::<Vec<Head>>() + size_of::<Arc<Format>>())
}

/// Empty heads, `[layer][kv_head]`.
fn new_layers(shape: &CacheShape, spec: &Spec, formats: &[Arc<Format>], seed: u64) -> Vec<Vec<Head>> {
    let heads = |layer: usize| {
        let heads = 0..shape.layers[layer].kv_heads;
        let context = move |head| context(shape, spec, layer, head, seed);
        heads.map(move |head| new_head(spec, &context(head), &formats[layer])).collect()
    };
    (0..shape.layers.len()).map(heads).collect()
}

fn context<'a>(shape: &'a CacheShape, spec: &Spec, layer: usize, head: usize, seed: u64) -> Context<'a> {
    let values_weighed = spec.refine.method().name != "plain";
    Context { values_weighed, ..Context::new(shape, layer, head, seed) }
}

fn new_head(spec: &Spec, context: &Context<'_>, format: &Format) -> Head {
    let declares = |name| spec.keep.method().declares(name);
    let sinks = if declares("sinks") { spec.keep.integer("sinks").unwrap_or(0) } else { 0 };
    // A keep that knows no recent tokens protects the newest alone.
    let recent = if declares("recent") { spec.keep.integer("recent") } else { Some(1) };
    let keep = spec.keep.build(context);
    // What a tail remembers has no end, what a sliding window shows has one.
    let tail = match context.layer().window {
        None => spec.tail.build(context),
        Some(_) => None,
    };
    let index = spec.read.build(context);
    Head::new(HeadSlots::new(keep.words(), index, format), keep, tail, sinks, recent)
}

fn new_refine(
    shape: &CacheShape,
    spec: &Spec,
    keep: &dyn Keep,
    seed: u64,
) -> Result<Option<Box<dyn Refine>>, CacheError> {
    let context = context(shape, spec, 0, 0, seed);
    spec.refine
        .build(&context, keep.is_attention())
        .map_err(|error| CacheError::Unsupported(format!("`{spec}`: {error}")))
}
