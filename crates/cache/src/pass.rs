//! One forward pass of one sequence over all layers: begin, attend, finish.

use crate::admit::AdmitScratch;
use crate::attend::Attend;
use crate::cache::Guessing;
use crate::contest::{self, LayerAdmission};
use crate::format::{Env, SideFormat, largest};
use crate::guess::Guesses;
use crate::head::Trace;
use crate::plan::Choosing;
use crate::probe::Attention;
use crate::profile::{Part, Profile, Stopwatch};
use crate::workspace::{Draft, DraftLayer};
use crate::{AttentionWorkspace, Cache, CacheError, LayerShape};
use sketchkv_kernels::{ThreadPool, cpu, for_each_pair_mut};

/// A pass that has begun.
///
/// Every layer attends through it, in order; [`Pass::finish`] commits what they saw. Until then nothing of the cache
/// changes, so a pass that is dropped has never been.
#[must_use = "a pass that is not finished leaves no trace"]
pub struct Pass<'c> {
    cache: &'c mut Cache,
    draft: Draft,
    /// Where the tokens are guesses.
    guesses: Option<Guesses>,
    tokens: usize,
    /// Layers that have attended.
    attended: usize,
}

impl Cache {
    /// Begins a forward pass over the next `tokens` tokens.
    ///
    /// # Errors
    /// When there are no tokens or too many, or a pass over this cache was torn apart while it committed.
    pub fn begin(
        &mut self,
        tokens: usize,
        workspace: &mut AttentionWorkspace,
    ) -> Result<Pass<'_>, CacheError> {
        if self.torn {
            return Err(CacheError::Torn { spec: self.spec.to_string(), position: self.position });
        }
        if tokens == 0 || tokens > u32::MAX as usize - 1 - self.position {
            return Err(CacheError::Argument(format!(
                "a pass of {tokens} tokens at position {}: at least 1, and no position beyond 2^32 - 2",
                self.position
            )));
        }
        let Guessing { next, .. } = std::mem::take(&mut self.guessing);
        let guesses = (next && tokens > 1).then(|| Guesses::begin(self, tokens, workspace));
        let draft = workspace.draft(if guesses.is_some() { 0 } else { self.layers.len() });
        Ok(Pass { cache: self, draft, guesses, tokens, attended: 0 })
    }

    /// Goes on with a pass that was paused over this cache.
    ///
    /// # Errors
    /// When the cache has seen other tokens since, or it is another one.
    pub fn resume(&mut self, paused: PausedPass) -> Result<Pass<'_>, CacheError> {
        let PausedPass { draft, guesses, tokens, attended, position, layers } = paused;
        if position != self.position || layers != self.layers.len() {
            return Err(CacheError::Argument(format!(
                "the pass was paused at position {position} and cannot go on at {}: begin another one",
                self.position
            )));
        }
        Ok(Pass { cache: self, draft, guesses, tokens, attended })
    }
}

/// A pass between two of its layers, for callers who cannot hold the cache from one layer to the next. Dropped, it has never
/// been.
pub struct PausedPass {
    draft: Draft,
    guesses: Option<Guesses>,
    tokens: usize,
    attended: usize,
    position: usize,
    layers: usize,
}

