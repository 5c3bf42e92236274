//! Strips of a head: how they come, are sealed, lose bits and go.

use super::Slots;
use crate::context::EMPTY;
use crate::format::{Env, Format};
use crate::page::{PAGE, PAGE_STRIPS, Page};
use sketchkv_kernels::attention::layout::STRIP;
use std::sync::Arc;

/// Pages of a head from which on four strips at its end stay open instead of one. Room for them is kept free, be they there or
/// not: of fewer pages it is more than a part in fifteen, and that many more tokens say more than exact ones do.
const MANY_PAGES: usize = 24;

/// Strips at the end that a head of so many strips has room to keep open: the newest tokens draw the most attention, and of many
/// what they lose in codes costs more than as many bytes anywhere else.
pub(crate) fn open_strips(strips: usize) -> usize {
    if strips < MANY_PAGES * PAGE_STRIPS { 1 } else { PAGE_STRIPS }
}

impl Slots {
    /// Adds a strip. When the last page is full or it gets narrow, all others are sealed, and the newest open strip
    /// moves into the new one.
    pub(super) fn grow(&mut self, env: Env<'_>, bytes: usize) {
        let format = env.format;
        let full = self.pages.last().is_none_or(|page| page.strips() == PAGE_STRIPS);
        let cramped = self.bytes() + Self::open_strip_cost(format, self.words) > bytes;
        let before = self.pages.last().map_or(0, |page| page.open());
        if full {
            self.pages.push(Page::empty(format, self.pages.is_empty(), self.rung));
            self.live.reserve_exact(1);
            self.live.push(0);
        }
        self.pages.change(self.pages.len() - 1, |page| Arc::make_mut(page).push_strip(format));
        self.positions.reserve_exact(STRIP);
        self.positions.resize(self.positions.len() + STRIP, EMPTY);
        self.state.reserve_exact(STRIP * self.words);
        self.state.resize(self.positions.len() * self.words, 0);
        if let Some(index) = &mut self.index {
            index.resize(self.positions.len());
        }
        if before > 0 && (full || cramped) {
            let new = self.len() - STRIP;
            let page = (new - 1) / PAGE;
            // The grid is chosen for those that move on, too: they come back.
            let live = self.live[page];
            for slot in (new - STRIP..new).filter(|&slot| live >> (slot % PAGE) & 1 == 1) {
                self.move_token(env, slot, slot + STRIP);
            }
            let open = usize::from(!full);
            let live = live | self.live[page];
            self.reopen(env, page, open, live);
        }
    }

    /// Seals the strips of a page, all but the last `open`; a first grid suits the slots in `live`.
    fn reopen(&mut self, env: Env<'_>, page: usize, open: usize, live: u64) {
        let (rung, grading) = (self.rung, self.grading.as_deref_mut());
        self.pages.change(page, |page| {
            if page.sealed() == 0 && page.rung() != rung {
                Arc::make_mut(page).set_rung(rung);
            }
            *page = Arc::new(page.reopened(env, open, live, grading));
        });
    }

    /// Seals all open strips but the last `open`.
    pub(crate) fn seal(&mut self, env: Env<'_>, open: usize) {
        if let (Some(page), Some(&live)) = (self.pages.last(), self.live.last())
            && page.open() > open
        {
            self.reopen(env, self.pages.len() - 1, open, live);
        }
    }

    /// Lets pages go down to coarser stores until `tokens` more tokens find room in `bytes`. Strips that are open beyond what a head
    /// has room for are sealed where they take more than `bytes`.
    pub(crate) fn coarsen(&mut self, env: Env<'_>, tokens: usize, bytes: usize) {
        while self.needed(env.format, tokens) > bytes && self.coarsen_next(env) {}
        if self.bytes() > bytes {
            self.seal(env, open_strips(self.len() / STRIP));
        }
    }

    /// Lets one page go down to the next coarser store, the oldest of the finest: they are never more than a rung apart for long.
    /// False when all are on the last rung, and what comes will be.
    pub(crate) fn coarsen_next(&mut self, env: Env<'_>) -> bool {
        if self.rung + 1 == env.format.rungs() {
            return false;
        }
        let finer = |page: &Arc<Page>| page.sealed() > 0 && page.rung() <= self.rung;
        match self.pages.iter().position(finer) {
            Some(page) => self.coarsen_page(env, page),
            None => self.rung += 1,
        }
        true
    }

    /// Lets all sealed pages go down to the coarsest store.
    pub(crate) fn coarsen_all(&mut self, env: Env<'_>) {
        let last = env.format.rungs() - 1;
        for page in 0..self.pages.len() {
            while self.pages[page].sealed() > 0 && self.pages[page].rung() < last {
                self.coarsen_page(env, page);
            }
        }
    }

    /// Lets a page go down to the next coarser store.
    fn coarsen_page(&mut self, env: Env<'_>, page: usize) {
        let (live, grading) = (self.live[page], self.grading.as_deref_mut());
        self.pages.change(page, |page| {
            *page = Arc::new(page.coarsened(env, page.rung() + 1, live, grading));
        });
    }

