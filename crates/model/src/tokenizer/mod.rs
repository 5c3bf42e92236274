//! Text to tokens and back: from `tokenizer.json`, or built from GGUF metadata.

mod bytes;
mod chat;
mod folder;
mod frame;
mod gguf;
mod shield;
mod splitter;
mod spm_merges;
mod stream;
mod template;
mod unigram;

pub use chat::{ChatMessage, ChatRequest};
pub use stream::TextStream;
pub use template::ChatTemplate;

use crate::ModelError;
use crate::file::Checkpoint;
use bytes::TokenBytes;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use template::forms::FORMS;
use tokenizers::tokenizer::{Model as _, Normalizer as _, PreTokenizedString, PreTokenizer as _};

/// Text to tokens and back, as the model was trained.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bytes: TokenBytes,
    special: BTreeSet<u32>,
    ends: BTreeSet<u32>,
    template: Option<ChatTemplate>,
    /// The special tokens that a template may name.
    named: BTreeMap<String, String>,
    notes: Vec<String>,
}

/// What the loaders of the two file kinds find.
struct Parts {
    inner: tokenizers::Tokenizer,
    /// Ids of tokens that end a generation.
    ends: BTreeSet<u32>,
    /// The chat template's source, and the special tokens it may name.
    template: Option<String>,
    named: BTreeMap<String, String>,
    /// Remarks a user should see.
    notes: Vec<String>,
}

impl Tokenizer {
    /// The tokenizer of an opened checkpoint.
    pub(crate) fn read(checkpoint: &Checkpoint) -> Result<Tokenizer, ModelError> {
        let parts = match checkpoint {
            Checkpoint::Gguf(file) => gguf::read(file)?,
            Checkpoint::Folder(folder) => folder::read(folder)?,
        };
        Tokenizer::from_parts(parts).map_err(|reason| ModelError::format(checkpoint.path(), reason))
    }

    fn from_parts(parts: Parts) -> Result<Tokenizer, String> {
        let Parts { inner, ends, template, named, notes } = parts;
        let bytes = TokenBytes::new(&inner)?;
        let added = inner.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let template = template.map(|source| ChatTemplate::with_tokens(source, named.clone()));
        Ok(Tokenizer { inner, bytes, special, ends, template, named, notes })
    }

