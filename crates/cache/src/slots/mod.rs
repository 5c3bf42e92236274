//! The slots of one KV head: its pages, and who lives in them.

mod pages;
mod strips;

pub(crate) use strips::open_strips;

use pages::Pages;

use crate::context::{Buffers, EMPTY, Neighbours};
use crate::format::{Env, Format};
use crate::grading::Grading;
use crate::page::{PAGE, Page};
use crate::read::{Read, Written};
use sketchkv_kernels::attention::layout::{MAX_DIM, STRIP};
use std::mem::size_of;
use std::sync::Arc;

/// See the module.
pub(crate) struct Slots {
    pages: Pages,
    /// One bit per slot of each page: whether it holds a token.
    live: Vec<u64>,
    /// `[slot]`
    positions: Vec<u32>,
    /// State of the keep, `[slot][words]`.
    pub(crate) state: Vec<u32>,
    /// Words of state a slot.
    words: usize,
    count: usize,
    /// The index of those who do not read everything.
    pub(crate) index: Option<Box<dyn Read>>,
    /// How keys are graded, where they are.
    pub(crate) grading: Option<Box<Grading>>,
    /// What the next strips are sealed on.
    rung: usize,
}

impl Clone for Slots {
    fn clone(&self) -> Self {
        // `Vec::clone` allocates exactly what is used.
        Slots {
            pages: self.pages.clone(),
            live: self.live.clone(),
            positions: self.positions.clone(),
            state: self.state.clone(),
            index: self.index.as_ref().map(|index| index.clone_box()),
            grading: self.grading.clone(),
            ..*self
        }
    }
}

/// A token to be stored.
pub(crate) struct Newcomer<'a> {
    pub(crate) key: &'a [f32],
    pub(crate) value: &'a [f32],
    pub(crate) position: usize,
    /// `[words]`
    pub(crate) state: &'a [u32],
}

impl Slots {
    pub(crate) fn new(words: usize, index: Option<Box<dyn Read>>, format: &Format) -> Self {
        let lines = format.keys.graded_lines();
        let grading = (!lines.is_empty()).then(|| Box::new(Grading::new(format.keys.dim, &lines)));
        Slots {
            pages: Pages::default(),
            live: vec![],
            positions: vec![],
            state: vec![],
            words,
            count: 0,
            index,
            grading,
            rung: 0,
        }
    }

    /// What the next strips are sealed on.
    pub(crate) fn rung(&self) -> usize {
        self.rung
    }

