//! One KV head of one layer: its pages, and who lives in them.

use crate::candidates::Candidates;
use crate::format::Format;
use crate::keep::{Arrival, Keep, Step};
use crate::page::{PAGE, PAGE_STRIPS, Page};
use crate::profile::Profile;
use crate::read::{Read, Written};
use crate::tail::{Evicted, Tail};
use sketchkv_kernels::attention::layout::STRIP;
use sketchkv_kernels::cpu::Level;
use std::mem::size_of;
use std::sync::Arc;

/// The position of a slot that holds no token.
pub(crate) const EMPTY: u32 = u32::MAX;

/// What an [`Arc`] allocates beside its content: two counts.
const ARC_COUNTS: usize = 2 * size_of::<usize>();

/// The queries of a chunk that one KV head answers.
#[derive(Clone, Copy)]
pub struct GroupQueries<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

impl<'a> GroupQueries<'a> {
    /// The queries of one token of the chunk, `[query][head_dim]`, rotated, unscaled.
    pub fn token(&self, token: usize) -> &'a [f32] {
        &self.q[token * self.stride + self.offset..][..self.len]
    }
}

/// What the operations of a head share.
#[derive(Clone, Copy)]
pub(crate) struct Env<'a> {
    pub(crate) format: &'a Format,
    pub(crate) level: Level,
}

/// How much a head may hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limit {
    /// Tokens in slots.
    pub(crate) slots: usize,
    /// Bytes, everything of this head included.
    pub(crate) bytes: usize,
}

impl Limit {
    pub(crate) const NONE: Limit = Limit { slots: usize::MAX, bytes: usize::MAX };
}

/// The new tokens of a forward pass, as one KV head sees them.
#[derive(Clone, Copy)]
pub(crate) struct Chunk<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    stride: usize,
    offset: usize,
    pub(crate) head_dim: usize,
    pub(crate) tokens: usize,
    pub(crate) position: usize,
}

impl<'a> Chunk<'a> {
    /// Keys and values are `[token][kv_head][head_dim]`.
    pub(crate) fn new(
        keys: &'a [f32],
        values: &'a [f32],
        kv_heads: usize,
        head: usize,
        head_dim: usize,
        position: usize,
    ) -> Self {
        let stride = kv_heads * head_dim;
        let (tokens, offset) = (keys.len() / stride, head * head_dim);
        Chunk { keys, values, stride, offset, head_dim, tokens, position }
    }

    pub(crate) fn key(&self, token: usize) -> &'a [f32] {
        &self.keys[token * self.stride + self.offset..][..self.head_dim]
    }

    pub(crate) fn value(&self, token: usize) -> &'a [f32] {
        &self.values[token * self.stride + self.offset..][..self.head_dim]
    }

    /// All values from this head's first on, and the distance from one token's to the next.
    pub(crate) fn values_strided(&self) -> (&'a [f32], usize) {
        (&self.values[self.offset..], self.stride)
    }
}

/// Buffers for taking tokens in, kept from step to step.
#[derive(Default)]
pub(crate) struct Work {
    /// Attention weight of each slot, then of each new token.
    pub(crate) mass: Vec<f32>,
    /// Importance of each slot, then of each new token.
    pub(crate) importance: Vec<f32>,
    /// Candidates to evict: slots, then `slots + token` for new tokens.
    pub(crate) victims: Vec<u32>,
    order: Vec<(f32, u32, u32)>,
    state: Vec<u32>,
    arrivals: Vec<u32>,
    key: Vec<f32>,
    value: Vec<f32>,
    turned_key: Vec<f32>,
    turned_value: Vec<f32>,
    /// Where the time of a parallel region went for this head, while that is taken.
    pub(crate) times: Profile,
}

/// See the module.
pub(crate) struct Head {
    pages: Vec<Arc<Page>>,
    /// One bit per slot of each page: whether it holds a token.
    live: Vec<u64>,
    /// `[slot]`
    positions: Vec<u32>,
    /// `[slot][words]`
    state: Vec<u32>,
    count: usize,
    evicted: u64,
    pub(crate) keep: Box<dyn Keep>,
    pub(crate) tail: Option<Box<dyn Tail>>,
    pub(crate) read: Option<Box<dyn Read>>,
    sinks: usize,
    recent: Option<usize>,
}

