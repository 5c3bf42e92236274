//! The cache of one sequence.

use crate::attend::{Call, Scratch};
use crate::budget::{BUDGETS, Budget};
use crate::format::Format;
use crate::head::{Chunk, Env, Head};
use crate::keep::{Context, KEEPS};
use crate::method::Method;
use crate::plan::Plan;
use crate::probe::Attention;
use crate::profile::{Profile, Stopwatch};
use crate::read::READS;
use crate::tail::TAILS;
use crate::{CacheError, CacheShape, Ledger, Spec, admit};
use sketchkv_kernels::{ThreadPool, cpu};
use std::mem::size_of;
use std::sync::Arc;

/// The cache of one sequence: all layers.
pub struct Cache {
    pub(crate) shape: CacheShape,
    pub(crate) spec: Spec,
    pub(crate) seed: u64,
    pub(crate) position: usize,
    pub(crate) layers: Vec<Vec<Head>>,
    /// What all caches of one spec and shape share.
    common: Arc<Common>,
    scratch: Scratch,
    /// Where the time went, if asked for.
    profile: Option<Box<Profile>>,
    /// Of each layer, if asked for.
    attention: Option<Vec<Attention>>,
}

/// What a KV head holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Slots {
    /// Positions of the tokens, ascending.
    pub positions: Vec<usize>,
    /// Their keys as the store gives them back, `[token][head_dim]`.
    pub keys: Vec<f32>,
    /// Their values as the store gives them back, `[token][head_dim]`.
    pub values: Vec<f32>,
}

struct Common {
    format: Format,
    plan: Plan,
}

