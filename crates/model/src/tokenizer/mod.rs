use crate::ModelError;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// Text to tokens and back, as the model was trained.
pub struct Tokenizer {}

impl Tokenizer {
    /// The tokens of `text`; special tokens written in it are parsed. Adds nothing.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        Err(ModelError::Tokenizer(text.into()))
    }

    /// The tokens of `text`, special tokens written in it being plain text. For text from strangers.
    pub fn encode_literal(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        Err(ModelError::Tokenizer(text.into()))
    }

    /// As [`Tokenizer::encode`], with the begin and end tokens this tokenizer adds by its own convention.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        Err(ModelError::Tokenizer(text.into()))
    }

    /// The text of `tokens`, special tokens spelled out; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let _ = tokens;
        String::new()
    }

    /// Number of tokens.
    pub fn vocabulary(&self) -> usize {
        0
    }

    /// The token's spelling in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        let _ = id;
        None
    }

    /// The id of a token spelled exactly so.
    pub fn id(&self, token: &str) -> Option<u32> {
        let _ = token;
        None
    }

    /// Whether the token ends a generation.
    pub fn is_end(&self, id: u32) -> bool {
        let _ = id;
        false
    }

    /// Whether the token is a control token, never shown.
    pub fn is_special(&self, id: u32) -> bool {
        let _ = id;
        false
    }

    /// Text of tokens that arrive one by one.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self }
    }

    /// Whether the model brought a chat template.
    pub fn has_chat_template(&self) -> bool {
        false
    }

    /// The prompt of a conversation by the model's chat template; `answer` opens the assistant's turn.
    pub fn chat(&self, messages: &[ChatMessage], answer: bool) -> Result<String, ModelError> {
        let _ = (messages, answer);
        Err(ModelError::Template("no template".into()))
    }
}

/// A streaming detokenizer: gives whole characters only.
pub struct TextStream<'a> {
    #[allow(dead_code)]
    tokenizer: &'a Tokenizer,
}

impl TextStream<'_> {
    /// The text that `token` completes, often empty within a character of several bytes.
    pub fn push(&mut self, token: u32) -> String {
        let _ = token;
        String::new()
    }

    /// What is left when no more tokens come: U+FFFD for an unfinished character.
    pub fn finish(&mut self) -> String {
        String::new()
    }
}
