//! An answer in the works.

use super::{
    job::{Chosen, Event, Job},
    prefixes::Key,
};
use crate::api::{Kv, Slot, Usage};
use sketchkv_engine::{Conversation, Finish};
use sketchkv_model::logprobs;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

/// How often an answer says what its cache takes.
const REPORT: Duration = Duration::from_millis(250);
/// Events that a round may send for each answer, at most.
const EVENTS: usize = 3;

/// A job that was admitted, shared by its answers.
pub(crate) struct Ask {
    pub(crate) job: Job,
    /// Answers that are not over.
    pub(crate) left: Cell<usize>,
    pub(crate) usage: RefCell<Usage>,
}

/// One answer in the works.
pub(crate) struct Running {
    /// Names it; the scheduler gives it.
    pub(crate) id: u64,
    pub(crate) ask: Rc<Ask>,
    pub(crate) choice: usize,
    pub(crate) conversation: Conversation,
    /// Tokens of the prompt.
    pub(crate) prompt: usize,
    /// Of those, the ones whose state was there.
    pub(crate) cached: usize,
    /// Answers that will go on from here when the prompt is through; it holds the bytes of all of them.
    pub(crate) forks: usize,
    /// The keys behind the whole chunks of the prompt; none where its states are not to be kept.
    pub(crate) keys: Vec<Key>,
    /// The state that it goes on from.
    pub(crate) base: Option<Key>,
    /// Bytes that it holds of the pool.
    pub(crate) granted: usize,
    /// Tokens up to which those suffice, whatever they are.
    pub(crate) until: usize,
    /// Whether its cap was set by the pool.
    pub(crate) lowered: bool,
    /// Tokens that were chosen.
    pub(crate) generated: usize,
    /// The file of its session, locked.
    pub(crate) file: Option<sketchkv_engine::SessionFile>,
    /// When it was last said what its cache takes.
    pub(crate) reported: Option<Instant>,
    pub(crate) finish: Option<Finish>,
}

impl Running {
    /// One of the answers that go on from this prompt, with its part of the bytes.
    pub(crate) fn forked(&self, choice: usize, conversation: Conversation, granted: usize) -> Running {
        Running {
            id: 0,
            ask: self.ask.clone(),
            choice,
            conversation,
            prompt: self.prompt,
            cached: self.cached,
            forks: 0,
            keys: vec![],
            base: self.base,
            granted,
            until: self.until,
            lowered: self.lowered,
            generated: 0,
            file: None,
            reported: None,
            finish: None,
        }
    }

    /// Whether its prompt is not through.
    pub(crate) fn in_prompt(&self) -> bool {
        self.finish.is_none() && self.generated == 0 && self.position() < self.prompt
    }

    /// Tokens of its prompt that are run next.
    pub(crate) fn next_chunk(&self, chunk: usize) -> usize {
        self.prompt.saturating_sub(self.position()).min(chunk)
    }

    /// Tokens that its cache has seen.
    pub(crate) fn position(&self) -> usize {
        self.conversation.cache().position()
    }

    /// The most tokens that it can get to.
    pub(crate) fn most(&self, context: usize) -> usize {
        let answer = self.ask.job.options.max_tokens.unwrap_or(context);
        context.min(self.prompt.saturating_add(answer))
    }

    /// Whether what a round may say finds room.
    pub(crate) fn has_reader_room(&self) -> bool {
        self.ask.job.events.capacity() > EVENTS * (self.ask.left.get() + 1)
    }

    /// Whether nobody listens any more.
    pub(crate) fn is_departed(&self) -> bool {
        self.ask.job.events.is_closed()
    }

    /// Says an event.
    pub(crate) fn say(&self, event: Event) {
        self.ask.job.say(event);
    }

    /// A token that was chosen from `logits`, with its log-probabilities if they are wanted and `logits` are there.
    pub(crate) fn chosen(&self, token: u32, logits: &[f32]) -> Chosen {
        let top = self.ask.job.logprobs.filter(|_| !logits.is_empty());
        Chosen { token, logprobs: top.map(|top| logprobs(logits, token, top)) }
    }

    /// Says that the answer goes on.
    pub(crate) fn say_text(&mut self, text: String, chosen: Vec<Chosen>) {
        if !chosen.is_empty() {
            self.generated += chosen.len();
            let mut usage = self.ask.usage.borrow_mut();
            usage.completion_tokens += chosen.len();
            let since = self.ask.job.since;
            usage.first_token_ms.get_or_insert_with(|| since.elapsed().as_secs_f64() * 1e3);
        }
        let is_due = self.reported.is_none_or(|reported| reported.elapsed() >= REPORT);
        let report = self.ask.job.reports_kv && is_due;
        if report {
            self.reported = Some(Instant::now());
        }
        let tokens: Vec<Chosen> = chosen.into_iter().filter(|chosen| chosen.logprobs.is_some()).collect();
        if text.is_empty() && tokens.is_empty() && !report {
            return;
        }
        let kv = report.then(|| Box::new(Kv::of(self.conversation.cache())));
        self.say(Event::Text { choice: self.choice, text, tokens, kv });
    }

    /// What there is to say of it.
    pub(crate) fn slot(&self) -> Slot {
        Slot {
            id: Some(self.id),
            session: self.ask.job.session.clone(),
            state: if self.in_prompt() { "prompt" } else { "answer" },
            prompt_tokens: self.prompt,
            cached_tokens: self.cached,
            completion_tokens: self.generated,
            granted_bytes: self.granted,
            lowered: self.lowered,
            kv: Some(Kv::of(self.conversation.cache())),
        }
    }
}
