//! Who is granted how many bytes.

use super::{Worker, admission::Start};
use crate::{
    api::ApiError,
    engine::{Job, running::Running},
};
use sketchkv_cache::{Cache, Cap};

/// Tokens for which an answer asks bytes at a time.
const GRANT: usize = 256;
/// The share of an f16 cache below which no cap is lowered for others, in percent: no model lost more than 0.03 nats there.
const LEAST_PERCENT: usize = 25;

impl Worker {
    /// Grants the bytes that the job needs to begin; `None` if it has to wait for them. Gives them, the tokens for which they
    /// suffice, and whether the pool set the cap.
    pub(super) fn grant(
        &mut self,
        job: &Job,
        start: &mut Start,
    ) -> Result<Option<(usize, usize, bool)>, ApiError> {
        let prompt = start.conversation.generation().tokens() + start.fresh.len();
        let most = self.limits.context.min(prompt + job.options.max_tokens.unwrap_or(usize::MAX / 2));
        let cache = start.conversation.cache();
        let elastic = is_elastic(cache);
        // A cache that cannot be made smaller has to have all it may come to need.
        let until = if elastic { most.min(prompt + GRANT) } else { most };
        let each = needed(cache, until);
        let need = each * job.choices;
        let limit = self.pool.limit();
        if need <= limit && self.make_room(need) {
            return Ok(self.pool.take(need).then_some((need, until, false)));
        }
        let least = if elastic { least(cache, until) * job.choices } else { need };
        if least > limit {
            return Err(too_large(cache, least, limit, until, elastic));
        }
        if !elastic {
            return Ok(None);
        }
        // Alone it may have all there is; others leave it what they can.
        let spare = self.pool.free() + self.sheddable();
        let each = if spare >= least { spare.min(need) / job.choices } else { least / job.choices };
        if !(self.make_room(each * job.choices) && self.pool.take(each * job.choices)) {
            return Ok(None);
        }
        match start.conversation.generation().set_cap(&self.model, Cap::Bytes(each)) {
            Ok(()) => {
                self.metrics.lowered.inc();
                Ok(Some((each * job.choices, usize::MAX, true)))
            }
            Err(error) => {
                self.pool.give(each * job.choices);
                Err(error.into())
            }
        }
    }

    /// Bytes that can be freed without touching an answer.
    fn sheddable(&self) -> usize {
        self.prefixes.idle_bytes() + self.sessions.idle_bytes()
    }

    /// Makes `bytes` free: lets go of what rests in memory, then lowers caps. False if that is not enough; no cap is lowered
    /// in vain.
    pub(super) fn make_room(&mut self, bytes: usize) -> bool {
        while self.pool.free() < bytes {
            let Some(freed) = self.sessions.shed().or_else(|| self.prefixes.shed()) else { break };
            self.pool.give(freed);
        }
        self.pool.free() >= bytes || self.lower_caps(bytes - self.pool.free())
    }

    /// Lowers the caps of answers by `deficit` together, each by its part of what it has above the least.
    fn lower_caps(&mut self, deficit: usize) -> bool {
        let above = |running: &Running| {
            let cache = running.conversation.cache();
            let usable = (is_elastic(cache) || running.lowered) && running.forks == 0;
            let tokens = running.position() + GRANT;
            if usable { running.granted.saturating_sub(least(cache, tokens)) } else { 0 }
        };
        let all: usize = self.scheduler.running.iter().map(above).sum();
        if all < deficit {
            return false;
        }
        for running in &mut self.scheduler.running {
            let part = (above(running) as u128 * deficit as u128).div_ceil(all as u128) as usize;
            if part == 0 {
                continue;
            }
            let cap = running.granted - part;
            match running.conversation.generation().set_cap(&self.model, Cap::Bytes(cap)) {
                Ok(()) => {
                    self.metrics.lowered.inc();
                    self.pool.give(part);
                    (running.granted, running.until, running.lowered) = (cap, usize::MAX, true);
                    running.keys.clear();
                }
                Err(error) => tracing::warn!(%error, "a cap cannot be lowered"),
            }
        }
        true
    }

    /// Gives answers that come to the end of what they were granted more, or a cap.
    pub(super) fn grow(&mut self, index: usize) -> Result<(), ApiError> {
        let running = &self.scheduler.running[index];
        let (position, until) = (running.position(), running.until);
        if position < until {
            return Ok(());
        }
        let most = running.most(self.limits.context);
        let until = most.max(position + 1).min(position + GRANT);
        let more = needed(running.conversation.cache(), until).saturating_sub(running.granted);
        let has_room = self.make_room(more) && self.pool.take(more);
        let running = &mut self.scheduler.running[index];
        if running.lowered {
            // Its cap was lowered to make room for itself.
            if has_room {
                self.pool.give(more);
            }
            return Ok(());
        }
        if has_room {
            (running.granted, running.until) = (running.granted + more, until);
            return Ok(());
        }
        running.conversation.generation().set_cap(&self.model, Cap::Bytes(running.granted))?;
        (running.until, running.lowered) = (usize::MAX, true);
        running.keys.clear();
        self.metrics.lowered.inc();
        Ok(())
    }

    /// Says so if a cache takes more than it was granted, which must not be.
    pub(super) fn check_grant(&self, running: &Running) {
        let (taken, granted) = (running.conversation.cache().ledger().total(), running.granted);
        if taken > granted {
            self.metrics.overruns.inc();
            let spec = running.conversation.cache().spec();
            tracing::error!(%spec, taken, granted, tokens = running.position(), "a cache takes more than it was granted");
        }
    }
}

/// Whether a cache can be made to take fewer bytes while it is in use, its request having named no bytes of its own.
fn is_elastic(cache: &Cache) -> bool {
    let spec = cache.spec();
    spec.cap == Cap::None && !spec.keeps_all()
}

/// The most bytes that a cache takes up to so many tokens.
fn needed(cache: &Cache, tokens: usize) -> usize {
    cache.most_bytes(tokens).max(cache.ledger().total())
}

/// The fewest bytes that it is made to take for others.
fn least(cache: &Cache, tokens: usize) -> usize {
    (cache.shape().f16_bytes(tokens) / 100 * LEAST_PERCENT).max(cache.floor_bytes())
}

/// What cannot be made to fit.
fn too_large(cache: &Cache, least: usize, limit: usize, tokens: usize, elastic: bool) -> ApiError {
    let way_out =
        if elastic { "ask for fewer tokens" } else { "ask for fewer tokens, or for the cache `auto`" };
    ApiError::param(
        "kv",
        format!(
            "`{}` takes {least} bytes for {tokens} tokens, and the server has {limit} (--kv-memory): {way_out}",
            cache.spec()
        ),
    )
}
