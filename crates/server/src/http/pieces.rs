//! Answers in pieces: what an event of the engine brought, calls read out of the text.

use super::{answer, text::spelling};
use crate::{
    api::{ChatLogprobs, Kv, Logprob, TokenLogprob},
    engine::{Chosen, Event},
    tools::{Read, Reader},
};
use sketchkv_model::Model;
use std::sync::Arc;

/// Answers as they come.
pub(crate) struct Pieces {
    model: Arc<Model>,
    choices: Vec<Choice>,
}

/// One of them.
struct Choice {
    reader: Option<Reader>,
    begun: bool,
}

/// What an event brought of an answer.
pub(crate) struct Piece {
    pub(crate) index: usize,
    /// Whether it is the first of its answer.
    pub(crate) first: bool,
    /// What was read of it.
    pub(crate) reads: Vec<Read>,
    pub(crate) logprobs: Option<ChatLogprobs>,
    pub(crate) finish_reason: Option<&'static str>,
    pub(crate) kv: Option<Kv>,
}

impl Pieces {
    pub(crate) fn new(model: &Arc<Model>, choices: usize, tools: Option<Reader>) -> Self {
        let choice = || Choice { reader: tools.clone(), begun: false };
        Pieces { model: model.clone(), choices: (0..choices).map(|_| choice()).collect() }
    }

    /// What comes of an event, if anything does.
    pub(crate) fn take(&mut self, event: Event) -> Option<Piece> {
        let (index, reads, tokens, kv, finish) = match event {
            Event::Text { choice, text, tokens, kv } => {
                let reads = match &mut self.choices[choice].reader {
                    Some(reader) => reader.push(&text),
                    None if text.is_empty() => vec![],
                    None => vec![Read::Text(text)],
                };
                (choice, reads, tokens, kv, None)
            }
            Event::Done { choice, finish } => {
                let reader = &mut self.choices[choice].reader;
                let reads = reader.as_mut().map(Reader::finish).unwrap_or_default();
                let called = reader.as_ref().is_some_and(|reader| reader.calls() > 0);
                let reason = match answer::finish_reason(finish) {
                    "stop" if called => "tool_calls",
                    reason => reason,
                };
                (choice, reads, vec![], None, Some(reason))
            }
            Event::Prompt(_) | Event::Over(_) | Event::Failed(_) => return None,
        };
        let logprobs = self.logprobs(&tokens);
        if reads.is_empty() && logprobs.is_none() && kv.is_none() && finish.is_none() {
            return None;
        }
        let first = !std::mem::replace(&mut self.choices[index].begun, true);
        Some(Piece { index, first, reads, logprobs, finish_reason: finish, kv: kv.map(|kv| *kv) })
    }

    fn logprobs(&self, tokens: &[Chosen]) -> Option<ChatLogprobs> {
        let content: Vec<TokenLogprob> = tokens
            .iter()
            .filter_map(|chosen| {
                let said = chosen.logprobs.as_ref()?;
                let top = said.top.iter().map(|&(token, logprob)| self.logprob(token, logprob));
                Some(TokenLogprob {
                    token: self.logprob(chosen.token, said.logprob),
                    top_logprobs: top.collect(),
                })
            })
            .collect();
        (!content.is_empty()).then_some(ChatLogprobs { content })
    }

    fn logprob(&self, token: u32, logprob: f32) -> Logprob {
        let tokenizer = self.model.tokenizer();
        Logprob { token: spelling(tokenizer, token), logprob, bytes: tokenizer.token_bytes(token).to_vec() }
    }
}