impl Clone for Head {
    fn clone(&self) -> Self {
        // `Vec::clone` allocates exactly what is used.
        Head {
            pages: self.pages.clone(),
            live: self.live.clone(),
            positions: self.positions.clone(),
            state: self.state.clone(),
            count: self.count,
            evicted: self.evicted,
            keep: self.keep.clone_box(),
            tail: self.tail.as_ref().map(|tail| tail.clone_box()),
            read: self.read.as_ref().map(|read| read.clone_box()),
            sinks: self.sinks,
            recent: self.recent,
        }
    }
}

impl Head {
    pub(crate) fn new(
        keep: Box<dyn Keep>,
        tail: Option<Box<dyn Tail>>,
        read: Option<Box<dyn Read>>,
        sinks: usize,
        recent: Option<usize>,
    ) -> Self {
        Head {
            pages: vec![],
            live: vec![],
            positions: vec![],
            state: vec![],
            count: 0,
            evicted: 0,
            keep,
            tail,
            read,
            sinks,
            recent,
        }
    }

    /// Tokens in slots.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Tokens evicted so far.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Slots allocated.
    pub(crate) fn slots(&self) -> usize {
        self.positions.len()
    }

    pub(crate) fn pages(&self) -> &[Arc<Page>] {
        &self.pages
    }

    pub(crate) fn live(&self) -> &[u64] {
        &self.live
    }

    /// Positions of the slots; [`EMPTY`] where there is no token.
    pub(crate) fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Position and slot of every token held, by position.
    pub(crate) fn in_order(&self) -> Vec<(usize, usize)> {
        let slots = self.positions.iter().enumerate().filter(|&(_, &position)| position != EMPTY);
        let mut live: Vec<_> = slots.map(|(slot, &position)| (position as usize, slot)).collect();
        live.sort_unstable();
        live
    }

    /// State of the keep, `[slot][words]`.
    pub(crate) fn state(&self) -> &[u32] {
        &self.state
    }

    /// Takes slots that were saved.
    pub(crate) fn restore_slots(
        &mut self,
        pages: Vec<Arc<Page>>,
        live: Vec<u64>,
        positions: Vec<u32>,
        state: Vec<u32>,
        evicted: u64,
    ) {
        self.count = live.iter().map(|live| live.count_ones() as usize).sum();
        (self.pages, self.live, self.positions, self.state) = (pages, live, positions, state);
        self.evicted = evicted;
    }

    /// Bytes of `strips` sealed strips and all that goes with them.
    pub(crate) fn cost(&self, format: &Format, strips: usize) -> usize {
        let slot = size_of::<u32>() * (1 + self.keep.words());
        // The last strip is open where the format has open strips.
        let open =
            if strips > 0 && format.opens() { format.open_strip_bytes() - format.strip_bytes() } else { 0 };
        open + strips * (format.strip_bytes() + STRIP * slot)
            + strips.div_ceil(PAGE_STRIPS) * self.page_cost(format)
            + self.read.as_ref().map_or(0, |read| read.bytes(strips * STRIP))
    }

    /// Bytes of a sealed page without its strips.
    pub(crate) fn page_cost(&self, format: &Format) -> usize {
        ARC_COUNTS + size_of::<Page>() + size_of::<Arc<Page>>() + size_of::<u64>() + format.grid_bytes()
    }

    /// Bytes that do not grow with the slots.
    pub(crate) fn fixed_bytes(&self) -> usize {
        size_of::<Head>()
            + size_of_val(&*self.keep)
            + self.keep.bytes()
            + self.tail.as_ref().map_or(0, |tail| size_of_val(&**tail) + tail.bytes())
            + self.read.as_ref().map_or(0, |read| size_of_val(&**read))
    }

