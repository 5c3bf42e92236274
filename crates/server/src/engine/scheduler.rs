//! Who runs next.

use super::{job::Job, running::Running};
use std::collections::VecDeque;

/// Jobs that wait, and answers in the works.
#[derive(Default)]
pub(crate) struct Scheduler {
    pub(crate) waiting: VecDeque<Job>,
    pub(crate) running: Vec<Running>,
    /// The id of the answer whose prompt went on last.
    last_prompt: u64,
}

/// What one round runs; indices into [`Scheduler::running`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    /// A token of each of these.
    pub(crate) decode: Vec<usize>,
    /// A chunk of the prompt of this one.
    pub(crate) prompt: Option<usize>,
}

impl Scheduler {
    /// Every answer goes on by a token, and one prompt by a chunk, prompts in turn: a long one stalls neither answers nor
    /// shorter prompts. An answer whose reader does not keep up is left out until it does.
    pub(crate) fn round(&mut self) -> Round {
        let ready = |running: &&(usize, &Running)| running.1.has_reader_room();
        let all: Vec<_> = self.running.iter().enumerate().collect();
        let decode = all.iter().filter(ready).filter(|(_, r)| !r.in_prompt()).map(|(i, _)| *i).collect();
        let prompts = || all.iter().filter(|(_, running)| running.in_prompt());
        let next = prompts().find(|(_, running)| running.id > self.last_prompt).or_else(|| prompts().next());
        let prompt = next.map(|(index, _)| *index);
        self.last_prompt = prompt.map_or(0, |index| self.running[index].id);
        Round { decode, prompt }
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }
}
