//! What a keep sees of the tokens it judges.

use super::{Buffers, NewTokens};
use crate::format::Env;
use crate::page::{PAGE, Page};
use sketchkv_kernels::attention::layout::{MAX_DIM, STRIP};
use sketchkv_kernels::cpu::Level;
use std::sync::Arc;

/// Tokens that may be evicted: the slots of a head, or the tokens on their way in.
pub struct Candidates<'a> {
    /// Positions; `u32::MAX` where a slot is empty, whose importance does not matter.
    pub positions: &'a [u32],
    /// State, `[candidate][words]`.
    pub state: &'a mut [u32],
    /// Attention weights of this step, where the keep asked for them; else empty.
    pub mass: &'a [f32],
    vectors: Vectors<'a>,
}

/// Where the keys and values of candidates lie.
enum Vectors<'a> {
    Slots { pages: &'a [Arc<Page>], env: Env<'a> },
    New { tokens: NewTokens<'a>, level: Level },
}

impl<'a> Candidates<'a> {
    /// The most candidates of a tile.
    pub const TILE: usize = PAGE;

    /// The tokens on their way in.
    pub(crate) fn new_tokens(
        tokens: NewTokens<'a>,
        positions: &'a [u32],
        state: &'a mut [u32],
        mass: &'a [f32],
        level: Level,
    ) -> Self {
        Candidates { positions, state, mass, vectors: Vectors::New { tokens, level } }
    }

    /// Tokens in slots.
    pub(crate) fn slots(
        pages: &'a [Arc<Page>],
        positions: &'a [u32],
        state: &'a mut [u32],
        mass: &'a [f32],
        env: Env<'a>,
    ) -> Self {
        Candidates { positions, state, mass, vectors: Vectors::Slots { pages, env } }
    }

    /// Number of candidates, empty slots included.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The products of every key with some queries: `queries` is `[query][key_dim]`, `out` `[query][candidate]`.
    ///
    /// Keys in codes are multiplied as attention multiplies them, with queries rounded to 8 bits.
    pub fn dot(&self, queries: &[f32], out: &mut [f32], buffers: &mut Buffers) {
        let n = self.len();
        match &self.vectors {
            Vectors::Slots { pages, env } => {
                let (d, dim) = (env.format.keys.width, env.format.keys.dim);
                let mut turned = buffers.floats(queries.len() / d * dim);
                for (query, turned) in queries.chunks_exact(d).zip(turned.chunks_exact_mut(dim)) {
                    env.format.keys.turn(query, turned);
                }
                let mut queries = buffers.queries();
                queries.set(&turned, dim);
                for (index, page) in pages.iter().enumerate() {
                    let out = &mut out[index * PAGE..];
                    page.scores(env.level, env.format, &queries, 0..page.strips(), &[], out, n);
                }
                buffers.give_floats([turned]);
                buffers.give_queries([queries]);
            }
            Vectors::New { tokens, .. } if n > 0 => {
                let d = tokens.key(0).len();
                for (query, out) in queries.chunks_exact(d).zip(out.chunks_exact_mut(n)) {
                    for (token, out) in out.iter_mut().enumerate() {
                        *out = tokens.key(token).iter().zip(query).map(|(k, q)| k * q).sum();
                    }
                }
            }
            Vectors::New { .. } => {}
        }
    }

    /// Calls `f(first, keys)` for every candidate's key in tiles of whole strips, [`Self::TILE`] keys at most: `keys` is
    /// `[strip][key_dim][16]`, decoded and turned back, and belongs to the candidates from `first` on; a last strip may
    /// reach beyond them.
    pub fn for_each_tile(&self, buffers: &mut Buffers, mut f: impl FnMut(usize, &[f32])) {
        match &self.vectors {
            Vectors::Slots { pages, env } => {
                let (d, dim) = (env.format.keys.width, env.format.keys.dim);
                let mut decoded = buffers.floats(PAGE * dim);
                let mut key = [0.0; MAX_DIM];
                let key = &mut key[..dim];
                for (index, page) in pages.iter().enumerate() {
                    page.decode_keys(env.level, env.format, 0..page.strips(), &mut decoded);
                    let tile = &mut decoded[..page.strips() * dim * STRIP];
                    if env.format.keys.turns() {
                        for strip in tile.chunks_exact_mut(dim * STRIP) {
                            for lane in 0..STRIP {
                                key.iter_mut().enumerate().for_each(|(i, x)| *x = strip[i * STRIP + lane]);
                                env.format.keys.turn_back(key);
                                key.iter().enumerate().for_each(|(i, x)| strip[i * STRIP + lane] = *x);
                            }
                        }
                    }
                    if d != dim {
                        for strip in 1..page.strips() {
                            let from = strip * dim * STRIP;
                            tile.copy_within(from..from + d * STRIP, strip * d * STRIP);
                        }
                    }
                    f(index * PAGE, &tile[..page.strips() * d * STRIP]);
                }
                buffers.give_floats([decoded]);
            }
            Vectors::New { tokens: new, .. } => {
                let d = new.key(0).len();
                let mut whole = buffers.floats(PAGE * d);
                for first in (0..self.len()).step_by(PAGE) {
                    let tokens = PAGE.min(self.len() - first);
                    let tile = &mut whole[..tokens.next_multiple_of(STRIP) * d];
                    tile.fill(0.0);
                    for token in 0..tokens {
                        let strip = &mut tile[token / STRIP * d * STRIP..];
                        for (i, &x) in new.key(first + token).iter().enumerate() {
                            strip[i * STRIP + token % STRIP] = x;
                        }
                    }
                    f(first, tile);
                }
                buffers.give_floats([whole]);
            }
        }
    }

    /// What the kernels run on.
    pub fn level(&self) -> Level {
        match &self.vectors {
            Vectors::Slots { env, .. } => env.level,
            Vectors::New { level, .. } => *level,
        }
    }

    /// The key of a candidate, `[key_dim]`.
    pub fn key(&self, candidate: usize, out: &mut [f32]) {
        match &self.vectors {
            Vectors::Slots { pages, env } => {
                let mut key = [0.0; MAX_DIM];
                let key = &mut key[..env.format.keys.dim];
                pages[candidate / PAGE].key(env.format, candidate % PAGE, key);
                env.format.keys.turn_back(key);
                out.copy_from_slice(&key[..out.len()]);
            }
            Vectors::New { tokens, .. } => out.copy_from_slice(tokens.key(candidate)),
        }
    }

    /// The value of a candidate, `[value_dim]`.
    pub fn value(&self, candidate: usize, out: &mut [f32]) {
        match &self.vectors {
            Vectors::Slots { pages, env } => {
                let mut value = [0.0; MAX_DIM];
                let value = &mut value[..env.format.values.dim];
                pages[candidate / PAGE].value(env.format, candidate % PAGE, value);
                env.format.values.turn_back(value);
                out.copy_from_slice(&value[..out.len()]);
            }
            Vectors::New { tokens, .. } => out.copy_from_slice(tokens.value(candidate)),
        }
    }
}