    /// Bytes of everything.
    pub(crate) fn bytes(&self) -> usize {
        let pages: usize = self.pages.iter().map(|page| ARC_COUNTS + size_of::<Page>() + page.bytes()).sum();
        self.fixed_bytes()
            + pages
            + self.pages.capacity() * size_of::<Arc<Page>>()
            + self.live.capacity() * size_of::<u64>()
            + (self.positions.capacity() + self.state.capacity()) * size_of::<u32>()
            + self.read.as_ref().map_or(0, |read| read.bytes(self.slots()))
    }

    /// Adds this head to a ledger.
    pub(crate) fn enter(&self, format: &Format, ledger: &mut crate::Ledger) {
        let before = ledger.total();
        let slot = |bytes: usize| self.count * bytes / STRIP;
        for (page, live) in self.pages.iter().zip(&self.live) {
            page.enter(format, *live, ledger);
        }
        ledger.positions += slot(STRIP * size_of::<u32>());
        ledger.scores += slot(STRIP * size_of::<u32>() * self.keep.words());
        ledger.codes += self.read.as_ref().map_or(0, |read| read.bytes(self.slots()));
        ledger.sketches += self.keep.bytes();
        ledger.tail += self.tail.as_ref().map_or(0, |tail| tail.bytes());
        let boxes = self.fixed_bytes() - self.keep.bytes() - self.tail.as_ref().map_or(0, |t| t.bytes());
        ledger.tables += boxes
            + self.pages.len() * (ARC_COUNTS + size_of::<Page>())
            + self.pages.capacity() * size_of::<Arc<Page>>()
            + self.live.capacity() * size_of::<u64>();
        ledger.slack += self.bytes() - (ledger.total() - before);
    }

    /// Whether attention weights are needed, and how a chunk's queries count: see [`Keep::feedback`].
    pub(crate) fn feedback(&self) -> Option<f32> {
        let tail = self.tail.as_ref().is_some_and(|tail| tail.watches());
        self.keep.feedback().or(tail.then_some(0.0))
    }

    /// What the keep sees of the slots.
    pub(crate) fn observe(&mut self, mass: &[f32], queries: GroupQueries<'_>, chunk: &Chunk<'_>) {
        let step = Step {
            mass: &mass[..mass.len().min(self.positions.len())],
            positions: &self.positions,
            queries,
            tokens: chunk.tokens,
            position: chunk.position,
        };
        self.keep.observe(&step, &mut self.state);
    }

    /// Lets the keep see the new tokens, whose state waits in `work`.
    pub(crate) fn arrive(&mut self, chunk: &Chunk<'_>, work: &mut Work) {
        let words = self.keep.words();
        work.state.clear();
        work.state.resize(words * chunk.tokens, 0);
        work.arrivals.clear();
        work.arrivals.extend((0..chunk.tokens).map(|token| (chunk.position + token) as u32));
        work.victims.clear();
        for token in 0..chunk.tokens {
            let arrival = Arrival {
                key: chunk.key(token),
                value: chunk.value(token),
                position: chunk.position + token,
                mass: work.mass.get(self.positions.len() + token).copied().unwrap_or(0.0),
            };
            self.keep.arrive(&arrival, &mut work.state[token * words..][..words]);
        }
    }

    /// Computes the importance of every slot and new token into `work.importance`.
    pub(crate) fn weigh(&mut self, env: Env<'_>, chunk: &Chunk<'_>, work: &mut Work) {
        let slots = self.slots();
        work.importance.clear();
        work.importance.resize(slots + chunk.tokens, 0.0);
        let (old_mass, new_mass) = work.mass.split_at(slots.min(work.mass.len()));
        let old = Candidates::slots(&self.pages, &self.positions, &mut self.state, old_mass, env);
        let new = Candidates::rows(*chunk, &work.arrivals, &mut work.state, new_mass, env);
        self.keep.weigh(&mut [old, new], &mut work.importance);
    }