    /// The tokens of `text`; special tokens written in it are parsed, but for those that [`Tokenizer::shield`] has
    /// broken. Adds nothing.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.encode_with(text, false)
    }

    /// As [`Tokenizer::encode`], with the begin and end tokens this tokenizer adds by its own convention.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.encode_with(text, true)
    }

    fn encode_with(&self, text: &str, add_special: bool) -> Result<Vec<u32>, ModelError> {
        if text.contains(shield::MARK) {
            return self.encode_shielded(text, add_special);
        }
        let encoding = self.inner.encode_fast(text, add_special).map_err(|e| self.failed(e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens of `text`, special tokens written in it being plain text. For text from strangers.
    pub fn encode_literal(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let mut pieces = PreTokenizedString::from(text);
        if let Some(normalizer) = self.inner.get_normalizer() {
            pieces.normalize(|s| normalizer.normalize(s)).map_err(|e| self.failed(e))?;
        }
        Ok(self.tokens(pieces)?.get_ids().to_vec())
    }

    /// `text` with every special token in it spelled so that [`Tokenizer::encode`] takes it as plain text.
    ///
    /// For what users say within a chat template, whose own special tokens count.
    pub fn shield<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let special = self.special.iter().filter_map(|id| self.inner.id_to_token(*id));
        shield::shield(text, special)
    }

    fn encode_shielded(&self, text: &str, add_special: bool) -> Result<Vec<u32>, ModelError> {
        let added = self.inner.get_added_vocabulary();
        let mut pieces = added.extract_and_normalize(self.inner.get_normalizer(), text);
        pieces
            .normalize(|piece| {
                piece.filter(|c| c != shield::MARK);
                Ok(())
            })
            .map_err(|e| self.failed(e))?;
        let tokens = self.tokens(pieces)?;
        let framed = self.inner.post_process(tokens, None, add_special).map_err(|e| self.failed(e))?;
        Ok(framed.get_ids().to_vec())
    }

    /// Splits what is no token yet into words, and words into tokens.
    fn tokens(&self, mut pieces: PreTokenizedString) -> Result<tokenizers::Encoding, ModelError> {
        if let Some(splitter) = self.inner.get_pre_tokenizer() {
            splitter.pre_tokenize(&mut pieces).map_err(|e| self.failed(e))?;
        }
        pieces.tokenize(|piece| self.word(piece.get())).map_err(|e| self.failed(e))?;
        pieces.into_encoding(None, 0, tokenizers::tokenizer::OffsetType::None).map_err(|e| self.failed(e))
    }

    /// The tokens of a word, of which none is special: a model that knows `</s>` as a token, as unigram models do, gets it
    /// character by character.
    fn word(&self, word: &str) -> tokenizers::Result<Vec<tokenizers::Token>> {
        let model = self.inner.get_model();
        let spelled = |token: &tokenizers::Token| {
            let text = word.get(token.offsets.0..token.offsets.1).filter(|_| self.is_special(token.id))?;
            (model.id_to_token(token.id)? == text).then_some(text)
        };
        let mut tokens = Vec::new();
        for token in model.tokenize(word)? {
            let Some(text) = spelled(&token) else {
                tokens.push(token);
                continue;
            };
            for character in text.split_inclusive(|_| true) {
                tokens.extend(model.tokenize(character)?);
            }
        }
        Ok(tokens)
    }

    fn failed(&self, error: tokenizers::Error) -> ModelError {
        ModelError::Tokenizer(format!("the tokenizer cannot encode this text: {error}"))
    }

    /// The text of `tokens`, special tokens spelled out; bytes that are no UTF-8 become U+FFFD.
    ///
    /// A space that the tokenizer itself puts before a text is taken off again.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|id| self.bytes.of(*id)).copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let text =
            if self.bytes.strips_first_space() { text.strip_prefix(' ').unwrap_or(&text) } else { &text };
        text.to_owned()
    }

    /// The bytes the token stands for; empty for ids that are no token.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.bytes.of(id)
    }

    /// One past the largest token id.
    pub fn vocabulary(&self) -> usize {
        self.bytes.tokens()
    }

    /// Remarks a user should see.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Tokens of the vocabulary proper, without those added for control.
    pub(crate) fn base_vocabulary(&self) -> usize {
        self.inner.get_model().get_vocab_size()
    }

    /// The token's spelling in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token spelled exactly so.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether the token ends a generation.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The tokens that end a generation.
    pub fn ends(&self) -> impl Iterator<Item = u32> + '_ {
        self.ends.iter().copied()
    }

    /// Whether the token is a control token, not shown.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// Whether the model brought a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// The source of the chat template, in Jinja, where there is one.
    pub fn chat_template(&self) -> Option<&str> {
        self.template.as_ref().map(ChatTemplate::source)
    }

    /// The names that [`Tokenizer::set_chat_template`] knows.
    pub fn chat_forms() -> impl Iterator<Item = &'static str> {
        FORMS.iter().map(|form| form.name)
    }

    /// Takes another chat template in place of the model's: a form by its name, as `chatml`, or Jinja.
    ///
    /// # Errors
    /// When the form writes a special token that the tokenizer does not have: its model was not trained with it.
    pub fn set_chat_template(&mut self, template: &str) -> Result<(), ModelError> {
        let form = FORMS.iter().find(|form| form.name.eq_ignore_ascii_case(template));
        if let Some(form) = form {
            let known = |mark: &&str| self.inner.token_to_id(mark).is_some_and(|id| self.is_special(id));
            if let Some(mark) = form.marks.iter().find(|mark| !known(mark)) {
                let reason =
                    format!("the form {} is not for this model, which has no token {mark}", form.name);
                return Err(ModelError::Template(reason));
            }
        }
        let source = form.map_or(template, |form| form.source);
        self.template = Some(ChatTemplate::with_tokens(source.into(), self.named.clone()));
        Ok(())
    }

    /// The prompt of a conversation by the model's chat template; `answer` opens the assistant's turn.
    ///
    /// Encode it with [`Tokenizer::encode`]: the template already writes the begin token. Contents in which special
    /// tokens are to be plain text go through [`Tokenizer::shield`] first, or [`ChatRequest::shielded`].
    pub fn chat(&self, messages: &[ChatMessage], answer: bool) -> Result<String, ModelError> {
        self.chat_request(&ChatRequest::new(messages).answer(answer))
    }

    /// As [`Tokenizer::chat`], with all that a template may know: tools, documents, further variables.
    pub fn chat_request(&self, request: &ChatRequest) -> Result<String, ModelError> {
        let Some(template) = &self.template else {
            let reason = "this model has no chat template: give it plain text, or take an instruct model";
            return Err(ModelError::Template(reason.into()));
        };
        template.render(request)
    }
}