    /// Tokens held.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Slots allocated.
    pub(crate) fn len(&self) -> usize {
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

    /// Positions and pages of the slots, and the state that the keep has of them.
    pub(crate) fn judged(&mut self) -> (&[u32], &[Arc<Page>], &mut [u32]) {
        (&self.positions, &self.pages, &mut self.state)
    }

    /// What the keep knows of each slot, `[slot][words]`.
    pub(crate) fn state(&self) -> &[u32] {
        &self.state
    }

    /// Position and slot of every token held, by position.
    pub(crate) fn in_order(&self) -> Vec<(usize, usize)> {
        let mut live: Vec<_> = self.staying().collect();
        live.sort_unstable();
        live
    }

    /// Position and slot of every token that is not released, in the order of slots.
    fn staying(&self) -> impl Iterator<Item = (usize, usize)> {
        let held = |slot: usize| self.live[slot / PAGE] >> (slot % PAGE) & 1 == 1;
        let positions = self.positions.iter().enumerate();
        positions.filter(move |(slot, _)| held(*slot)).map(|(slot, &position)| (position as usize, slot))
    }

    /// Takes slots that were saved.
    pub(crate) fn restore(
        &mut self,
        rung: usize,
        pages: Vec<Arc<Page>>,
        live: Vec<u64>,
        positions: Vec<u32>,
        state: Vec<u32>,
    ) {
        self.count = live.iter().map(|live| live.count_ones() as usize).sum();
        self.rung = rung;
        (self.pages, self.live, self.positions, self.state) = (pages.into(), live, positions, state);
    }

    /// Bytes of a slot beside its key and value: position and state.
    fn beside(words: usize) -> usize {
        size_of::<u32>() * (1 + words)
    }

    /// Bytes of a strip that is sealed on a rung, with all that goes with its slots but an index.
    pub(crate) fn strip_cost(format: &Format, rung: usize, words: usize) -> usize {
        format.strip_bytes(rung) + STRIP * Self::beside(words)
    }

    /// As [`Slots::strip_cost`] of an open strip.
    pub(crate) fn open_strip_cost(format: &Format, words: usize) -> usize {
        format.open_strip_bytes() + STRIP * Self::beside(words)
    }

    /// Bytes of a sealed page without its strips.
    pub(crate) fn page_cost(format: &Format) -> usize {
        Pages::EACH + size_of::<Arc<Page>>() + size_of::<u64>() + format.grid_bytes()
    }

    /// Heap bytes of pages and tables; the index with them.
    pub(crate) fn bytes(&self) -> usize {
        self.pages.bytes()
            + self.live.capacity() * size_of::<u64>()
            + (self.positions.capacity() + self.state.capacity()) * size_of::<u32>()
            + self.index_bytes(self.len())
    }

    /// Whether tokens lie in the same slots, of pages that are coded alike.
    pub(crate) fn is_laid_out_as(&self, other: &Slots) -> bool {
        let layout = |page: &Page| (page.strips(), page.open(), page.rung());
        self.rung == other.rung
            && self.positions == other.positions
            && self.pages.iter().map(|p| layout(p)).eq(other.pages.iter().map(|p| layout(p)))
    }

    /// Heap bytes of the pages that are those of `other` too, at the same place.
    pub(crate) fn bytes_shared(&self, other: &Slots) -> usize {
        let same = self.pages.iter().zip(other.pages.iter()).filter(|(page, other)| Arc::ptr_eq(page, other));
        same.map(|(page, _)| Pages::bytes_of(page)).sum()
    }

    /// Heap bytes of the pages that nothing changes while tokens come and none is evicted: all but the last two.
    pub(crate) fn settled_bytes(&self) -> usize {
        self.pages.bytes_before_last(2)
    }

    /// Heap bytes of the index of `slots` slots.
    fn index_bytes(&self, slots: usize) -> usize {
        self.index.as_ref().map_or(0, |index| index.bytes(slots))
    }

    /// Adds the slots that hold a token, and the tables, to a ledger.
    pub(crate) fn enter(&self, format: &Format, ledger: &mut crate::Ledger) {
        for (page, live) in self.pages.iter().zip(&self.live) {
            page.enter(format, *live, ledger);
        }
        ledger.positions += self.count * size_of::<u32>();
        ledger.scores += self.count * size_of::<u32>() * self.words;
        ledger.codes += self.index_bytes(self.len());
        ledger.tables += self.pages.len() * Pages::EACH
            + self.pages.table_bytes()
            + self.live.capacity() * size_of::<u64>();
    }

    /// Marks slots as free to be taken, while their tokens can still be read.
    pub(crate) fn release(&mut self, slots: &[u32]) {
        for &slot in slots {
            self.live[slot as usize / PAGE] &= !(1 << (slot as usize % PAGE));
        }
    }

    /// Forgets the tokens of slots that were released.
    pub(crate) fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|&slot| self.positions[slot as usize] = EMPTY);
        self.count -= slots.len();
    }

    /// Puts a token into a slot, growing to `bytes` at most.
    pub(crate) fn store(&mut self, env: Env<'_>, token: &Newcomer<'_>, buffers: &mut Buffers, bytes: usize) {
        let format = env.format;
        let (mut key, mut value) = (buffers.floats(format.keys.dim), buffers.floats(format.values.dim));
        let slot = self.place(env, bytes);
        format.keys.turn(token.key, &mut key);
        format.values.turn(token.value, &mut value);
        let page = slot / PAGE;
        let others = self.live[page];
        self.pages.writable(page).write(format, slot % PAGE, &key, &value, others);
        buffers.give_floats([key, value]);
        if let Some(index) = &mut self.index {
            index.write(&Written { slot, key: token.key, value: token.value, others }, buffers);
        }
        self.live[page] |= 1 << (slot % PAGE);
        self.positions[slot] = token.position as u32;
        self.state[slot * self.words..][..self.words].copy_from_slice(token.state);
        self.count += 1;
    }

    /// Decodes a slot, turned back; the buffers are as long as codes, of which the first `width` count.
    pub(crate) fn load(&self, env: Env<'_>, slot: usize, key: &mut [f32], value: &mut [f32]) {
        let page = &self.pages[slot / PAGE];
        page.key(env.format, slot % PAGE, key);
        env.format.keys.turn_back(key);
        page.value(env.format, slot % PAGE, value);
        env.format.values.turn_back(value);
    }

    /// A free slot, in a freed place or in new room within `bytes`.
    fn place(&mut self, env: Env<'_>, bytes: usize) -> usize {
        if self.count == self.len() {
            self.grow(env, bytes);
        }
        // New tokens go where they stay as they are for a while; for that the oldest that is there makes way.
        let open = self.len() - self.pages.last().map_or(0, |page| page.open()) * STRIP..self.len();
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
        let words = self.words;
        let live = self.live[to / PAGE];
        if from / PAGE == to / PAGE {
            let page = self.pages.writable(to / PAGE);
            page.copy_within(env.format, to % PAGE, from % PAGE, live);
        } else {
            let from_page = self.pages[from / PAGE].clone();
            let page = self.pages.writable(to / PAGE);
            page.copy(env.format, to % PAGE, &from_page, from % PAGE, live);
        }
        self.live[to / PAGE] |= 1 << (to % PAGE);
        self.live[from / PAGE] &= !(1 << (from % PAGE));
        self.positions[to] = self.positions[from];
        self.positions[from] = EMPTY;
        self.state.copy_within(from * words..(from + 1) * words, to * words);
        self.index(env, to, live);
    }

    /// Copies the pages that a fork shares.
    pub(crate) fn unshare(&mut self) {
        self.pages.unshare();
    }

    /// New pages may be of the first store again, where there is room.
    pub(crate) fn restart_rungs(&mut self) {
        self.rung = 0;
    }

    /// Forgets the tokens from `position` on.
    pub(crate) fn truncate(&mut self, env: Env<'_>, position: usize) {
        let gone = |&(at, _): &(usize, usize)| at >= position;
        let slots: Vec<u32> = self.in_order().into_iter().filter(gone).map(|(_, slot)| slot as u32).collect();
        self.release(&slots);
        self.clear(&slots);
        self.compact(env, 0);
        // There may be room for finer pages again.
        self.restart_rungs();
        // What the index knows of the forgotten tokens goes too.
        if let Some(index) = &mut self.index {
            index.resize(0);
            index.resize(self.positions.len());
            for slot in (0..self.len()).filter(|&slot| self.positions[slot] != EMPTY).collect::<Vec<_>>() {
                self.index(env, slot, self.live[slot / PAGE] & ((1 << (slot % PAGE)) - 1));
            }
        }
    }

    /// Tells the index of the token in a slot as it is stored; `others` are the other slots of the page that count.
    fn index(&mut self, env: Env<'_>, slot: usize, others: u64) {
        if let Some(mut index) = self.index.take() {
            let (mut key, mut value) = ([0.0; MAX_DIM], [0.0; MAX_DIM]);
            let (key, value) = (&mut key[..env.format.keys.dim], &mut value[..env.format.values.dim]);
            self.load(env, slot, key, value);
            let (key, value) = (&key[..env.format.keys.width], &value[..env.format.values.width]);
            // Of no use but where an index has means of pages.
            index.write(&Written { slot, key, value, others }, &mut Buffers::default());
            self.index = Some(index);
        }
    }
}