    /// Calls `f(importance, position, candidate)` for every token, and says whether it is protected as a recent one;
    /// sinks are left out.
    pub(crate) fn for_each_candidate(
        &self,
        chunk: &Chunk<'_>,
        work: &Work,
        limit: usize,
        mut f: impl FnMut(f32, u32, u32, bool),
    ) {
        let next = chunk.position + chunk.tokens;
        let recent = self.recent.unwrap_or(limit / 4).min(limit.saturating_sub(self.sinks));
        let first_recent = next.saturating_sub(recent);
        let all = self.positions.iter().chain(&work.arrivals).zip(&work.importance).enumerate();
        for (candidate, (&position, &importance)) in all {
            if position != EMPTY && position as usize >= self.sinks {
                f(importance, position, candidate as u32, position as usize >= first_recent);
            }
        }
    }

    /// Chooses `excess` candidates to evict into `work.victims`.
    pub(crate) fn choose_victims(&self, chunk: &Chunk<'_>, work: &mut Work, limit: usize, excess: usize) {
        let mut order = std::mem::take(&mut work.order);
        order.clear();
        if excess == 1 {
            let mut least: Option<(f32, u32, u32)> = None;
            self.for_each_candidate(chunk, work, limit, |importance, position, candidate, recent| {
                let this = (importance, position, candidate);
                if !recent && least.is_none_or(|least| before(&this, &least).is_lt()) {
                    least = Some(this);
                }
            });
            order.extend(least);
        } else {
            self.for_each_candidate(chunk, work, limit, |importance, position, candidate, recent| {
                if !recent {
                    order.push((importance, position, candidate));
                }
            });
            if order.len() > excess {
                order.select_nth_unstable_by(excess, before);
                order.truncate(excess);
            }
        }
        // More must go than is unprotected: the oldest of the recent go next.
        if order.len() < excess {
            let chosen = order.len();
            self.for_each_candidate(chunk, work, limit, |_, position, candidate, recent| {
                if recent {
                    order.push((0.0, position, candidate));
                }
            });
            order[chosen..].sort_unstable_by_key(|&(_, position, _)| position);
            order.truncate(excess);
        }
        work.victims.extend(order.iter().map(|&(_, _, candidate)| candidate));
        self.sort_by_position(chunk, &mut work.victims);
        work.order = order;
    }

    /// Puts candidates in the order of the sequence: tails must not depend on how a selection went.
    pub(crate) fn sort_by_position(&self, chunk: &Chunk<'_>, victims: &mut [u32]) {
        let slots = self.slots();
        victims.sort_unstable_by_key(|&victim| match self.positions.get(victim as usize) {
            Some(&position) => position,
            None => (chunk.position + victim as usize - slots) as u32,
        });
    }

    /// The fewest slots it can work with: sinks, recent tokens and one to choose about.
    pub(crate) fn least_slots(&self) -> usize {
        self.sinks + self.recent.unwrap_or(1) + 1
    }

    /// How many candidates must go so that the new tokens fit.
    pub(crate) fn excess(&self, chunk: &Chunk<'_>, limit: usize) -> usize {
        let over = (self.count + chunk.tokens).saturating_sub(limit);
        if over == 0 {
            return 0;
        }
        let movable = (self.count + chunk.tokens).saturating_sub(self.sinks + chunk.tokens.min(limit / 4));
        over.max(self.keep.batch().min(movable / 4))
    }