fn find<B: Copy>(methods: &[(&'static Method, B)], method: &'static Method) -> B {
    let own = methods.iter().find(|(known, _)| std::ptr::eq(*known, method));
    own.expect("a spec holds methods of the registry, each in its place").1
}

impl Cache {
    /// An empty cache for a model of this `shape`; `seed` is for the methods that draw at random.
    ///
    /// # Errors
    /// When the spec does not fit the shape, or its cap is below the minimum that it needs.
    pub fn new(shape: CacheShape, spec: &Spec, seed: u64) -> Result<Self, CacheError> {
        if shape.layers == 0 || shape.kv_heads == 0 || !shape.heads.is_multiple_of(shape.kv_heads.max(1)) {
            return Err(CacheError::Unsupported(format!(
                "{} query heads over {} KV heads in {} layers: every KV head needs the same number of query heads",
                shape.heads, shape.kv_heads, shape.layers
            )));
        }
        if shape.head_dim == 0 || shape.head_dim > 512 {
            return Err(CacheError::Unsupported(format!(
                "heads of {} dimensions: 1 to 512 are supported",
                shape.head_dim
            )));
        }
        let budget: Box<dyn Budget> = find(BUDGETS, spec.budget.method())(&spec.budget);
        let format = Format::new(spec, shape.head_dim);
        let layers = new_layers(&shape, spec, &*budget, seed)?;
        // Beside the heads: the structures themselves, and what they own.
        let base = size_of::<Cache>()
            + size_of::<Common>()
            + 2 * size_of::<usize>()
            + format.bytes()
            + spec.bytes()
            + shape.layers * (size_of::<Vec<Head>>() + size_of::<f64>())
            + shape.rope.as_ref().map_or(0, |rope| rope.inverse_frequencies.len() * size_of::<f32>());
        let least = layers[0][0].least_slots();
        let plan = Plan::new(&shape, spec, &*budget, base, least);
        plan.check(spec, &format, &layers[0][0])?;
        let common = Arc::new(Common { format, plan });
        let spec = spec.clone();
        let scratch = Scratch::default();
        Ok(Cache { shape, spec, seed, position: 0, layers, common, scratch, profile: None, attention: None })
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
        self.layers.iter().flatten().any(|head| head.evicted() > 0)
    }

    /// Tokens in slots of one layer, per KV head.
    pub fn kept(&self, layer: usize) -> Vec<usize> {
        self.layers[layer].iter().map(Head::count).collect()
    }

    /// Positions of the tokens in slots of one KV head, ascending.
    pub fn positions(&self, layer: usize, kv_head: usize) -> Vec<usize> {
        self.layers[layer][kv_head].in_order().into_iter().map(|(position, _)| position).collect()
    }

    /// What one KV head holds, decoded, in the order of positions.
    pub fn slots(&self, layer: usize, kv_head: usize) -> Slots {
        let head = &self.layers[layer][kv_head];
        let env = Env { format: &self.common.format, level: cpu::level() };
        let (d, mut key, mut value) =
            (self.shape.head_dim, vec![0.0; env.format.dim], vec![0.0; env.format.dim]);
        let mut slots = Slots::default();
        for (position, slot) in head.in_order() {
            head.load(env, slot, &mut key, &mut value);
            slots.positions.push(position);
            slots.keys.extend_from_slice(&key[..d]);
            slots.values.extend_from_slice(&value[..d]);
        }
        slots
    }

    /// One layer, ready to attend.
    pub fn layer<'a>(&'a mut self, layer: usize, pool: &'a ThreadPool) -> LayerCache<'a> {
        LayerCache {
            shape: &self.shape,
            common: &self.common,
            heads: &mut self.layers[layer],
            scratch: &mut self.scratch,
            profile: self.profile.as_deref_mut(),
            attention: self.attention.as_mut().map(|layers| &mut layers[layer]),
            position: self.position,
            layer,
            pool,
        }
    }

    /// Ends a forward pass over `tokens` tokens, after every layer has attended.
    pub fn advance(&mut self, tokens: usize) {
        self.position += tokens;
    }

    /// The cap in bytes at this position, if there is one in bytes or percent.
    pub fn cap_bytes(&self) -> Option<usize> {
        let head = &self.layers[0][0];
        self.common.plan.cap_bytes(self.position, &self.common.format, head)
    }

    /// What the cache takes now.
    pub fn ledger(&self) -> Ledger {
        let mut ledger = Ledger { tables: self.common.plan.base(), ..Ledger::default() };
        for head in self.layers.iter().flatten() {
            head.enter(&self.common.format, &mut ledger);
        }
        // The array of a layer's heads is counted with the heads.
        ledger
    }

    /// The heads of every layer, and how their slots are encoded.
    pub(crate) fn heads_and_format(&mut self) -> (&mut [Vec<Head>], &Format) {
        (&mut self.layers, &self.common.format)
    }

    /// Begins to take the time of the parts of attention, from zero.
    pub fn start_profile(&mut self) {
        self.profile = Some(Box::default());
    }

    /// Ends it: where the time went since [`Cache::start_profile`]; nothing without that.
    pub fn stop_profile(&mut self) -> Profile {
        self.profile.take().map(|profile| *profile).unwrap_or_default()
    }

    /// From now on, notes where the attention of single-token steps goes; costs time, and memory that no ledger counts.
    pub fn watch_attention(&mut self) {
        self.attention = Some(vec![Attention::default(); self.shape.layers]);
    }

    /// Where the attention of the last single-token step went, `[layer]`; empty unless it is watched.
    pub fn attention(&self) -> &[Attention] {
        self.attention.as_deref().unwrap_or_default()
    }

    /// Gives back the buffers of attention, which no ledger counts: the next forward pass makes them anew.
    pub fn release_scratch(&mut self) {
        self.scratch = Scratch::default();
    }

    /// Forgets every token; the next sequence runs as in a new cache.
    pub fn reset(&mut self) {
        self.position = 0;
        let budget = find(BUDGETS, self.spec.budget.method())(&self.spec.budget);
        self.layers = new_layers(&self.shape, &self.spec, &*budget, self.seed)
            .expect("what was built once can be built again");
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
            scratch: Scratch::default(),
            profile: None,
            attention: None,
        }
    }

    /// Gives this sequence pages of its own, so that no later step has to copy one that a fork shares.
    pub fn unshare(&mut self) {
        self.layers.iter_mut().flatten().for_each(Head::unshare);
    }

    /// Forgets the tokens from `position` on, so that another text can follow the first `position` tokens. Stores of less
    /// than 8 bits hold the newest tokens in f16 at first: what was coded since stays coded.
    ///
    /// # Errors
    /// When tokens have been evicted (those before `position` cannot be had back), or the keep has learned from the
    /// tokens to be forgotten and will evict by it.
    pub fn truncate(&mut self, position: usize) -> Result<(), CacheError> {
        if position >= self.position {
            return Ok(());
        }
        let head = &self.layers[0][0];
        let learns = head.keep.feedback().is_some() || head.keep.bytes() > 0;
        let why = if self.has_evicted() {
            "tokens were evicted that cannot be had back"
        } else if learns && self.spec.evicts() {
            "its scores have learned from the tokens to be forgotten"
        } else {
            let env = Env { format: &self.common.format, level: cpu::level() };
            self.layers.iter_mut().flatten().for_each(|head| head.truncate(env, position));
            self.position = position;
            return Ok(());
        };
        Err(CacheError::Unsupported(format!(
            "`{}` cannot be cut back to position {position}: {why}; fork the cache before going on, or start again",
            self.spec
        )))
    }
}

/// Empty heads, `[layer][kv_head]`.
fn new_layers(
    shape: &CacheShape,
    spec: &Spec,
    budget: &dyn Budget,
    seed: u64,
) -> Result<Vec<Vec<Head>>, CacheError> {
    let head = |layer, head| new_head(spec, budget, &Context { shape, layer, head, seed });
    (0..shape.layers).map(|layer| (0..shape.kv_heads).map(|kv| head(layer, kv)).collect()).collect()
}

fn new_head(spec: &Spec, budget: &dyn Budget, context: &Context<'_>) -> Result<Head, CacheError> {
    let declares = |name| spec.keep.method().parameters.iter().any(|p| p.name == name);
    let sinks = if declares("sinks") { spec.keep.integer("sinks").unwrap_or(0) } else { 0 };
    // A keep that knows no recent tokens protects the newest alone.
    let recent = if declares("recent") { spec.keep.integer("recent") } else { Some(1) };
    let keep = find(KEEPS, spec.keep.method())(&spec.keep, context);
    Ok(Head::new(
        budget
            .refine(keep, context)
            .map_err(|error| CacheError::Unsupported(format!("`{spec}`: {error}")))?,
        find(TAILS, spec.tail.method())(&spec.tail, context),
        find(READS, spec.read.method())(&spec.read, context),
        sinks,
        recent,
    ))
}

/// One layer of a [`Cache`], borrowed for a forward pass.
pub struct LayerCache<'a> {
    shape: &'a CacheShape,
    common: &'a Common,
    heads: &'a mut Vec<Head>,
    scratch: &'a mut Scratch,
    profile: Option<&'a mut Profile>,
    attention: Option<&'a mut Attention>,
    position: usize,
    layer: usize,
    pool: &'a ThreadPool,
}

