//! A conversation over one cache: each turn feeds only what is new.

use crate::{EngineError, Finish, GenerateOptions, Generation};
use serde::{Deserialize, Serialize};
use sketchkv_cache::Cache;
use sketchkv_model::{ChatMessage, Model};

/// Messages by the model's chat template, and a [`Generation`] that has seen them.
///
/// [`Conversation::ask`] begins an answer, which [`Conversation::generation`] is then stepped through.
pub struct Conversation {
    generation: Generation,
    talk: Talk,
    /// Whether the last message is being answered.
    answering: bool,
    /// What was shown of the answer before it was cut off.
    said: String,
    /// Whether special tokens within what is said count as such.
    special: bool,
    /// Before each thing that was said here and is in the cache: tokens and bytes of the transcript.
    marks: Vec<Mark>,
}

/// A place in a conversation.
struct Mark {
    messages: usize,
    tokens: usize,
    transcript: usize,
}

/// What was said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Talk {
    pub(crate) messages: Vec<ChatMessage>,
    /// The text of what the cache has seen or is to see before anything else.
    pub(crate) transcript: String,
}

impl Conversation {
    /// A conversation without a word; what `generation` knows of another text is forgotten.
    pub fn new(mut generation: Generation) -> Self {
        generation.forget();
        Conversation {
            generation,
            talk: Talk::default(),
            answering: false,
            said: String::new(),
            special: false,
            marks: vec![],
        }
    }

    /// A text that goes on from what `generation` has seen, `transcript`, for a caller who renders the template himself and keeps
    /// the messages.
    pub fn over(generation: Generation, transcript: String) -> Self {
        Conversation::resume(generation, Talk { transcript, ..Talk::default() })
    }

    pub(crate) fn resume(generation: Generation, talk: Talk) -> Self {
        Conversation {
            generation,
            talk,
            answering: false,
            said: String::new(),
            special: false,
            marks: vec![],
        }
    }

    /// Lets special tokens within what is said count as such; else they are plain text, and nobody can open a turn from
    /// inside of another.
    pub fn parse_special(&mut self, special: bool) {
        self.special = special;
    }

    /// The generation at rest, and what was said.
    pub(crate) fn at_rest(&mut self, model: &Model) -> (&mut Generation, &Talk) {
        self.close(model);
        (&mut self.generation, &self.talk)
    }

    /// The generation that gives the answer, to be stepped; [`Conversation::ask`] feeds it.
    pub fn generation(&mut self) -> &mut Generation {
        &mut self.generation
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        self.generation.cache()
    }

    /// The text of what the cache has seen or is to see before anything else; an answer in progress ends with what was shown of
    /// it.
    pub fn transcript(&mut self, model: &Model) -> &str {
        self.close(model);
        &self.talk.transcript
    }

    /// Feeds `tokens`, with which the text becomes `transcript`; the generation then gives an answer.
    ///
    /// # Errors
    /// As [`Generation::feed`]; the text is then as it was.
    pub fn go_on(
        &mut self,
        model: &Model,
        tokens: &[u32],
        transcript: String,
        options: &GenerateOptions,
    ) -> Result<(), EngineError> {
        self.close(model);
        self.generation.feed(model, tokens, options)?;
        self.talk.transcript = transcript;
        self.answering = true;
        Ok(())
    }

    /// Begins anew, random numbers and all, with the same instruction if there is one.
    pub fn reset(&mut self) {
        self.talk.messages.retain(|message| message.role == "system");
        self.talk.transcript.clear();
        self.marks.clear();
        self.answering = false;
        self.generation.forget();
        self.generation.reseed(self.generation.sampling().seed);
    }

    /// Begins anew with another instruction, or none.
    pub fn set_system(&mut self, system: Option<String>) {
        self.talk.messages = system.map(|content| ChatMessage::new("system", content)).into_iter().collect();
        self.reset();
    }

    /// Says `text`, to be answered so that the whole conversation stays within `limit` tokens.
    ///
    /// An answer in progress ends with what was shown of it.
    ///
    /// # Errors
    /// When the conversation would get too long, or the template refuses; `text` was not said then.
    pub fn ask(
        &mut self,
        model: &Model,
        text: &str,
        limit: Option<usize>,
        options: &GenerateOptions,
    ) -> Result<(), EngineError> {
        self.close(model);
        let mark = Mark {
            messages: self.talk.messages.len(),
            tokens: self.generation.tokens(),
            transcript: self.talk.transcript.len(),
        };
        self.talk.messages.push(ChatMessage::new("user", text));
        let asked = self.feed(model, limit, options);
        match asked {
            Ok(()) => self.marks.push(mark),
            Err(_) => drop(self.talk.messages.pop()),
        }
        asked
    }