impl Pass<'_> {
    /// Position of the first token of the pass.
    pub fn position(&self) -> usize {
        self.cache.position
    }

    /// How many tokens it is over.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Lets go of the cache until [`Cache::resume`].
    pub fn pause(self) -> PausedPass {
        let Pass { cache, draft, guesses, tokens, attended } = self;
        PausedPass { draft, guesses, tokens, attended, position: cache.position, layers: cache.layers.len() }
    }

    /// Causal attention of the tokens over everything the cache remembers of this layer, and over each other.
    ///
    /// `q` is `[token][head][key_dim]`, `k` `[token][kv_head][key_dim]`, `v` `[token][kv_head][value_dim]`, `out`
    /// `[token][head][value_dim]`; q and k are rotated. The layer's scale is applied here.
    ///
    /// # Errors
    /// When a layer is skipped or comes twice, a slice has another length, a number is not finite, or one does not fit the
    /// store. The cache is as it was before the pass.
    pub fn attend(
        &mut self,
        layer: usize,
        pool: &ThreadPool,
        workspace: &mut AttentionWorkspace,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        out: &mut [f32],
    ) -> Result<(), CacheError> {
        self.check_turn(layer)?;
        let common = self.cache.common.clone();
        let (shape, format) = (&self.cache.shape.layers[layer], &*common.formats[layer]);
        check_lengths(
            shape,
            layer,
            self.tokens,
            &[("queries", q), ("keys", k), ("values", v), ("outputs", out)],
        )?;
        let at = Place { cache: self.cache, layer, tokens: self.tokens };
        at.check("queries", q)?;
        at.check_fits("keys", k, &format.keys)?;
        at.check_fits("values", v, &format.values)?;
        let env = Env { format, level: cpu::level() };
        let (tokens, position) = (self.tokens, self.cache.position);
        let prompt = self.cache.spec.read.of_prompt();
        if let Some(guesses) = &mut self.guesses {
            let row = |x: &[f32]| x.len() / tokens;
            let rows = (q.chunks_exact(row(q)), k.chunks_exact(row(k)), v.chunks_exact(row(v)));
            let width = row(out);
            let of_tokens = rows.0.zip(rows.1).zip(rows.2).zip(out.chunks_exact_mut(width)).enumerate();
            for (token, (((q, keys), values), out)) in of_tokens {
                let position = position + token;
                let attend = Attend { shape, env, pool, q, keys, values, tokens: 1, position, prompt };
                guesses.attend(self.cache, layer, token, &attend, workspace, out);
            }
            at.check("attention output", out)?;
            self.attended += 1;
            return Ok(());
        }
        let draft = &mut self.draft.layers[layer];
        draft.note(k, v, shape.kv_heads);
        let attend = Attend { shape, env, pool, q, keys: k, values: v, tokens, position, prompt };
        let mut watch = Stopwatch::start(self.cache.profile.is_some());
        let heads = &self.cache.layers[layer];
        attend.run(heads, &mut workspace.scratch, &mut draft.traces, out, &mut watch);
        at.check("attention output", out)?;
        if let Some(all) = &mut self.cache.attention {
            all[layer] = Attention::of_pass(&attend, heads, &draft.traces, &workspace.scratch.step);
        }
        if let Some(profile) = &mut self.cache.profile {
            **profile += watch.stop();
        }
        self.attended += 1;
        Ok(())
    }

    /// Takes in the keys and values of a layer, `k` `[token][kv_head][key_dim]` and `v` `[token][kv_head][value_dim]`, without
    /// attention: for callers who attend to [`Cache::slots`] themselves.
    ///
    /// # Errors
    /// As [`Pass::attend`], and when the cache evicts: it would not know whom.
    pub fn store(&mut self, layer: usize, k: &[f32], v: &[f32]) -> Result<(), CacheError> {
        self.check_turn(layer)?;
        if self.cache.spec.evicts() || self.guesses.is_some() {
            return Err(CacheError::Unsupported(format!(
                "`{}` evicts by what attention shows, and there is none: leave the cap out",
                self.cache.spec
            )));
        }
        let common = self.cache.common.clone();
        let (shape, format) = (&self.cache.shape.layers[layer], &*common.formats[layer]);
        check_lengths(shape, layer, self.tokens, &[("keys", k), ("values", v)])?;
        let at = Place { cache: self.cache, layer, tokens: self.tokens };
        at.check_fits("keys", k, &format.keys)?;
        at.check_fits("values", v, &format.values)?;
        let draft = &mut self.draft.layers[layer];
        draft.note(k, v, shape.kv_heads);
        draft.traces.iter_mut().for_each(|trace| *trace = Trace::default());
        self.attended += 1;
        Ok(())
    }

    fn check_turn(&self, layer: usize) -> Result<(), CacheError> {
        if layer == self.attended && layer < self.cache.layers.len() {
            return Ok(());
        }
        Err(CacheError::Argument(format!(
            "layer {layer} attends where it is the turn of layer {} of {}",
            self.attended,
            self.cache.layers.len()
        )))
    }

    /// Commits the pass: the keeps learn what was attended to, what the cap asks for goes, the tokens are stored, and the
    /// position advances.
    ///
    /// # Errors
    /// When not all layers have attended; the cache is as it was before the pass.
    pub fn finish(self, pool: &ThreadPool, workspace: &mut AttentionWorkspace) -> Result<(), CacheError> {
        let Pass { cache, draft, guesses, tokens, attended } = self;
        if attended < cache.layers.len() {
            return Err(CacheError::Argument(format!(
                "the pass is over after {attended} of {} layers: let every layer attend",
                cache.layers.len()
            )));
        }
        match guesses {
            Some(guesses) => guesses.finish(cache, pool, workspace),
            None => cache.take_in(&draft.layers, tokens, pool, workspace),
        }
        workspace.give_back(draft);
        Ok(())
    }
}

