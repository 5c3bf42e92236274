//! One KV head of one layer: its slots, and the methods that decide about them.

use crate::context::{Buffers, Candidates, EMPTY, NewTokens};
use crate::format::{Env, Format};
use crate::judgement::{Departures, Judgement};
use crate::keep::{Arrival, Feedback, Keep, Step};
use crate::slots::{Around, Newcomer, Slots};
use crate::tail::{Evicted, Tail};
use std::mem::size_of;

/// See the module.
pub(crate) struct Head {
    pub(crate) slots: Slots,
    pub(crate) keep: Box<dyn Keep>,
    pub(crate) tail: Option<Box<dyn Tail>>,
    /// Tokens evicted so far.
    pub(crate) evicted: u64,
    /// Tokens that the layer's window has left behind so far.
    pub(crate) expired: u64,
    sinks: usize,
    recent: Option<usize>,
}

impl Clone for Head {
    fn clone(&self) -> Self {
        Head {
            slots: self.slots.clone(),
            keep: self.keep.clone_box(),
            tail: self.tail.as_ref().map(|tail| tail.clone_box()),
            ..*self
        }
    }
}

/// What a pass leaves behind for one head: what its slots and new tokens drew of attention, and what its keep noted.
#[derive(Default)]
pub(crate) struct Trace {
    /// Attention weight of each slot, then of each new token; empty where nobody asked.
    pub(crate) mass: Vec<f32>,
    /// See [`Keep::digest`].
    pub(crate) digest: Vec<f32>,
    /// Squares of the queries, by channel, where keys are graded by them.
    pub(crate) squares: Vec<f32>,
    /// Rows of a [`Sample`](crate::Sample), for a tail that wants them.
    pub(crate) sample: Vec<f32>,
}

impl Trace {
    pub(crate) fn bytes(&self) -> usize {
        let Trace { mass, digest, squares, sample } = self;
        [mass, digest, squares, sample].iter().map(|floats| floats.capacity() * size_of::<f32>()).sum()
    }

    /// The weights of the slots and of the new tokens from number `first` on.
    pub(crate) fn masses(&self, slots: usize, first: usize) -> (&[f32], &[f32]) {
        if self.mass.is_empty() {
            return (&[], &[]);
        }
        (&self.mass[..slots], &self.mass[slots + first..])
    }
}

impl Head {
    /// `recent` tokens are never evicted, the newest ones; `None` for a quarter of the slots.
    pub(crate) fn new(
        slots: Slots,
        keep: Box<dyn Keep>,
        tail: Option<Box<dyn Tail>>,
        sinks: usize,
        recent: Option<usize>,
    ) -> Self {
        Head { slots, keep, tail, evicted: 0, expired: 0, sinks, recent }
    }

    /// Bytes that do not grow with the slots.
    pub(crate) fn fixed_bytes(&self) -> usize {
        size_of::<Head>()
            + size_of_val(&*self.keep)
            + self.keep.bytes()
            + self.tail.as_ref().map_or(0, |tail| size_of_val(&**tail) + tail.bytes())
            + self.slots.index.as_ref().map_or(0, |index| size_of_val(&**index))
            + self.slots.grading.as_ref().map_or(0, |grading| grading.bytes())
    }

    /// Bytes of everything.
    pub(crate) fn bytes(&self) -> usize {
        self.fixed_bytes() + self.slots.bytes()
    }

    /// Adds this head to a ledger.
    pub(crate) fn enter(&self, format: &Format, ledger: &mut crate::Ledger) {
        let before = ledger.total();
        self.slots.enter(format, ledger);
        let tail = self.tail.as_ref().map_or(0, |tail| tail.bytes());
        ledger.sketches += self.keep.bytes();
        ledger.tail += tail;
        ledger.tables += self.fixed_bytes() - self.keep.bytes() - tail;
        ledger.slack += self.bytes() - (ledger.total() - before);
    }

