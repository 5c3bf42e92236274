//! The passes through the model: chunks of prompts, and tokens of answers.

use super::Worker;
use crate::{
    api::ApiError,
    engine::{Chosen, Event, scheduler::Round},
};
use sketchkv_engine::Finish;
use sketchkv_model::{Logits, Workspace, logprobs};
use std::time::Instant;

/// Tokens of a prompt from which its state is worth a file.
const WORTH_A_FILE: usize = 1024;

impl Worker {
    /// One pass over all that the round runs; gives the indices of the answers that are over.
    pub(super) fn run_round(&mut self, round: &Round) -> Vec<usize> {
        let mut over = vec![];
        let mut running = round.prompts.clone();
        for &index in &round.decode {
            match self.grow(index) {
                Ok(()) => running.push(index),
                Err(error) => {
                    self.fail(index, error);
                    over.push(index);
                }
            }
        }
        running.sort_unstable();
        let Guesses { tokens: guesses, bytes } = self.guess(&running);
        // Taken out for as long as its logits are read.
        let mut workspace = std::mem::replace(&mut self.workspace, Workspace::new());
        let model = self.model.clone();
        let (mut sequences, mut ran, mut want) = (vec![], vec![], Logits::None);
        for (index, running) in
            self.scheduler.running.iter_mut().enumerate().filter(|(i, _)| running.contains(i))
        {
            let (before, in_prompt) = (running.position(), running.in_prompt());
            let echo = running.ask.job.echo && in_prompt;
            let generation = running.conversation.generation();
            want = match (echo, generation.wants_logits()) {
                (true, _) => Logits::All,
                _ if guesses > 0 => Logits::All,
                (false, true) if want == Logits::None => Logits::Last,
                _ => want,
            };
            if let Some(sequence) = generation.sequence() {
                ran.push(Ran { index, before, tokens: sequence.tokens.len(), in_prompt, echo, guesses });
                sequences.push(sequence);
            }
        }
        if !sequences.is_empty() {
            let started = Instant::now();
            let outputs = model.forward(&mut sequences, &mut workspace, want);
            drop(sequences);
            self.metrics.pass_seconds.inc_by(started.elapsed().as_secs_f64());
            self.metrics.batch.observe(ran.len() as f64);
            for (row, ran) in ran.iter().enumerate() {
                let logits = match outputs.of(row) {
                    Err(_) if guesses > 0 => {
                        // Nothing has run: the next round runs the token alone.
                        self.scheduler.running[ran.index].conversation.generation().stop_guessing();
                        continue;
                    }
                    logits => logits.map_err(ApiError::from),
                };
                match logits.and_then(|logits| self.ran(ran, logits)) {
                    Ok(true) => over.push(ran.index),
                    Ok(false) => {}
                    Err(error) => {
                        self.fail(ran.index, error);
                        over.push(ran.index);
                    }
                }
            }
        }
        self.workspace = workspace;
        self.pool.give(bytes);
        over
    }

    /// Lets an answer that goes on alone guess, as far as there are bytes that nobody else has: where several go on together, they
    /// share the reading of the weights already.
    fn guess(&mut self, running: &[usize]) -> Guesses {
        let (&[index], true) = (running, self.limits.guesses) else { return Guesses::default() };
        let running = &mut self.scheduler.running[index];
        let granted = running.until.saturating_sub(running.position());
        // The token before the guesses has a state of its own, too.
        let each = running.conversation.cache().guess_bytes();
        let states = granted.min(self.pool.free() / each.max(1));
        let tokens = running.conversation.generation().guess(&self.model, states.saturating_sub(1));
        let bytes = if tokens > 0 { (1 + tokens) * each } else { 0 };
        let taken = self.pool.take(bytes);
        debug_assert!(taken, "no more are guessed than the pool has bytes for");
        Guesses { tokens, bytes }
    }

