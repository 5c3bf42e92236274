//! Passes over tokens of which only a beginning may stay: each is taken in as if it had come alone, and the cache can go back to
//! any of them.
//!
//! In each layer a token attends over the state that the token before it left there, and is taken into a fork of that state
//! at once; the forks share all pages that the tokens did not write to. So the result is, bit for bit and for every
//! composition, that of passes of one token, while the model reads its weights once.
//!
//! Where all heads of a cache compete for one cap, what a layer takes in depends on layers that have not attended yet. There
//! the layers assume that nobody competes, and at the end the tokens are taken in once more, in all layers together: as
//! long as that gives the same slots, the assumption was right, and the first token after which it does not is the last.

use crate::admit::AdmitScratch;
use crate::attend::Attend;
use crate::cache::State;
use crate::contest::{self, LayerAdmission};
use crate::page::PAGE;
use crate::plan::{Choosing, Limit};
use crate::workspace::Draft;
use crate::{AttentionWorkspace, Cache, CacheError};
use sketchkv_kernels::ThreadPool;

/// What a pass over guesses has come to.
pub(crate) struct Guesses {
    /// Of each token.
    pub(crate) drafts: Vec<Draft>,
    /// After each token, as many layers as have attended.
    pub(crate) states: Vec<State>,
    /// What each layer may hold after each token.
    pub(crate) limits: Vec<Vec<Limit>>,
}

impl Cache {
    /// Makes the next pass one over guesses: its tokens are taken in as if each had come in a pass of its own, and until another
    /// pass begins [`Cache::go_back`] takes back those that were guessed wrongly.
    ///
    /// Where all heads compete for one cap, a pass over guesses may take in fewer tokens than it was given, at least one:
    /// [`Cache::position`] says how many.
    pub fn guess(&mut self) -> &mut Cache {
        self.guessing.next = true;
        self
    }

    /// Goes back to `position`, which is behind some token of the last pass, if that was one over guesses: all is then as if the
    /// tokens from there on had never come. The other states are given up.
    ///
    /// # Errors
    /// When the last pass did not go through `position`, or it was not over guesses.
    pub fn go_back(&mut self, position: usize) -> Result<(), CacheError> {
        let mut states = std::mem::take(&mut self.guessing.states);
        let Some(back) = self.position.checked_sub(position) else {
            return Err(CacheError::Argument(format!(
                "position {position} is yet to come: {} is next",
                self.position
            )));
        };
        if back == 0 {
            return Ok(());
        }
        let Some(index) = states.len().checked_sub(back) else {
            return Err(CacheError::Argument(format!(
                "the last pass was not over guesses from position {position} on: fork the cache before it"
            )));
        };
        self.layers = states.swap_remove(index);
        self.position = position;
        Ok(())
    }

    /// The most bytes that a pass over guesses takes for each of its tokens beside what the cache itself may come to take, until
    /// [`Cache::go_back`]: the state behind the token, as far as it shares no pages with the one before.
    pub fn guess_bytes(&self) -> usize {
        let evicts = self.spec.evicts();
        let heads = self.layers.iter().zip(&self.common.formats);
        let states = heads.flat_map(|(heads, format)| {
            heads.iter().map(move |head| {
                let settled = if evicts { 0 } else { head.slots.settled_bytes() };
                head.bytes() - settled + head.slots.growth(format, PAGE)
            })
        });
        states.sum()
    }
}

impl Guesses {
    pub(crate) fn begin(cache: &Cache, tokens: usize, workspace: &mut AttentionWorkspace) -> Guesses {
        let limits = (1..=tokens).map(|token| {
            let mut limits = vec![];
            let seen = cache.position + token;
            cache.common.allotment.limits(cache.spec.cap, &cache.shape, seen, &mut limits);
            limits
        });
        Guesses {
            limits: limits.collect(),
            drafts: (0..tokens).map(|_| workspace.draft(cache.layers.len())).collect(),
            states: (0..tokens).map(|_| Vec::with_capacity(cache.layers.len())).collect(),
        }
    }

    /// Lets token `token` of the pass attend in `layer` over what the one before it left there, and takes it in.
    pub(crate) fn attend(
        &mut self,
        cache: &Cache,
        layer: usize,
        token: usize,
        attend: &Attend<'_>,
        workspace: &mut AttentionWorkspace,
        out: &mut [f32],
    ) {
        let mut watch = crate::profile::Stopwatch::start(false);
        let draft = &mut self.drafts[token].layers[layer];
        draft.note(attend.keys, attend.values, attend.shape.kv_heads);
        let before = match token.checked_sub(1) {
            None => &cache.layers[layer],
            Some(before) => &self.states[before][layer],
        };
        attend.run(before, &mut workspace.scratch, &mut draft.traces, out, &mut watch);
        let mut heads = before.clone();
        if workspace.admissions.is_empty() {
            workspace.admissions.push(AdmitScratch::default());
        }
        let scratch = &mut workspace.admissions[0];
        let limit = self.limits[token][layer];
        let (common, place) = (&cache.common, (layer, attend.position));
        match common.choosing {
            Choosing::InCache(floor) => {
                let admission = common.admission(&cache.shape, place, Limit::NONE, draft, 1);
                let cost = common.allotment.cost(layer);
                let shape = &cache.shape;
                let layer = LayerAdmission { admission, cost, shape, heads: &mut heads, scratch };
                contest::admit(&mut [layer], floor, attend.pool, &mut workspace.contest, false);
            }
            _ => common.admission(&cache.shape, place, limit, draft, 1).run(&mut heads, scratch, false),
        }
        self.states[token].push(heads);
    }

    /// Makes the last state that is certain the cache's; the others can be gone back to.
    pub(crate) fn finish(mut self, cache: &mut Cache, pool: &ThreadPool, workspace: &mut AttentionWorkspace) {
        if matches!(cache.common.choosing, Choosing::InCache(_)) && cache.spec.evicts() {
            for token in 0..self.states.len() {
                cache.take_in(&self.drafts[token].layers, 1, pool, workspace);
                let assumed = &self.states[token];
                let is_right =
                    cache.layers.iter().flatten().zip(assumed.iter().flatten()).all(|(head, assumed)| {
                        head.evicted == assumed.evicted && head.slots.is_laid_out_as(&assumed.slots)
                    });
                if !is_right || token + 1 == self.states.len() {
                    self.states.truncate(token);
                    break;
                }
            }
        } else if let Some(last) = self.states.pop() {
            cache.layers = last;
            cache.position += self.states.len() + 1;
        }
        cache.guessing.states = self.states;
        self.drafts.into_iter().for_each(|draft| workspace.give_back(draft));
    }
}
