//! `/v1/completions`.

use super::{Kv, Usage, request};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

request! {
    /// Texts to go on with.
    CompletionRequest {
        /// The text, or several, as text or as tokens.
        prompt: Option<Prompt>,
        /// Most tokens of the answer; 16 unless given.
        max_tokens: Option<usize>,
        /// Gives the prompt back before the answer, its log-probabilities with it.
        echo: Option<bool>,
        /// Says the log-probabilities of tokens, and of so many of the most probable ones in their places.
        #[schema(minimum = 0, maximum = 20)]
        logprobs: Option<usize>,
        /// As n; more is refused.
        best_of: Option<usize>,
        /// Refused: the models here go on, they do not fill in.
        suffix: Option<String>,
        /// What the answer's text must be, as for chat completions.
        response_format: Option<super::ResponseFormat>,
        /// A JSON schema that the answer keeps to.
        #[schema(value_type = Option<Object>)]
        json_schema: Option<serde_json::Value>,
    }
}

/// One text or several, as text or as tokens.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    Several(Vec<Vec<u32>>),
}

/// Texts that went on, or pieces of them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CompletionAnswer {
    pub(crate) id: String,
    /// `text_completion`
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) choices: Vec<CompletionChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Usage>,
    /// What the cache takes now, in a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kv: Option<Kv>,
}

/// One text.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct CompletionChoice {
    pub(crate) index: usize,
    pub(crate) text: String,
    pub(crate) logprobs: Option<CompletionLogprobs>,
    /// `stop` or `length`.
    pub(crate) finish_reason: Option<&'static str>,
}

/// Log-probabilities of tokens, those of the prompt first if it is echoed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct CompletionLogprobs {
    /// Their texts.
    pub(crate) tokens: Vec<String>,
    /// Null for the first token of a text.
    pub(crate) token_logprobs: Vec<Option<f32>>,
    /// The most probable ones in their places.
    pub(crate) top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// Where their texts begin, in characters from where the text begins.
    pub(crate) text_offset: Vec<usize>,
}