    /// Puts the new tokens that were not evicted on arrival into slots, growing to `bytes` at most.
    pub(crate) fn store(&mut self, env: Env<'_>, chunk: &Chunk<'_>, work: &mut Work, bytes: usize) {
        // `evict` left the victims among the new tokens, ascending.
        let mut gone = work.victims.iter().map(|&v| v as usize).peekable();
        let words = self.keep.words();
        work.turned_key.resize(env.format.dim, 0.0);
        work.turned_value.resize(env.format.dim, 0.0);
        for token in 0..chunk.tokens {
            if gone.next_if_eq(&token).is_some() {
                continue;
            }
            let slot = self.place(env, bytes);
            env.format.keys.turn(chunk.key(token), &mut work.turned_key);
            env.format.values.turn(chunk.value(token), &mut work.turned_value);
            let page = slot / PAGE;
            Arc::make_mut(&mut self.pages[page]).write(
                env.format,
                slot % PAGE,
                &work.turned_key,
                &work.turned_value,
                self.live[page],
            );
            if let Some(read) = &mut self.read {
                let (key, value) = (chunk.key(token), chunk.value(token));
                read.write(&Written { slot, key, value, others: self.live[page] });
            }
            self.live[page] |= 1 << (slot % PAGE);
            self.positions[slot] = (chunk.position + token) as u32;
            self.state[slot * words..][..words].copy_from_slice(&work.state[token * words..][..words]);
            self.count += 1;
        }
    }

    /// Frees the slots among the victims and tells the tail of all; leaves the new tokens among them in
    /// `work.victims`, as token numbers.
    pub(crate) fn evict(&mut self, env: Env<'_>, chunk: &Chunk<'_>, work: &mut Work) {
        let slots = self.slots();
        for &victim in work.victims.iter().filter(|&&v| (v as usize) < slots) {
            self.live[victim as usize / PAGE] &= !(1 << (victim as usize % PAGE));
        }
        self.evicted += work.victims.len() as u64;
        if let Some(mut tail) = self.tail.take() {
            let d = env.format.head_dim;
            let mean_mass = work.mass.iter().sum::<f32>() / (self.count + chunk.tokens) as f32;
            work.key.resize(env.format.dim, 0.0);
            work.value.resize(env.format.dim, 0.0);
            for &victim in &work.victims {
                let victim = victim as usize;
                let (key, value, position) = if victim < slots {
                    self.load(env, victim, &mut work.key, &mut work.value);
                    (&work.key[..d], &work.value[..d], self.positions[victim] as usize)
                } else {
                    let token = victim - slots;
                    (chunk.key(token), chunk.value(token), chunk.position + token)
                };
                let evicted = Evicted {
                    key,
                    value,
                    position,
                    importance: work.importance[victim],
                    relative_mass: work.mass.get(victim).map_or(1.0, |mass| mass / mean_mass),
                };
                tail.absorb(&evicted, &mut Neighbours { head: self, env });
            }
            self.tail = Some(tail);
        }
        work.victims.retain_mut(|victim| {
            let at = *victim as usize;
            if at < slots {
                self.positions[at] = EMPTY;
                self.count -= 1;
                false
            } else {
                *victim -= slots as u32;
                true
            }
        });
    }

    /// Decodes a slot, turned back; the buffers are `[dim]`, of which `head_dim` count.
    pub(crate) fn load(&self, env: Env<'_>, slot: usize, key: &mut [f32], value: &mut [f32]) {
        let page = &self.pages[slot / PAGE];
        page.key(env.format, slot % PAGE, key);
        env.format.keys.turn_back(key);
        page.value(env.format, slot % PAGE, value);
        env.format.values.turn_back(value);
    }

    /// A free slot, in a freed place or in new room within `bytes`.
    fn place(&mut self, env: Env<'_>, bytes: usize) -> usize {
        if self.count == self.slots() {
            self.grow(env, bytes);
        }
        // New tokens go where they stay as they are for a while; for that the oldest that is there makes way.
        let open = self.slots() - self.pages.last().map_or(0, |page| page.open()) * STRIP..self.slots();
        let oldest = open.clone().min_by_key(|&slot| (self.positions[slot] != EMPTY, self.positions[slot]));
        match oldest {
            Some(slot) if self.positions[slot] == EMPTY => slot,
            Some(slot) => {
                let free = self.free_before(open.start).expect("there are fewer tokens than slots");
                self.move_token(env, slot, free);
                slot
            }
            None => self.free_before(open.start).expect("there are fewer tokens than slots"),
        }
    }

    /// The first free slot before slot `end`.
    fn free_before(&self, end: usize) -> Option<usize> {
        let free = self.live.iter().enumerate().find(|(_, live)| **live != u64::MAX);
        free.map(|(page, live)| page * PAGE + (!live).trailing_zeros() as usize).filter(|&slot| slot < end)
    }

