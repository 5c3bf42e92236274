//! What is asked of a generation, and what it says of itself.

use crate::Constraint;
use std::time::Duration;

/// When a generation ends, and what of it is shown.
#[derive(Debug, Clone, Default)]
pub struct GenerateOptions {
    /// Most tokens to generate; 0 runs the prompt alone, `None` goes on to the end of the context.
    pub max_tokens: Option<usize>,
    /// Texts that end the generation; they are not part of it.
    pub stop: Vec<String>,
    /// Goes on past end-of-text tokens, but for the one that ends what a constraint asks for.
    pub ignore_end: bool,
    /// Spells special tokens out instead of hiding them.
    pub show_special: bool,
    /// Most tokens of the prompt that are run at once; [`Model::chunk`](sketchkv_model::Model::chunk) if `None`, and no more
    /// than that.
    pub chunk: Option<usize>,
    /// Where the text is to go on another time: at the end, does not show what may be the beginning of a stop text, or of a
    /// character. Without it all is shown, as if no more could come.
    pub hold: bool,
    /// What the text must be: of the tokens chosen from now on only those come that can still become it, and it ends where it
    /// is complete, as if the model had said so. It belongs to this feed alone: what goes on after it is free.
    pub constraint: Option<Constraint>,
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
    /// It was interrupted.
    Interrupted,
}

/// What one pass through the model brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'g> {
    /// The token chosen, which may be the one that ended the generation; `None` while the prompt is not through.
    pub token: Option<u32>,
    /// Text that is now certain: whole characters, held back while they may begin a stop text.
    pub text: &'g str,
    /// Why the generation is over, if it is.
    pub finish: Option<Finish>,
}

/// Tokens and time of the two phases.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timing {
    /// Tokens of the prompt that were run.
    pub prefill_tokens: usize,
    /// Time of the prompt's forward passes.
    pub prefill: Duration,
    /// Tokens run one at a time, and guesses that were right.
    pub decode_tokens: usize,
    /// Tokens that were guessed.
    pub guesses: usize,
    /// How many of them were right.
    pub right_guesses: usize,
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