    /// Whether attention weights are needed, and how a chunk's queries count: see [`Keep::feedback`].
    pub(crate) fn feedback(&self, tokens: usize) -> Option<Feedback> {
        let tail = self.tail.as_ref().is_some_and(|tail| tail.watches());
        self.keep.feedback(tokens).or(tail.then_some(Feedback::Sum(0.0)))
    }

    /// How many queries of a pass the tail wants to know of.
    pub(crate) fn samples(&self) -> usize {
        self.tail.as_ref().map_or(0, |tail| tail.samples())
    }

    /// The fewest slots it can work with: sinks, recent tokens and one to choose about.
    pub(crate) fn least_slots(&self) -> usize {
        self.sinks + self.recent.unwrap_or(1) + 1
    }

    /// Shows the keep what a chunk attended to.
    pub(crate) fn observe(&mut self, trace: &Trace, tokens: usize, position: usize) {
        if let Some(grading) = &mut self.slots.grading {
            grading.observe(&trace.squares, tokens);
        }
        let (mass, _) = trace.masses(self.slots.len(), 0);
        let (positions, _, state) = self.slots.judged();
        self.keep.observe(&Step { mass, positions, digest: &trace.digest, tokens, position }, state);
    }

    /// Forgets the tokens before position `first`, which the layer's window has left behind.
    pub(crate) fn expire(&mut self, first: usize, expired: &mut Vec<u32>) {
        expired.clear();
        if first == 0 {
            return;
        }
        let positions = self.slots.positions().iter().enumerate();
        let left = positions.filter(|(_, p)| **p != EMPTY && (**p as usize) < first);
        expired.extend(left.map(|(slot, _)| slot as u32));
        self.slots.release(expired);
        self.slots.clear(expired);
        self.expired += expired.len() as u64;
    }

    /// Lets the keep see the new tokens; their state goes into the judgement. `mass` is what they drew in their own chunk.
    pub(crate) fn arrive(&mut self, tokens: &NewTokens<'_>, mass: &[f32], judgement: &mut Judgement) {
        let words = self.keep.words();
        judgement.begin(tokens, words);
        for token in 0..tokens.count {
            let arrival = Arrival {
                key: tokens.key(token),
                value: tokens.value(token),
                position: tokens.position + token,
                mass: mass.get(token).copied().unwrap_or(0.0),
            };
            self.keep.arrive(&arrival, &mut judgement.state[token * words..][..words]);
        }
    }

    /// Computes the importance of every slot and new token.
    pub(crate) fn weigh(
        &mut self,
        env: Env<'_>,
        tokens: &NewTokens<'_>,
        (old_mass, new_mass): (&[f32], &[f32]),
        judgement: &mut Judgement,
        buffers: &mut Buffers,
    ) {
        let Judgement { state: new_state, positions, importance, .. } = judgement;
        importance.clear();
        importance.resize(self.slots.len() + tokens.count, 0.0);
        let (held, pages, state) = self.slots.judged();
        let old = Candidates::slots(pages, held, state, old_mass, env);
        let new = Candidates::new_tokens(*tokens, positions, new_state, new_mass, env.level);
        self.keep.weigh(&mut [old, new], importance, buffers);
    }

    /// Calls `f(candidate, position, recent)` for every token that may have to go, slots before new tokens; sinks are left
    /// out, `recent` says whether it is protected as one of the newest of `limit`.
    pub(crate) fn for_each_candidate(
        &self,
        tokens: &NewTokens<'_>,
        limit: usize,
        mut f: impl FnMut(u32, u32, bool),
    ) {
        let recent = self
            .recent
            .unwrap_or((limit / 4).min(self.keep.most_recent()))
            .min(limit.saturating_sub(self.sinks));
        let first_recent = tokens.end().saturating_sub(recent);
        let arrivals = tokens.position as u32..tokens.end() as u32;
        let all = self.slots.positions().iter().copied().chain(arrivals);
        for (candidate, position) in all.enumerate() {
            if position != EMPTY && position as usize >= self.sinks {
                f(candidate as u32, position, position as usize >= first_recent);
            }
        }
    }

