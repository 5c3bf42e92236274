//! The passes through the model: chunks of prompts, and tokens of answers.

use super::Worker;
use crate::{
    api::ApiError,
    engine::{Chosen, Event},
};
use sketchkv_engine::Finish;
use sketchkv_model::{Logits, Workspace, logprobs};
use std::time::Instant;

/// Tokens of a prompt from which its state is worth a file.
const WORTH_A_FILE: usize = 1024;

impl Worker {
    /// Takes in a chunk of one prompt; gives its index if it is over.
    pub(super) fn run_prompt(&mut self, index: Option<usize>) -> Vec<usize> {
        let Some(index) = index else { return vec![] };
        // Taken out for as long as its logits are read.
        let mut workspace = std::mem::replace(&mut self.workspace, Workspace::new());
        let model = self.model.clone();
        let running = &mut self.scheduler.running[index];
        let (before, echo) = (running.position(), running.ask.job.echo);
        let generation = running.conversation.generation();
        let want = match (echo, generation.wants_logits()) {
            (true, _) => Logits::All,
            (false, true) => Logits::Last,
            (false, false) => Logits::None,
        };
        let Some(sequence) = generation.sequence() else { return vec![] };
        let count = sequence.tokens.len();
        let started = Instant::now();
        let outputs = model.forward(&mut [sequence], &mut workspace, want).of(0);
        self.metrics.prompt_seconds.inc_by(started.elapsed().as_secs_f64());
        self.metrics.prompt_tokens.inc_by(count as u64);
        let over = outputs.map_err(ApiError::from).and_then(|logits| {
            let vocabulary = model.config().vocabulary;
            if echo {
                let running = &self.scheduler.running[index];
                let job = &running.ask.job;
                let next = job.prompt.tokens.get(before + 1..).unwrap_or_default();
                let rows = logits.chunks_exact(vocabulary).zip(next);
                let top = job.logprobs.unwrap_or(0);
                running.say(Event::Prompt(rows.map(|(row, &token)| logprobs(row, token, top)).collect()));
            }
            self.accept(index, &logits[logits.len() - logits.len().min(vocabulary)..])
        });
        self.workspace = workspace;
        match over {
            Ok(over) => {
                self.after_chunk(index);
                if over { vec![index] } else { vec![] }
            }
            Err(error) => self.failed(index, error),
        }
    }

    /// Keeps the state behind a whole chunk of a prompt.
    fn after_chunk(&mut self, index: usize) {
        let chunk = self.model.chunk();
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

    /// One token of each of these answers; gives the indices of those that are over.
    pub(super) fn decode(&mut self, indices: &[usize]) -> Vec<usize> {
        let mut over = vec![];
        let mut going = vec![];
        for &index in indices {
            // A prompt that ended in this round may have ended it.
            if self.scheduler.running[index].finish.is_some() {
                continue;
            }
            match self.grow(index) {
                Ok(()) => going.push(index),
                Err(error) => over.extend(self.failed(index, error)),
            }
        }
        // Taken out for as long as its logits are read.
        let mut workspace = std::mem::replace(&mut self.workspace, Workspace::new());
        let model = self.model.clone();
        let (mut sequences, mut ran) = (vec![], vec![]);
        for (index, running) in self.scheduler.running.iter_mut().enumerate() {
            if !going.contains(&index) {
                continue;
            }
            if let Some(sequence) = running.conversation.generation().sequence() {
                sequences.push(sequence);
                ran.push(index);
            }
        }
        if !sequences.is_empty() {
            let started = Instant::now();
            let outputs = model.forward(&mut sequences, &mut workspace, Logits::Last);
            drop(sequences);
            self.metrics.decode_seconds.inc_by(started.elapsed().as_secs_f64());
            self.metrics.batch.observe(ran.len() as f64);
            for (row, &index) in ran.iter().enumerate() {
                let taken =
                    outputs.of(row).map_err(ApiError::from).and_then(|logits| self.accept(index, logits));
                match taken {
                    Ok(true) => over.push(index),
                    Ok(false) => {}
                    Err(error) => over.extend(self.failed(index, error)),
                }
            }
        }
        self.workspace = workspace;
        over
    }

    /// An answer takes its logits; whether it is over.
    fn accept(&mut self, index: usize, logits: &[f32]) -> Result<bool, ApiError> {
        let running = &mut self.scheduler.running[index];
        let top = running.ask.job.logprobs;
        let step = running.conversation.generation().accept(&self.model, logits)?;
        let (token, text, finish) = (step.token, step.text.to_owned(), step.finish);
        if token.is_some() {
            self.metrics.answer_tokens.inc();
        }
        let chosen =
            token.map(|token| Chosen { token, logprobs: top.map(|top| logprobs(logits, token, top)) });
        if running.ask.usage.borrow().first_token_ms.is_none() && chosen.is_some() {
            self.metrics.first_token.observe(running.ask.job.since.elapsed().as_secs_f64());
        }
        running.say_text(text, chosen);
        running.finish = finish;
        Ok(finish.is_some())
    }

    /// Takes a step that came about without a pass; whether the answer is over.
    pub(super) fn take_ready(&mut self, index: usize) -> bool {
        let running = &mut self.scheduler.running[index];
        let top = running.ask.job.logprobs;
        let generation = running.conversation.generation();
        let Some(step) = generation.ready() else { return false };
        let (token, text, finish) = (step.token, step.text.to_owned(), step.finish);
        let chosen = token.map(|token| {
            let kept = generation.kept_logits();
            Chosen { token, logprobs: top.filter(|_| !kept.is_empty()).map(|top| logprobs(kept, token, top)) }
        });
        running.say_text(text, chosen);
        running.finish = finish;
        finish.is_some()
    }

    /// An answer failed; gives its index.
    fn failed(&mut self, index: usize, error: ApiError) -> Vec<usize> {
        let running = &mut self.scheduler.running[index];
        running.conversation.generation().interrupt(&self.model);
        running.say(Event::Failed(error));
        running.finish = Some(Finish::Interrupted);
        vec![index]
    }
}
