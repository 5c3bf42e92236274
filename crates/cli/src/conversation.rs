//! A conversation over one cache: each turn feeds only what is new.

use crate::{arguments::SamplingArguments, measured::Footprint, session};
use anyhow::Result;
use sketchkv_cache::{Cache, Ledger, Spec};
use sketchkv_model::{ChatMessage, GenerateOptions, Generator, Model, Sampler, Timing, Workspace};
use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

/// Messages, and a cache that has seen them.
pub(crate) struct Conversation<'m> {
    model: &'m Model,
    cache: Cache,
    workspace: Workspace,
    sampler: Sampler,
    messages: Vec<ChatMessage>,
    /// What the cache has seen, followed by `pending`, as text.
    transcript: String,
    /// Tokens that were generated but not yet run through the model.
    pending: Vec<u32>,
    limit: Option<usize>,
    sampling: SamplingArguments,
    interrupt: Arc<AtomicBool>,
}

/// How a turn went.
pub(crate) enum Turn {
    /// The model said something.
    Answered(Timing),
    /// Nothing was run: the context would overflow.
    TooLong {
        /// Tokens the conversation would have.
        needed: usize,
        /// Tokens it may have.
        limit: usize,
    },
}

impl<'m> Conversation<'m> {
    /// An empty conversation that opens with the instruction `system`, over a cache of `spec`, of at most `limit`
    /// tokens. `interrupt` stops an answer.
    pub(crate) fn new(
        model: &'m Model,
        spec: &Spec,
        system: Option<String>,
        limit: Option<usize>,
        sampling: SamplingArguments,
        interrupt: Arc<AtomicBool>,
    ) -> Result<Self> {
        let mut conversation = Conversation {
            model,
            cache: Cache::new(model.cache_shape(), spec, sampling.seed)?,
            workspace: Workspace::new(),
            sampler: Sampler::new(sampling.sampling())?,
            messages: Vec::new(),
            transcript: String::new(),
            pending: Vec::new(),
            limit,
            sampling,
            interrupt,
        };
        conversation.set_system(system)?;
        Ok(conversation)
    }

    /// A conversation that goes on where `text` and `cache` left off.
    pub(crate) fn resume(
        model: &'m Model,
        (text, cache): (session::Text, Cache),
        limit: Option<usize>,
        sampling: SamplingArguments,
        interrupt: Arc<AtomicBool>,
    ) -> Result<Self> {
        let session::Text { transcript, pending, messages } = text;
        let sampler = Sampler::new(sampling.sampling())?;
        let workspace = Workspace::new();
        Ok(Conversation {
            model,
            cache,
            workspace,
            sampler,
            messages,
            transcript,
            pending,
            limit,
            sampling,
            interrupt,
        })
    }

    /// Writes the conversation to a file, to be resumed.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let (transcript, pending) = (self.transcript.clone(), self.pending.clone());
        let text = session::Text { transcript, pending, messages: self.messages.clone() };
        session::save(path, self.model, text, &self.cache)
    }

    /// Begins anew with the same instruction.
    pub(crate) fn reset(&mut self) -> Result<()> {
        self.messages.retain(|message| message.role == "system");
        self.forget()
    }

    /// Begins anew with another instruction, or none.
    pub(crate) fn set_system(&mut self, system: Option<String>) -> Result<()> {
        self.messages =
            system.map(|content| ChatMessage { role: "system".into(), content }).into_iter().collect();
        self.forget()
    }

    /// Says `text`, and passes on the answer piece by piece.
    pub(crate) fn answer(&mut self, text: &str, show: &mut dyn FnMut(&str) -> Result<()>) -> Result<Turn> {
        self.messages.push(ChatMessage { role: "user".into(), content: text.to_owned() });
        let rendered = self.model.tokenizer().chat(&self.messages, true)?;
        if !rendered.starts_with(&self.transcript) {
            // The template rewrites what was said before: the cache has to see it all again.
            self.forget()?;
        }
        let fresh = self.model.tokenizer().encode(&rendered[self.transcript.len()..])?;
        let mut prompt = std::mem::take(&mut self.pending);
        prompt.extend(&fresh);
        let before = self.cache.position();
        let needed = before + prompt.len();
        if let Some(limit) = self.limit.filter(|limit| needed >= *limit) {
            self.pending = prompt[..prompt.len() - fresh.len()].to_vec();
            self.messages.pop();
            return Ok(Turn::TooLong { needed, limit });
        }
        let room = self.limit.map(|limit| limit - needed);
        let options = GenerateOptions {
            max_tokens: self.sampling.max_tokens.into_iter().chain(room).min(),
            stop: self.sampling.stop.clone(),
            ignore_end: false,
            show_special: false,
            interrupt: Some(Arc::clone(&self.interrupt)),
        };
        let (mut answer, mut generated) = (String::new(), Vec::new());
        let timing = {
            let (cache, workspace, sampler) = (&mut self.cache, &mut self.workspace, &mut self.sampler);
            let mut generator = Generator::new(self.model, cache, workspace, sampler, &prompt, options)?;
            for piece in &mut generator {
                let piece = piece?;
                show(&piece.text)?;
                answer.push_str(&piece.text);
                generated.push(piece.token);
            }
            generator.timing()
        };
        let run = self.cache.position() - before;
        let mut tokens = prompt;
        tokens.extend(&generated);
        self.pending = tokens.split_off(run.min(tokens.len()));
        self.transcript = rendered + &self.model.tokenizer().decode(&generated);
        self.messages.push(ChatMessage { role: "assistant".into(), content: answer });
        Ok(Turn::Answered(timing))
    }

    /// The spec of the cache.
    pub(crate) fn spec(&self) -> &Spec {
        self.cache.spec()
    }

    /// What the cache takes.
    pub(crate) fn ledger(&self) -> Ledger {
        self.cache.ledger()
    }

    /// What the cache takes, beside an uncompressed one.
    pub(crate) fn footprint(&self) -> Footprint {
        Footprint::of(&self.cache)
    }

    /// Tokens the cache has seen.
    pub(crate) fn tokens_seen(&self) -> usize {
        self.cache.position()
    }

    fn forget(&mut self) -> Result<()> {
        self.cache.reset();
        self.transcript.clear();
        self.pending.clear();
        self.sampler = Sampler::new(self.sampling.sampling())?;
        Ok(())
    }
}