    /// What a pass gave of one sequence; whether its answer is over.
    fn ran(&mut self, ran: &Ran, logits: &[f32]) -> Result<bool, ApiError> {
        let vocabulary = self.model.config().vocabulary;
        if ran.echo {
            let running = &self.scheduler.running[ran.index];
            let job = &running.ask.job;
            let next = job.prompt.tokens.get(ran.before + 1..).unwrap_or_default();
            let rows = logits.chunks_exact(vocabulary).zip(next);
            let top = job.logprobs.unwrap_or(0);
            running.say(Event::Prompt(rows.map(|(row, &token)| logprobs(row, token, top)).collect()));
        }
        // Of several tokens of a prompt the last one's count.
        let rows = if ran.guesses > 0 { logits.len() } else { logits.len().min(vocabulary) };
        let over = self.accept(ran.index, &logits[logits.len() - rows..])?;
        if ran.in_prompt {
            self.metrics.prompt_tokens.inc_by(ran.tokens as u64);
            self.after_chunk(ran.index);
        }
        Ok(over)
    }

    /// Keeps the state behind a whole chunk of a prompt.
    fn after_chunk(&mut self, index: usize) {
        let chunk = self.limits.chunk;
        let running = &self.scheduler.running[index];
        self.check_grant(running);
        let position = running.position();
        if position.is_multiple_of(chunk) && position / chunk <= running.keys.len() && position > 0 {
            let (keys, depth) = (running.keys.clone(), position / chunk - 1);
            let cache = running.conversation.cache().fork();
            if depth + 1 == keys.len() && position >= WORTH_A_FILE {
                self.sessions.save_state(keys[depth], cache.fork(), &self.model);
            }
            self.keep_state(&keys, depth, cache);
        }
    }

    /// An answer takes its logits; whether it is over.
    fn accept(&mut self, index: usize, logits: &[f32]) -> Result<bool, ApiError> {
        let running = &mut self.scheduler.running[index];
        let generation = running.conversation.generation();
        let step = generation.accept(&self.model, logits)?;
        let (mut text, mut finish) = (step.text.to_owned(), step.finish);
        let mut tokens = Vec::from_iter(step.token);
        // One event for all that guesses brought: a reader's room is counted in events.
        while let Some(step) = generation.ready() {
            text.push_str(step.text);
            tokens.extend(step.token);
            finish = step.finish;
        }
        let chosen = tokens.into_iter().map(|token| running.chosen(token, logits)).collect();
        Ok(self.advance(index, text, chosen, finish))
    }

    /// Takes a step that came about without a pass; whether the answer is over.
    pub(super) fn take_ready(&mut self, index: usize) -> bool {
        let running = &mut self.scheduler.running[index];
        let Some(step) = running.conversation.generation().ready() else { return false };
        let (token, text, finish) = (step.token, step.text.to_owned(), step.finish);
        let wants = running.ask.job.logprobs.is_some();
        let kept = if wants { running.conversation.generation().kept_logits().to_vec() } else { vec![] };
        let chosen = token.map(|token| running.chosen(token, &kept));
        self.advance(index, text, Vec::from_iter(chosen), finish)
    }

    /// An answer goes on by a step, or several; whether it is over.
    fn advance(&mut self, index: usize, text: String, chosen: Vec<Chosen>, finish: Option<Finish>) -> bool {
        let running = &mut self.scheduler.running[index];
        if !chosen.is_empty() {
            self.metrics.answer_tokens.inc_by(chosen.len() as u64);
            if running.ask.usage.borrow().first_token_ms.is_none() {
                self.metrics.first_token.observe(running.ask.job.since.elapsed().as_secs_f64());
            }
        }
        running.say_text(text, chosen);
        running.finish = finish;
        finish.is_some()
    }

    /// An answer fails, and is over.
    pub(super) fn fail(&mut self, index: usize, error: ApiError) {
        let running = &mut self.scheduler.running[index];
        running.conversation.generation().interrupt(&self.model);
        running.say(Event::Failed(error));
        running.finish = Some(Finish::Interrupted);
    }
}

/// A sequence of a pass.
struct Ran {
    index: usize,
    /// Tokens that its cache had seen.
    before: usize,
    tokens: usize,
    /// Whether they are of its prompt.
    in_prompt: bool,
    /// Whether the logits of all its tokens are wanted.
    echo: bool,
    /// How many of its tokens are guesses.
    guesses: usize,
}

/// Guesses of a round, and the bytes of the pool that their states take until it is over.
#[derive(Default)]
struct Guesses {
    tokens: usize,
    bytes: usize,
}