/// Slots with what is needed to read and write them.
pub(crate) struct Around<'a> {
    pub(crate) slots: &'a mut Slots,
    pub(crate) env: Env<'a>,
}

impl Neighbours for Around<'_> {
    fn for_each_staying(&self, f: &mut dyn FnMut(usize, usize)) {
        self.slots.staying().for_each(|(position, slot)| f(position, slot));
    }

    fn load(&self, slot: usize, key: &mut [f32], value: &mut [f32]) {
        let format = self.env.format;
        let (mut wide_key, mut wide_value) = ([0.0; MAX_DIM], [0.0; MAX_DIM]);
        let wide_key = &mut wide_key[..format.keys.dim];
        let wide_value = &mut wide_value[..format.values.dim];
        self.slots.load(self.env, slot, wide_key, wide_value);
        key.copy_from_slice(&wide_key[..format.keys.width]);
        value.copy_from_slice(&wide_value[..format.values.width]);
    }

    fn set_value(&mut self, slot: usize, value: &[f32]) {
        let format = self.env.format;
        let mut turned = [0.0; MAX_DIM];
        let turned = &mut turned[..format.values.dim];
        format.values.turn(value, turned);
        self.slots.pages.writable(slot / PAGE).set_value(format, slot % PAGE, turned);
    }
}
