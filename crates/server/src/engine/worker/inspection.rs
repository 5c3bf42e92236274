//! What is asked beside: what goes on, and sessions by name.

use super::{Inspection, Worker};
use crate::{
    api::{ApiError, Kv, KvMemory, Slot, SlotDone},
    engine::{
        running::Running,
        sessions::{Opened, SessionFolder},
    },
};
use axum::http::StatusCode;
use sketchkv_model::Sampling;

impl Worker {
    pub(super) fn restore(&mut self, name: &str) -> Result<SlotDone, ApiError> {
        self.refuse_busy(name)?;
        let Opened { file, conversation, held, stamp } =
            self.sessions.open(name, &self.model, &Sampling::greedy())?;
        self.pool.give(held);
        let Some(conversation) = conversation else {
            self.sessions.leave(name);
            return Err(ApiError::new(StatusCode::NOT_FOUND, format!("there is no session {name}")));
        };
        let bytes = conversation.cache().ledger().total();
        if !(self.make_room(bytes) && self.pool.take(bytes)) {
            self.sessions.leave(name);
            return Err(ApiError::busy(format!("there are no {bytes} bytes free for the session {name}"), 5));
        }
        let file_bytes = std::fs::metadata(file.path()).map_or(0, |metadata| metadata.len() as usize);
        let tokens = conversation.cache().position();
        self.sessions.rest(name.to_owned(), conversation, stamp, bytes);
        Ok(SlotDone { session: name.to_owned(), tokens, file_bytes })
    }

    pub(super) fn erase(&mut self, name: &str) -> Result<(), ApiError> {
        self.refuse_busy(name)?;
        let held = self.sessions.erase(name)?;
        self.pool.give(held);
        self.blocked = false;
        Ok(())
    }

    fn refuse_busy(&self, name: &str) -> Result<(), ApiError> {
        if self.sessions.is_busy(name) {
            let message = format!("an answer of the session {name} goes on");
            return Err(ApiError::new(StatusCode::CONFLICT, message));
        }
        Ok(())
    }

    pub(super) fn inspect(&self) -> Inspection {
        let waiting = self.scheduler.waiting.iter().map(|job| Slot {
            id: None,
            session: job.session.clone(),
            state: "waiting",
            prompt_tokens: job.prompt.tokens.len(),
            cached_tokens: 0,
            completion_tokens: 0,
            granted_bytes: 0,
            lowered: false,
            kv: None,
        });
        let idle = self.sessions.idle().map(|(name, cache, bytes)| Slot {
            id: None,
            session: Some(name.to_owned()),
            state: "idle",
            prompt_tokens: cache.position(),
            cached_tokens: cache.position(),
            completion_tokens: 0,
            granted_bytes: bytes,
            lowered: false,
            kv: Some(Kv::of(cache)),
        });
        Inspection {
            slots: self.scheduler.running.iter().map(Running::slot).chain(waiting).chain(idle).collect(),
            waiting: self.scheduler.waiting.len(),
            memory: KvMemory { limit: self.pool.limit(), used: self.pool.used() },
            prefixes: self.prefixes.len(),
            prefix_bytes: self.prefixes.bytes(),
            sessions: self.sessions.folder().map(SessionFolder::names).unwrap_or_default(),
            workspace_bytes: self.workspace.bytes(),
        }
    }
}
