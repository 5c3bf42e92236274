use sketchkv_cache::CacheError;
use sketchkv_model::{ModelError, SampleError};

/// What can go wrong while a text is generated. Every message is one line and says the way out.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model or its tokenizer refused or failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A spec that does not fit the model.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Logits that no token can be chosen from.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// Something that no text can be held to, or that would take too long.
    #[error("this {kind} cannot be kept to: {reason}")]
    Grammar {
        /// What it was to be: a JSON schema, a regex, a grammar.
        kind: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A grammar that turned out to be too much while it was kept to, or that no token of the model can go on with.
    #[error("the text cannot go on within this {kind}: {reason}")]
    Constraint {
        /// What it was made from.
        kind: &'static str,
        /// What stopped it.
        reason: String,
    },
    /// A text that has no token yet cannot go on.
    #[error("the prompt is empty: give at least one token to continue")]
    EmptyPrompt,
    /// A document that leaves no room in the model's context.
    #[error(
        "the document has {tokens} tokens and leaves fewer than {room} of a context of {limit}: give a shorter one"
    )]
    LongDocument {
        /// Tokens of the document.
        tokens: usize,
        /// Tokens that must be left.
        room: usize,
        /// The model's context.
        limit: usize,
    },
    /// What was said last does not fit the conversation any more; it was not taken in.
    #[error("the conversation would take {needed} of {limit} tokens: begin it anew")]
    TooLong {
        /// Tokens the conversation would have.
        needed: usize,
        /// Tokens it may have.
        limit: usize,
    },
}