    /// Moves a token to a free slot.
    fn move_token(&mut self, env: Env<'_>, from: usize, to: usize) {
        let words = self.keep.words();
        let from_page = self.pages[from / PAGE].clone();
        let live = self.live[to / PAGE];
        let page = Arc::make_mut(&mut self.pages[to / PAGE]);
        page.copy(env.format, to % PAGE, &from_page, from % PAGE, live);
        self.live[to / PAGE] |= 1 << (to % PAGE);
        self.live[from / PAGE] &= !(1 << (from % PAGE));
        self.positions[to] = self.positions[from];
        self.positions[from] = EMPTY;
        self.state.copy_within(from * words..(from + 1) * words, to * words);
        self.index(env, to, live);
    }

    /// Adds a strip. When the last page is full or it gets narrow, all others are sealed, and the newest open strip
    /// moves into the new one.
    fn grow(&mut self, env: Env<'_>, bytes: usize) {
        let format = env.format;
        let strip = format.open_strip_bytes() + STRIP * size_of::<u32>() * (1 + self.keep.words());
        let full = self.pages.last().is_none_or(|page| page.strips() == PAGE_STRIPS);
        let cramped = self.bytes() + strip > bytes;
        let before = self.pages.last().map_or(0, |page| page.open());
        if full {
            self.pages.reserve_exact(1);
            self.pages.push(Arc::default());
            self.live.reserve_exact(1);
            self.live.push(0);
        }
        Arc::make_mut(self.pages.last_mut().expect("a page was added")).push_strip(format);
        self.positions.reserve_exact(STRIP);
        self.positions.resize(self.positions.len() + STRIP, EMPTY);
        self.state.reserve_exact(STRIP * self.keep.words());
        self.state.resize(self.positions.len() * self.keep.words(), 0);
        if let Some(read) = &mut self.read {
            read.resize(self.positions.len());
        }
        if before > 0 && (full || cramped) {
            let new = self.slots() - STRIP;
            let page = (new - 1) / PAGE;
            // The grid is chosen for those that move on, too: they come back.
            let live = self.live[page];
            for slot in (new - STRIP..new).filter(|&slot| live >> (slot % PAGE) & 1 == 1) {
                self.move_token(env, slot, slot + STRIP);
            }
            let open = usize::from(!full);
            self.pages[page] = Arc::new(self.pages[page].reopened(format, open, live | self.live[page]));
        }
    }

    /// Seals all open strips but the last `open`.
    pub(crate) fn seal(&mut self, format: &Format, open: usize) {
        if let (Some(page), Some(&live)) = (self.pages.last_mut(), self.live.last())
            && page.open() > open
        {
            *page = Arc::new(page.reopened(format, open, live));
        }
    }

    /// Bytes by which storing `tokens` tokens may grow this head, whatever its pages are.
    pub(crate) fn growth(&self, format: &Format, tokens: usize) -> usize {
        let slot = size_of::<u32>() * (1 + self.keep.words());
        let strip = format.open_strip_bytes().max(format.strip_bytes()) + STRIP * slot;
        let strips = tokens / STRIP + 1;
        let index = |slots: usize| self.read.as_ref().map_or(0, |read| read.bytes(slots));
        let indexed = index(self.slots() + strips * STRIP) - index(self.slots());
        strips * strip + (strips / PAGE_STRIPS + 1) * self.page_cost(format) + indexed
    }

