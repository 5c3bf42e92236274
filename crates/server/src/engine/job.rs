//! What is asked of the engine thread, and what it says.

use crate::api::{ApiError, Kv, Usage};
use sketchkv_cache::Spec;
use sketchkv_engine::{Finish, GenerateOptions};
use sketchkv_model::{Sampling, TokenLogprobs};
use std::time::Instant;
use tokio::sync::mpsc;

/// A prompt, and how to go on from it.
pub(crate) struct Job {
    pub(crate) prompt: PromptTokens,
    pub(crate) spec: Spec,
    /// Whether the request names it; else a session's own is as good.
    pub(crate) names_spec: bool,
    pub(crate) sampling: Sampling,
    pub(crate) options: GenerateOptions,
    /// How many answers.
    pub(crate) choices: usize,
    /// Log-probabilities of the answers' tokens, and of so many of the most probable ones in their places.
    pub(crate) logprobs: Option<usize>,
    /// And of the prompt's.
    pub(crate) echo: bool,
    /// The state is kept under this name.
    pub(crate) session: Option<String>,
    /// Says what the cache takes while it goes on.
    pub(crate) reports_kv: bool,
    /// When it came.
    pub(crate) since: Instant,
    /// When it has to be over.
    pub(crate) deadline: Instant,
    pub(crate) events: mpsc::Sender<Event>,
}

impl Job {
    /// Says an event; whoever does not listen does not get it.
    pub(crate) fn say(&self, event: Event) {
        let _ = self.events.try_send(event);
    }
}

/// A prompt as tokens, and as the text that a session compares.
pub(crate) struct PromptTokens {
    pub(crate) tokens: Vec<u32>,
    /// `None` where it came as tokens.
    pub(crate) text: Option<String>,
}

/// What becomes of a job.
#[derive(Debug)]
pub(crate) enum Event {
    /// Log-probabilities of the prompt's tokens, of each but the first.
    Prompt(Vec<TokenLogprobs>),
    /// An answer goes on.
    Text {
        choice: usize,
        /// Text that is certain now.
        text: String,
        /// Tokens that were chosen, where their log-probabilities are wanted.
        tokens: Vec<Chosen>,
        /// What the cache takes, now and then.
        kv: Option<Box<Kv>>,
    },
    /// An answer is over.
    Done { choice: usize, finish: Finish },
    /// All answers are over.
    Over(Box<Usage>),
    /// It failed; nothing else comes.
    Failed(ApiError),
}

/// A token that was chosen.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) token: u32,
    pub(crate) logprobs: Option<TokenLogprobs>,
}