impl Cache {
    /// Takes `tokens` tokens in as `drafts` saw them, `[layer]`; without tokens, what the cap does not allow goes.
    pub(crate) fn take_in(
        &mut self,
        drafts: &[DraftLayer],
        tokens: usize,
        pool: &ThreadPool,
        workspace: &mut AttentionWorkspace,
    ) {
        let (position, timed) = (self.position, self.profile.is_some());
        let common = self.common.clone();
        common.allotment.limits(self.spec.cap, &self.shape, position + tokens, &mut workspace.limits);
        let AttentionWorkspace { limits, admissions, contest, .. } = workspace;
        if admissions.len() < self.layers.len() {
            admissions.resize_with(self.layers.len(), AdmitScratch::default);
        }
        let shape = &self.shape;
        let admission =
            |layer: usize| common.admission(shape, (layer, position), limits[layer], &drafts[layer], tokens);
        let mut watch = Stopwatch::start(timed);
        self.torn = true;
        let scratches = &mut admissions[..shape.layers.len()];
        match common.choosing {
            Choosing::InCache(floor) => {
                let mut layers = contest.layers();
                for (layer, (heads, scratch)) in self.layers.iter_mut().zip(&mut *scratches).enumerate() {
                    let (admission, cost) = (admission(layer), common.allotment.cost(layer));
                    layers.push(LayerAdmission { admission, cost, shape, heads, scratch });
                }
                contest::admit(&mut layers, floor, pool, contest, timed);
                contest.give_layers(layers);
            }
            _ => for_each_pair_mut(pool, &mut self.layers, scratches, |layer, heads, scratch| {
                admission(layer).run(heads, scratch, timed);
            }),
        }
        watch.lap_shared(scratches.iter().map(|scratch| scratch.watch.stop()), Part::Store);
        self.torn = false;
        self.position += tokens;
        if let Some(profile) = &mut self.profile {
            let seen: Profile = watch.stop();
            **profile += seen;
        }
    }
}

impl DraftLayer {
    /// Takes down the keys and values of the tokens.
    pub(crate) fn note(&mut self, k: &[f32], v: &[f32], kv_heads: usize) {
        self.keys.clear();
        self.keys.extend_from_slice(k);
        self.values.clear();
        self.values.extend_from_slice(v);
        self.traces.resize_with(kv_heads, Trace::default);
    }
}

fn check_lengths(
    shape: &LayerShape,
    layer: usize,
    tokens: usize,
    given: &[(&str, &[f32])],
) -> Result<(), CacheError> {
    for (what, numbers) in given {
        let found = numbers.len();
        let row = match *what {
            "queries" => shape.heads * shape.key_dim,
            "keys" => shape.kv_heads * shape.key_dim,
            "values" => shape.kv_heads * shape.value_dim,
            _ => shape.heads * shape.value_dim,
        };
        if found != tokens * row {
            return Err(CacheError::Argument(format!(
                "layer {layer} got {found} numbers as {what} where {tokens} tokens take {}",
                tokens * row
            )));
        }
    }
    Ok(())
}

/// Where numbers are looked at.
#[derive(Clone, Copy)]
struct Place<'a> {
    cache: &'a Cache,
    layer: usize,
    tokens: usize,
}

impl Place<'_> {
    /// That all numbers, `[token]` of equal rows, are finite.
    fn check(self, what: &'static str, x: &[f32]) -> Result<(), CacheError> {
        if largest(x).is_finite() {
            return Ok(());
        }
        let first = x.iter().position(|x| !x.is_finite()).unwrap_or(0);
        Err(self.not_finite(what, first * self.tokens / x.len()))
    }

    /// That all vectors of a side, `[token][kv_head]`, are finite and within what their store holds.
    fn check_fits(self, what: &'static str, x: &[f32], side: &SideFormat) -> Result<(), CacheError> {
        let Some((vector, largest)) = side.first_beyond(x) else { return Ok(()) };
        let token = vector * side.width * self.tokens / x.len();
        if !largest.is_finite() {
            return Err(self.not_finite(what, token));
        }
        Err(CacheError::OutOfRange {
            spec: self.cache.spec.to_string(),
            layer: self.layer,
            position: self.cache.position + token,
            what,
            largest,
            most: side.largest(),
        })
    }

    fn not_finite(self, what: &'static str, token: usize) -> CacheError {
        let (spec, layer) = (self.cache.spec.to_string(), self.layer);
        CacheError::NotFinite { spec, layer, position: self.cache.position + token, what }
    }
}