    /// The most bytes on the way to `tokens` tokens more.
    pub(crate) fn needed(&self, format: &Format, tokens: usize) -> usize {
        let sealed = |rung: usize| Self::strip_cost(format, rung, self.words);
        let open_strip = Self::open_strip_cost(format, self.words);
        let strips = (self.count + tokens).div_ceil(STRIP).max(self.len() / STRIP);
        // The first strip of all stays as it is; once it is there it is counted with the page.
        let front = usize::from(format.keeps_front() && self.pages.is_empty()).min(strips);
        let new = strips - self.len() / STRIP - front;
        let open = open_strips(strips);
        // The page that grows now, as it is.
        let (before, kept) = match self.pages.last() {
            Some(page) if page.strips() < PAGE_STRIPS || page.open() > 0 => {
                let strips = page.sealed() + page.open();
                (strips, page.strips_bytes(format) + strips * STRIP * Self::beside(self.words))
            }
            _ => (0, 0),
        };
        // The page that grows then; others will be whole.
        let growing = ((strips.max(1) - 1) % PAGE_STRIPS + 1).min(before + new);
        let whole = before + new - growing;
        let pages = strips.div_ceil(PAGE_STRIPS) - self.pages.len();
        let last =
            |strips: usize| strips.min(open) * open_strip + strips.saturating_sub(open) * sealed(self.rung);
        let mut most = whole * sealed(self.rung) + last(growing) + pages * Self::page_cost(format);
        if pages > 0 && whole >= PAGE_STRIPS {
            // Before it began, the one before it was there with all that it keeps open.
            let others = (whole - PAGE_STRIPS) * sealed(self.rung) + (pages - 1) * Self::page_cost(format);
            most = most.max(others + last(PAGE_STRIPS));
        }
        // Of a page that is open as a whole: new ones are counted with theirs.
        let grids = usize::from(self.pages.last().is_some_and(|page| page.sealed() == 0));
        let indexed = self.index_bytes(strips * STRIP) - self.index_bytes(self.len());
        self.bytes() - kept + front * open_strip + most + grids * format.grid_bytes() + indexed
    }

    /// Bytes by which storing `tokens` tokens may grow these slots, whatever their pages are.
    pub(crate) fn growth(&self, format: &Format, tokens: usize) -> usize {
        let sealed = Self::strip_cost(format, self.rung, self.words);
        let strip = sealed.max(Self::open_strip_cost(format, self.words));
        let strips = tokens / STRIP + 1;
        let indexed = self.index_bytes(self.len() + strips * STRIP) - self.index_bytes(self.len());
        strips * strip + (strips / PAGE_STRIPS + 1) * Self::page_cost(format) + indexed
    }

    /// Gives back whole strips that free slots beyond the `least` to be kept amount to, moving the tokens of the last strip
    /// into others.
    pub(crate) fn compact(&mut self, env: Env<'_>, least: usize) {
        while self.len() >= self.count.max(least).saturating_add(STRIP) {
            let last = self.pages.len() - 1;
            let strip = self.pages[last].strips() - 1;
            let first = last * PAGE + strip * STRIP;
            if self.pages[last].open() == 1 && first > 0 && self.pages[(first - 1) / PAGE].sealed() > 0 {
                self.step_back(env, first);
            }
            for slot in first..first + STRIP {
                if self.positions[slot] != EMPTY {
                    let to = self.free_before(first).expect("a strip's worth of slots is free");
                    self.move_token(env, slot, to);
                }
            }
            if strip == 0 {
                self.pages.pop();
                self.live.pop();
                self.live.shrink_to_fit();
            } else {
                self.pages.change(last, |page| Arc::make_mut(page).pop_strip(env.format));
            }
            self.positions.truncate(first);
            self.positions.shrink_to_fit();
            self.state.truncate(first * self.words);
            self.state.shrink_to_fit();
            if let Some(index) = &mut self.index {
                index.resize(first);
            }
        }
        // The last strip is an open one again.
        if let (Some(page), Some(&live)) = (self.pages.last(), self.live.last())
            && page.open() == 0
            && page.sealed() > 0
            && env.format.opens()
        {
            self.reopen(env, self.pages.len() - 1, 1, live);
        }
    }

    /// Lets the strip before the last one, which begins at slot `first` and is the only open one, be open in its place: the newest
    /// tokens stay as they are, older ones go into freed places.
    fn step_back(&mut self, env: Env<'_>, first: usize) {
        let before = first - STRIP;
        for slot in before..first {
            if self.positions[slot] != EMPTY
                && let Some(free) = self.free_before(before)
            {
                self.move_token(env, slot, free);
            }
        }
        let page = before / PAGE;
        let open = if page == first / PAGE { 2 } else { 1 };
        self.reopen(env, page, open, self.live[page]);
        let mut newest: Vec<usize> =
            (first..first + STRIP).filter(|&slot| self.positions[slot] != EMPTY).collect();
        newest.sort_unstable_by_key(|&slot| std::cmp::Reverse(self.positions[slot]));
        for slot in newest {
            match (before..first).find(|&free| self.positions[free] == EMPTY) {
                Some(free) => self.move_token(env, slot, free),
                None => break,
            }
        }
    }
}
