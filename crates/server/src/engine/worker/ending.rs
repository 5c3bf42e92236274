//! Answers end: of themselves, by their readers, by the clock; sessions are written.

use super::Worker;
use crate::{
    api::{ApiError, CompletionTokensDetails, Kv, SessionUsage},
    engine::{
        Event, Job,
        prefixes::Key,
        running::{Ask, Running},
        sessions::Written,
    },
};
use axum::http::StatusCode;
use sketchkv_engine::{Conversation, Finish, SessionFile};
use std::{rc::Rc, time::Instant};

impl Worker {
    /// Ends answers that nobody listens to or that take too long; forgets jobs that nobody waits for.
    pub(super) fn end_departed(&mut self) {
        let now = Instant::now();
        let waiting = self.scheduler.waiting.len();
        self.scheduler.waiting.retain(|job| {
            let late = now > job.deadline;
            if late {
                job.say(Event::Failed(too_long()));
            }
            !late && !job.events.is_closed()
        });
        // Another may be the first now.
        self.blocked &= self.scheduler.waiting.len() == waiting;
        let stop = self.stop.is_some_and(|stop| now > stop);
        let mut over = vec![];
        for (index, running) in self.scheduler.running.iter_mut().enumerate() {
            let late = now > running.ask.job.deadline;
            if !(late || stop || running.is_departed()) {
                continue;
            }
            if late {
                running.say(Event::Failed(too_long()));
            }
            running.conversation.generation().interrupt(&self.model);
            if let Some(step) = running.conversation.generation().ready() {
                let text = step.text.to_owned();
                running.say_text(text, vec![]);
            }
            running.finish = Some(Finish::Interrupted);
            over.push(index);
        }
        self.retire(over);
    }

    /// Takes answers out that are over, and gives back what they held.
    pub(super) fn retire(&mut self, mut over: Vec<usize>) {
        over.sort_unstable();
        over.dedup();
        for index in over.into_iter().rev() {
            let running = self.scheduler.running.remove(index);
            if running.forks > 0 && running.finish == Some(Finish::Length) && !running.is_departed() {
                self.fork(running);
                continue;
            }
            self.end(running);
        }
    }

    /// The prompt is through: its answers go on from here, each with random numbers of its own.
    fn fork(&mut self, mut prompt: Running) {
        let granted = prompt.granted / prompt.forks;
        for choice in 0..prompt.forks {
            let conversation = match self.forked(&mut prompt, choice) {
                Ok(conversation) => conversation,
                Err(error) => {
                    prompt.say(Event::Failed(error));
                    break;
                }
            };
            // The state that the prompt went on from stays until the last of them is over.
            if let Some(base) = prompt.base {
                self.prefixes.enter(base);
            }
            prompt.granted -= granted;
            let index = self.scheduler.add(prompt.forked(choice, conversation, granted));
            if self.take_ready(index) {
                let running = self.scheduler.running.remove(index);
                self.end(running);
            }
        }
        self.release(prompt.granted, prompt.base);
    }

    /// The answer `choice`, ready to go on.
    fn forked(&self, prompt: &mut Running, choice: usize) -> Result<Conversation, ApiError> {
        let Job { sampling, options, .. } = &prompt.ask.job;
        let mut generation = prompt.conversation.generation().fork(&self.model)?;
        // Far apart, so that the next seed has other answers.
        generation.reseed(sampling.seed ^ (choice as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut conversation = Conversation::over(generation, String::new());
        conversation.go_on(&self.model, &[], String::new(), options)?;
        Ok(conversation)
    }

    /// Gives back what an answer held.
    fn release(&mut self, granted: usize, base: Option<Key>) {
        self.blocked = false;
        self.pool.give(granted);
        if let Some(base) = base {
            self.prefixes.leave(base);
        }
    }

    /// An answer is over: its bytes are free, its session is written, and whoever waits is told.
    pub(super) fn end(&mut self, running: Running) {
        self.check_grant(&running);
        if running.conversation.cache().has_evicted() {
            self.metrics.evictions.inc();
        }
        let Running { ask, choice, mut conversation, base, granted, file, finish, .. } = running;
        self.release(granted, base);
        let timing = conversation.generation().timing();
        let wrong = timing.guesses - timing.right_guesses;
        self.metrics.right_guesses.inc_by(timing.right_guesses as u64);
        self.metrics.wrong_guesses.inc_by(wrong as u64);
        ask.usage.borrow_mut().completion_tokens_details.add(CompletionTokensDetails {
            accepted_prediction_tokens: timing.right_guesses,
            rejected_prediction_tokens: wrong,
        });
        // At rest it has no use for what it guessed by.
        conversation.generation().stop_guessing();
        ask.left.set(ask.left.get() - 1);
        ask.job.say(Event::Done { choice, finish: finish.unwrap_or(Finish::Interrupted) });
        ask.usage.borrow_mut().kv = Some(Kv::of(conversation.cache()));
        match (file, &ask.job.session) {
            (Some(file), Some(name)) => self.save(name.clone(), file, conversation, &ask),
            _ if ask.left.get() == 0 => over(&ask, None),
            _ => {}
        }
    }

    /// Writes a session; whoever waits is told when it is written.
    fn save(&mut self, name: String, file: SessionFile, conversation: Conversation, ask: &Rc<Ask>) {
        let (conversation, sent) = self.sessions.save(&name, file, conversation, &self.model);
        let bytes = conversation.cache().ledger().total();
        // It was granted at least so much until now.
        let bytes = if self.pool.take(bytes) { bytes } else { 0 };
        match sent {
            Ok(()) => {
                self.saving.insert(name, (conversation, bytes, ask.clone()));
            }
            Err(error) => {
                self.sessions.rest(name.clone(), conversation, None, bytes);
                over(ask, Some(SessionUsage { name, file_bytes: None, error: Some(error.message) }));
            }
        }
    }

    pub(super) fn written(&mut self, written: Written) {
        let Written { name, bytes: file_bytes, stamp, result } = written;
        let Some((conversation, bytes, ask)) = self.saving.remove(&name) else { return };
        // At rest it can leave memory.
        self.blocked = false;
        let saved = result.is_ok();
        self.metrics.session_writes.inc();
        if !saved {
            self.metrics.session_failures.inc();
        }
        let usage = SessionUsage {
            name: name.clone(),
            file_bytes: saved.then_some(file_bytes),
            error: result.err().map(|error| error.to_string()),
        };
        self.sessions.rest(name, conversation, stamp.filter(|_| saved), bytes);
        over(&ask, Some(usage));
    }
}

fn too_long() -> ApiError {
    let message = "the answer took longer than the server allows (--timeout): ask for fewer tokens";
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, message)
}

/// Whoever waits is told that all answers are over.
fn over(ask: &Ask, session: Option<SessionUsage>) {
    let mut usage = ask.usage.borrow().clone();
    usage.session = session;
    usage.total_tokens = usage.prompt_tokens + usage.completion_tokens;
    ask.job.say(Event::Over(Box::new(usage)));
}