    /// Lets the last answer go on from where it was cut off, if it was.
    ///
    /// # Errors
    /// As [`Generation::feed`].
    pub fn answer_more(
        &mut self,
        model: &Model,
        limit: Option<usize>,
        options: &GenerateOptions,
    ) -> Result<bool, EngineError> {
        let cut = matches!(self.generation.finish(), Some(Finish::Length | Finish::Interrupted));
        self.close(model);
        let Some(message) = self.talk.messages.pop_if(|message| cut && message.role == "assistant") else {
            return Ok(false);
        };
        self.said = message.content;
        let room = limit.map(|limit| limit.saturating_sub(self.generation.tokens()));
        let max_tokens = options.max_tokens.into_iter().chain(room).min();
        let options = GenerateOptions { max_tokens, ..options.clone() };
        let transcript = std::mem::take(&mut self.talk.transcript);
        self.go_on(model, &[], transcript, &options)?;
        Ok(true)
    }

    /// Takes back what was said last, and its answer; gives what it was. Where the cache cannot forget it alone, it is filled
    /// anew from what is left.
    pub fn undo(&mut self, model: &Model) -> Option<String> {
        self.close(model);
        let last = self.talk.messages.iter().rposition(|message| message.role == "user")?;
        let said = self.talk.messages.drain(last..).next()?.content;
        let mark = self.marks.pop().filter(|mark| mark.messages == last);
        match mark {
            Some(mark) if self.generation.truncate(model, mark.tokens).is_ok() => {
                self.talk.transcript.truncate(mark.transcript);
            }
            _ => self.begin_anew(),
        }
        Some(said)
    }

    /// Forgets the oldest things that were said, and their answers, until the others take at most `tokens` tokens; the cache is
    /// filled anew from them. Gives how many went; none where no more than the last are left.
    ///
    /// # Errors
    /// When the template refuses.
    pub fn forget_oldest(&mut self, model: &Model, tokens: usize) -> Result<usize, EngineError> {
        self.close(model);
        let mut gone = 0;
        loop {
            let users: Vec<usize> = (0..self.talk.messages.len())
                .filter(|&index| self.talk.messages[index].role == "user")
                .collect();
            let rendered = model.tokenizer().chat(&self.shielded(model), true)?;
            let [first, second, ..] = users[..] else { break };
            if model.tokenizer().encode(&rendered)?.len() <= tokens {
                break;
            }
            self.talk.messages.drain(first..second);
            gone += 1;
        }
        if gone > 0 {
            self.begin_anew();
        }
        Ok(gone)
    }

    /// The cache is to see all messages again.
    fn begin_anew(&mut self) {
        self.generation.forget();
        self.talk.transcript.clear();
        self.marks.clear();
    }

    /// What was said, and by whom; an answer is there when something follows it, or after [`Conversation::close`].
    pub fn messages(&self) -> &[ChatMessage] {
        &self.talk.messages
    }

    /// Feeds what the template makes of the messages beyond what the cache has seen.
    fn feed(
        &mut self,
        model: &Model,
        limit: Option<usize>,
        options: &GenerateOptions,
    ) -> Result<(), EngineError> {
        let tokenizer = model.tokenizer();
        let rendered = tokenizer.chat(&self.shielded(model), true)?;
        let known = rendered.strip_prefix(&self.talk.transcript);
        let fresh = tokenizer.encode(known.unwrap_or(&rendered))?;
        let needed = known.map_or(0, |_| self.generation.tokens()) + fresh.len();
        if let Some(limit) = limit.filter(|limit| needed >= *limit) {
            return Err(EngineError::TooLong { needed, limit });
        }
        if known.is_none() {
            // The template rewrites what was said before: the cache has to see it all again.
            self.begin_anew();
        }
        let room = limit.map(|limit| limit - needed);
        let max_tokens = options.max_tokens.into_iter().chain(room).min();
        self.go_on(model, &fresh, rendered, &GenerateOptions { max_tokens, ..options.clone() })
    }

    /// The messages as the template is to see them. What the model itself said is left as it was.
    fn shielded(&self, model: &Model) -> Vec<ChatMessage> {
        let shielded = |message: &ChatMessage| {
            if self.special || message.role == "assistant" {
                return message.clone();
            }
            ChatMessage::new(&*message.role, model.tokenizer().shield(&message.content))
        };
        self.talk.messages.iter().map(shielded).collect()
    }

    /// Takes down the answer, as far as it was shown, among the messages.
    pub fn close(&mut self, model: &Model) {
        if !std::mem::take(&mut self.answering) {
            return;
        }
        self.generation.interrupt(model);
        let answer = self.generation.text();
        self.talk.transcript.push_str(answer);
        let answer = std::mem::take(&mut self.said) + answer;
        if self.generation.finish() == Some(Finish::End) {
            self.talk.transcript.push_str(&self.generation.hidden_end(model));
        }
        if self.talk.messages.last().is_some_and(|message| message.role == "user") {
            self.talk.messages.push(ChatMessage::new("assistant", answer));
        }
    }
}
