//! Generation: a prompt through the model, then token by token, as an iterator.

use crate::stop::StopTexts;
use crate::{Logits, Model, ModelError, Sampler, Sequence, TextStream, Workspace};
use sketchkv_cache::Cache;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// When a generation ends.
#[derive(Debug, Clone, Default)]
pub struct GenerateOptions {
    /// Most tokens to generate; 0 runs the prompt alone, `None` goes on to the end of the context.
    pub max_tokens: Option<usize>,
    /// Texts that end the generation; they are not part of the output.
    pub stop: Vec<String>,
    /// Goes on past end-of-text tokens.
    pub ignore_end: bool,
    /// Spells special tokens out instead of hiding them.
    pub show_special: bool,
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
    /// The token, which may be the one that ended the generation.
    pub token: u32,
    /// Text that is now certain: whole characters, held back while they may begin a stop text.
    pub text: String,
}

/// Tokens and time of the two phases.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timing {
    /// Tokens of the prompt that were run.
    pub prefill_tokens: usize,
    /// Time of the prompt's forward passes.
    pub prefill: Duration,
    /// Tokens run one at a time after the prompt.
    pub decode_tokens: usize,
    /// Time of their forward passes and of sampling.
    pub decode: Duration,
}

impl Timing {
    /// Prompt tokens per second.
    pub fn prefill_rate(&self) -> f64 {
        rate(self.prefill_tokens, self.prefill)
    }

    /// Generated tokens per second, the first not counted: it comes from the prompt's pass.
    pub fn decode_rate(&self) -> f64 {
        rate(self.decode_tokens, self.decode)
    }
}

fn rate(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { tokens as f64 / time.as_secs_f64() }
}

/// A generation in progress: an iterator of [`Piece`]s that ends by itself; see [`Generator::finish`] for why it did.
///
/// After the last piece the cache holds the prompt and every generated token but the last.
pub struct Generator<'a> {
    model: &'a Model,
    cache: &'a mut Cache,
    workspace: &'a mut Workspace,
    sampler: &'a mut Sampler,
    options: GenerateOptions,
    prompt: Vec<u32>,
    stream: TextStream<'a>,
    stop: StopTexts,
    last: Option<u32>,
    generated: usize,
    finish: Option<Finish>,
    failed: bool,
    timing: Timing,
}

impl<'a> Generator<'a> {
    /// A generation that continues `prompt` over `cache`; nothing runs until the first `next`.
    ///
    /// # Errors
    /// When the prompt is empty or does not fit the rest of the context.
    pub fn new(
        model: &'a Model,
        cache: &'a mut Cache,
        workspace: &'a mut Workspace,
        sampler: &'a mut Sampler,
        prompt: &[u32],
        options: GenerateOptions,
    ) -> Result<Self, ModelError> {
        if prompt.is_empty() {
            return Err(ModelError::Argument("the prompt is empty: give at least one token".into()));
        }
        model.check_position(cache.position() + prompt.len())?;
        prompt.iter().for_each(|token| sampler.observe(*token));
        let tokenizer = model.tokenizer();
        let stream = if options.show_special { tokenizer.stream_with_special() } else { tokenizer.stream() };
        let stop = StopTexts::new(options.stop.clone());
        Ok(Generator {
            model,
            cache,
            workspace,
            sampler,
            options,
            prompt: prompt.to_vec(),
            stream,
            stop,
            last: None,
            generated: 0,
            finish: None,
            failed: false,
            timing: Timing::default(),
        })
    }

    /// Why it ended, once it has.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// Tokens and time so far.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// The sequence's cache.
    pub fn cache(&self) -> &Cache {
        self.cache
    }

    fn is_interrupted(&self) -> bool {
        self.options.interrupt.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// What ends the generation with this token, apart from stop texts.
    fn end_after(&self, token: u32) -> Option<Finish> {
        if !self.options.ignore_end && self.model.tokenizer().is_end(token) {
            Some(Finish::End)
        } else if self.options.max_tokens.is_some_and(|most| self.generated >= most) {
            Some(Finish::Length)
        } else if self.model.check_position(self.cache.position() + 1).is_err() {
            Some(Finish::Context)
        } else {
            None
        }
    }

    /// Runs what the next logits need and samples a token; `None` when interrupted.
    fn advance(&mut self) -> Result<Option<u32>, ModelError> {
        if self.is_interrupted() {
            return Ok(None);
        }
        let start = Instant::now();
        let logits = match self.last {
            Some(token) => {
                let mut batch = [Sequence { tokens: &[token], cache: self.cache }];
                self.model.forward(&mut batch, self.workspace, Logits::Last).of(0)?
            }
            None => {
                if !self.prefill()? {
                    return Ok(None);
                }
                self.workspace.outputs().of(0)?
            }
        };
        let token = self.sampler.sample(logits);
        if self.last.is_some() {
            self.timing.decode += start.elapsed();
            self.timing.decode_tokens += 1;
        }
        self.last = Some(token);
        self.generated += 1;
        Ok(Some(token))
    }

    /// Runs the prompt chunk by chunk; false when interrupted between two chunks.
    fn prefill(&mut self) -> Result<bool, ModelError> {
        let start = Instant::now();
        let prompt = std::mem::take(&mut self.prompt);
        let chunks = prompt.len().div_ceil(self.model.chunk());
        for (i, tokens) in prompt.chunks(self.model.chunk()).enumerate() {
            if self.is_interrupted() {
                return Ok(false);
            }
            let want = if i + 1 == chunks { Logits::Last } else { Logits::None };
            self.model.forward(&mut [Sequence { tokens, cache: self.cache }], self.workspace, want).of(0)?;
            self.timing.prefill_tokens += tokens.len();
            self.timing.prefill = start.elapsed();
        }
        Ok(true)
    }

    /// Text that `token` makes certain; all that is held back if it is the last.
    fn show(&mut self, token: u32) -> String {
        let mut text = self.stream.push(token);
        if self.finish.is_some() {
            text.push_str(&self.stream.finish());
        }
        let (mut text, stopped) = self.stop.push(&text);
        if stopped {
            self.finish = Some(Finish::Stop);
        } else if self.finish.is_some() {
            text.push_str(&self.stop.finish());
        }
        text
    }
}

impl Iterator for Generator<'_> {
    type Item = Result<Piece, ModelError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.finish.is_some() {
            return None;
        }
        if self.options.max_tokens == Some(0) {
            // The prompt is run all the same: its cache may be what is wanted.
            let whole = self.prefill();
            self.failed = whole.is_err();
            return match whole {
                Ok(whole) => {
                    self.finish = Some(if whole { Finish::Length } else { Finish::Interrupted });
                    None
                }
                Err(error) => Some(Err(error)),
            };
        }
        let token = match self.advance() {
            Ok(Some(token)) => token,
            Ok(None) => {
                self.finish = Some(Finish::Interrupted);
                return None;
            }
            Err(error) => {
                self.failed = true;
                return Some(Err(error));
            }
        };
        self.finish = self.end_after(token);
        let text = self.show(token);
        Some(Ok(Piece { token, text }))
    }
}
