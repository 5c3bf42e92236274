//! Who runs next.

use super::{job::Job, running::Running};
use std::collections::VecDeque;

/// Jobs that wait, and answers in the works.
#[derive(Default)]
pub(crate) struct Scheduler {
    pub(crate) waiting: VecDeque<Job>,
    pub(crate) running: Vec<Running>,
    /// The id of the newest answer.
    last_id: u64,
    /// The id of the answer whose prompt went first in the last round.
    last_prompt: u64,
}

/// What one round runs, in one pass; indices into [`Scheduler::running`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    /// A token of each of these.
    pub(crate) decode: Vec<usize>,
    /// A chunk of each of these prompts.
    pub(crate) prompts: Vec<usize>,
}

impl Scheduler {
    /// Takes an answer in; gives its index.
    pub(crate) fn add(&mut self, running: Running) -> usize {
        self.last_id += 1;
        self.running.push(Running { id: self.last_id, ..running });
        self.running.len() - 1
    }

    /// Every answer goes on by a token, and prompts by `chunk` tokens together, in turn: a long one stalls neither answers nor
    /// other prompts. An answer whose reader does not keep up is left out until it does.
    pub(crate) fn round(&mut self, chunk: usize) -> Round {
        let all = || self.running.iter().enumerate();
        let decode = all().filter(|(_, running)| !running.in_prompt() && running.has_reader_room());
        let decode = decode.map(|(index, _)| index).collect();
        let in_prompt = || all().filter(|(_, running)| running.in_prompt());
        let after = in_prompt().filter(|(_, running)| running.id > self.last_prompt);
        let before = in_prompt().filter(|(_, running)| running.id <= self.last_prompt);
        let (mut prompts, mut left) = (vec![], chunk);
        for (index, running) in after.chain(before) {
            // Of a prompt that is echoed all logits are computed: it goes by itself.
            let alone = prompts.is_empty();
            let fits = running.next_chunk(chunk) <= left && !running.ask.job.echo;
            if alone || fits {
                prompts.push(index);
                left = if running.ask.job.echo { 0 } else { left.saturating_sub(running.next_chunk(chunk)) };
            }
        }
        self.last_prompt = prompts.first().map_or(0, |&index| self.running[index].id);
        Round { decode, prompts }
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }
}
