use crate::{Model, ModelError, Sampler, Workspace};
use sketchkv_cache::Cache;
use std::sync::{Arc, atomic::AtomicBool};
use std::time::Duration;

/// When a generation ends.
#[derive(Debug, Clone, Default)]
pub struct GenerateOptions {
    /// Most tokens to generate; `None` goes on to the end of the context.
    pub max_tokens: Option<usize>,
    /// Texts that end the generation; they are not part of the output.
    pub stop: Vec<String>,
    /// Goes on past end-of-text tokens.
    pub ignore_end: bool,
    /// Set from outside to stop before the next token or prefill chunk.
    pub interrupt: Option<Arc<AtomicBool>>,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model said so.
    End,
    /// A stop text appeared.
    Stop,
    /// `max_tokens` were generated.
    Length,
    /// The model's context is full.
    Context,
    /// The interrupt flag was set.
    Interrupted,
}

/// One generated token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The token.
    pub token: u32,
    /// Text that is now certain: whole characters, held back while they may begin a stop text.
    pub text: String,
}

/// Tokens and time of the two phases.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timing {
    /// Tokens of the prompt.
    pub prefill_tokens: usize,
    /// Time of the prompt's forward passes.
    pub prefill: Duration,
    /// Tokens run one at a time after the prompt.
    pub decode_tokens: usize,
    /// Time of their forward passes and sampling.
    pub decode: Duration,
}

/// A generation in progress: an iterator of [`Piece`]s.
pub struct Generator<'a> {
    #[allow(dead_code)]
    model: &'a Model,
    finish: Option<Finish>,
    timing: Timing,
}

impl<'a> Generator<'a> {
    /// A generation that continues `prompt` over `cache`; nothing runs until the first `next`.
    pub fn new(
        model: &'a Model,
        cache: &'a mut Cache,
        workspace: &'a mut Workspace,
        sampler: &'a mut Sampler,
        prompt: &[u32],
        options: GenerateOptions,
    ) -> Result<Self, ModelError> {
        let _ = (cache, workspace, sampler, prompt, options);
        Ok(Generator { model, finish: None, timing: Timing::default() })
    }

    /// Why it ended, once it has.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// Tokens and time so far.
    pub fn timing(&self) -> Timing {
        self.timing
    }
}

impl Iterator for Generator<'_> {
    type Item = Result<Piece, ModelError>;

    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}