impl LayerCache<'_> {
    /// Causal attention of a chunk of tokens over everything the cache remembers and the chunk itself;
    /// then takes the chunk's keys and values in, evicting what the cap asks for.
    ///
    /// `q` and `out` are `[token][head][head_dim]`, `k` and `v` are `[token][kv_head][head_dim]`, rotated.
    /// The scale 1/√head_dim is applied here.
    ///
    /// # Panics
    /// When the sizes are no whole number of tokens, or differ.
    pub fn attend(&mut self, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
        let CacheShape { heads, kv_heads, head_dim: d, .. } = *self.shape;
        let tokens = k.len() / (kv_heads * d);
        assert_eq!(k.len(), tokens * kv_heads * d, "keys are [token][kv_head][head_dim]");
        assert_eq!(v.len(), k.len(), "values are [token][kv_head][head_dim]");
        assert_eq!(q.len(), tokens * heads * d, "queries are [token][head][head_dim]");
        assert_eq!(out.len(), q.len(), "the output is [token][head][head_dim]");
        if tokens == 0 {
            return;
        }
        let env = Env { format: &self.common.format, level: cpu::level() };
        let chunks: Vec<Chunk<'_>> =
            (0..kv_heads).map(|head| Chunk::new(k, v, kv_heads, head, d, self.position)).collect();
        let call = Call { env, pool: self.pool, group: self.shape.group(), q, chunks: &chunks };
        let mut watch = Stopwatch::start(self.profile.is_some());
        call.attend(self.heads, self.scratch, out, &mut watch);
        if let Some(attention) = self.attention.as_deref_mut().filter(|_| tokens == 1) {
            *attention = Attention::of_step(&call, self.heads, self.scratch);
        }
        let seen = self.position + tokens;
        let limit = self.common.plan.limit(self.layer, seen, env.format, &self.heads[0]);
        admit::admit(&call, self.heads, &mut self.scratch.heads, limit, self.common.plan.pooled, &mut watch);
        if let Some(profile) = &mut self.profile {
            **profile += watch.stop();
        }
    }
}