    /// Gives back whole strips that free slots amount to, moving the tokens of the last strip into them.
    pub(crate) fn compact(&mut self, env: Env<'_>) {
        let words = self.keep.words();
        while self.slots() - self.count >= STRIP {
            let last = self.pages.len() - 1;
            let strip = self.pages[last].strips() - 1;
            let first = last * PAGE + strip * STRIP;
            for slot in first..first + STRIP {
                if self.positions[slot] != EMPTY {
                    let to = self.free_before(first).expect("a strip's worth of slots is free");
                    self.move_token(env, slot, to);
                }
            }
            if strip == 0 {
                self.pages.pop();
                self.live.pop();
                self.pages.shrink_to_fit();
                self.live.shrink_to_fit();
            } else {
                Arc::make_mut(&mut self.pages[last]).pop_strip(env.format);
            }
            self.positions.truncate(first);
            self.positions.shrink_to_fit();
            self.state.truncate(first * words);
            self.state.shrink_to_fit();
            if let Some(read) = &mut self.read {
                read.resize(first);
            }
        }
        // The last strip is an open one again.
        if let (Some(page), Some(&live)) = (self.pages.last_mut(), self.live.last())
            && page.open() == 0
            && env.format.opens()
        {
            *page = Arc::new(page.reopened(env.format, 1, live));
        }
    }

    /// Copies the pages that another head shares.
    pub(crate) fn unshare(&mut self) {
        self.pages.iter_mut().for_each(|page| {
            Arc::make_mut(page);
        });
    }

    /// Forgets the tokens from `position` on.
    pub(crate) fn truncate(&mut self, env: Env<'_>, position: usize) {
        for slot in 0..self.slots() {
            if self.positions[slot] != EMPTY && self.positions[slot] as usize >= position {
                self.positions[slot] = EMPTY;
                self.live[slot / PAGE] &= !(1 << (slot % PAGE));
                self.count -= 1;
            }
        }
        self.compact(env);
        // What the index knows of the forgotten tokens goes too.
        if let Some(read) = &mut self.read {
            read.resize(0);
            read.resize(self.positions.len());
            for slot in (0..self.slots()).filter(|&slot| self.positions[slot] != EMPTY).collect::<Vec<_>>() {
                self.index(env, slot, self.live[slot / PAGE] & ((1 << (slot % PAGE)) - 1));
            }
        }
    }

    /// Tells the index of the token in a slot as it is stored; `others` are the other slots of the page that count.
    fn index(&mut self, env: Env<'_>, slot: usize, others: u64) {
        if let Some(mut read) = self.read.take() {
            let d = env.format.head_dim;
            let (mut key, mut value) = (vec![0.0; env.format.dim], vec![0.0; env.format.dim]);
            self.load(env, slot, &mut key, &mut value);
            read.write(&Written { slot, key: &key[..d], value: &value[..d], others });
            self.read = Some(read);
        }
    }
}

/// Less important first; of equals, older first.
pub(crate) fn before(a: &(f32, u32, u32), b: &(f32, u32, u32)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}

/// The slots that stay when others are evicted.
pub struct Neighbours<'a> {
    head: &'a mut Head,
    env: Env<'a>,
}

impl Neighbours<'_> {
    /// The slots that hold a token: slot and position.
    pub fn slots(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let live = &self.head.live;
        let staying = move |slot: usize| live[slot / PAGE] >> (slot % PAGE) & 1 == 1;
        let positions = self.head.positions.iter().enumerate();
        positions.filter(move |(slot, _)| staying(*slot)).map(|(slot, &position)| (slot, position as usize))
    }

    /// The key and the value of a slot, `[head_dim]`.
    pub fn load(&self, slot: usize, key: &mut [f32], value: &mut [f32]) {
        let d = self.env.format.head_dim;
        let mut wide = vec![0.0; 2 * self.env.format.dim];
        let (wide_key, wide_value) = wide.split_at_mut(self.env.format.dim);
        self.head.load(self.env, slot, wide_key, wide_value);
        key.copy_from_slice(&wide_key[..d]);
        value.copy_from_slice(&wide_value[..d]);
    }

    /// Replaces the value of a slot, `[head_dim]`.
    pub fn set_value(&mut self, slot: usize, value: &[f32]) {
        let format = self.env.format;
        let mut turned = vec![0.0; format.dim];
        format.values.turn(value, &mut turned);
        Arc::make_mut(&mut self.head.pages[slot / PAGE]).set_value(format, slot % PAGE, &turned);
    }
}