    /// How many candidates must go so that the new tokens fit into `limit` slots; about `batch` when any must.
    pub(crate) fn excess(&self, tokens: &NewTokens<'_>, limit: usize, batch: usize) -> usize {
        let all = self.slots.count() + tokens.count;
        let over = all.saturating_sub(limit);
        if over == 0 {
            return 0;
        }
        let movable = all.saturating_sub(self.sinks + tokens.count.min(limit / 4));
        over.max(batch.min(movable / 4))
    }

    /// Frees the slots of those who go and tells the tail of all of them.
    pub(crate) fn evict(
        &mut self,
        env: Env<'_>,
        tokens: &NewTokens<'_>,
        masses: (&[f32], &[f32]),
        judgement: &Judgement,
        departures: &Departures,
        buffers: &mut Buffers,
    ) {
        let Departures { slots, tokens: refused, .. } = departures;
        self.slots.release(slots);
        self.evicted += (slots.len() + refused.len()) as u64;
        if let Some(tail) = &mut self.tail {
            let length = self.slots.len();
            let all = masses.0.iter().chain(masses.1);
            let mean_mass = all.sum::<f32>() / (self.slots.count() + tokens.count) as f32;
            let relative = |mass: Option<&f32>| mass.map_or(1.0, |mass| mass / mean_mass);
            let format = env.format;
            let (mut key, mut value) = (buffers.floats(format.keys.dim), buffers.floats(format.values.dim));
            for &slot in slots {
                let slot = slot as usize;
                self.slots.load(env, slot, &mut key, &mut value);
                let evicted = Evicted {
                    key: &key[..format.keys.width],
                    value: &value[..format.values.width],
                    position: self.slots.positions()[slot] as usize,
                    importance: judgement.importance[slot],
                    relative_mass: relative(masses.0.get(slot)),
                };
                tail.absorb(&evicted, &mut Around { slots: &mut self.slots, env }, buffers);
            }
            buffers.give_floats([key, value]);
            for &token in refused {
                let token = token as usize;
                let evicted = Evicted {
                    key: tokens.key(token),
                    value: tokens.value(token),
                    position: tokens.position + token,
                    importance: judgement.importance[length + token],
                    relative_mass: relative(masses.1.get(token)),
                };
                tail.absorb(&evicted, &mut Around { slots: &mut self.slots, env }, buffers);
            }
        }
        self.slots.clear(slots);
    }

    /// Lets pages go down to coarser stores where `tokens` more tokens have no room otherwise in `bytes`, everything of the
    /// head included.
    pub(crate) fn coarsen(&mut self, env: Env<'_>, tokens: usize, bytes: usize) {
        // Most stores have no coarser one and open no strips, most caches no cap: nothing is added up for them, in every step.
        if env.format.opens() && bytes != usize::MAX {
            let fixed = self.fixed_bytes();
            self.slots.coarsen(env, tokens, bytes.saturating_sub(fixed));
        }
    }

    /// The most bytes on the way to `tokens` tokens more, everything of the head included.
    pub(crate) fn needed(&self, format: &Format, tokens: usize) -> usize {
        self.fixed_bytes() + self.slots.needed(format, tokens)
    }

    /// Puts the new tokens that stay into slots; the head grows to `bytes` at most.
    pub(crate) fn store(
        &mut self,
        env: Env<'_>,
        tokens: &NewTokens<'_>,
        judgement: &Judgement,
        departures: &Departures,
        buffers: &mut Buffers,
        bytes: usize,
    ) {
        let words = self.keep.words();
        let bytes = bytes.saturating_sub(self.fixed_bytes());
        let mut refused = departures.tokens.iter().map(|&token| token as usize).peekable();
        for token in 0..tokens.count {
            if refused.next_if_eq(&token).is_some() {
                continue;
            }
            let newcomer = Newcomer {
                key: tokens.key(token),
                value: tokens.value(token),
                position: tokens.position + token,
                state: &judgement.state[token * words..][..words],
            };
            self.slots.store(env, &newcomer, buffers, bytes);
        }
    }
}
