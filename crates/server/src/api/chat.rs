//! `/v1/chat/completions`.

use super::{Kv, Message, Tool, ToolCall, Usage, request};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use utoipa::ToSchema;

request! {
    /// A conversation to go on with.
    ChatRequest {
        /// What was said so far.
        messages: Vec<Message>,
        /// Most tokens of the answer.
        max_tokens: Option<usize>,
        /// As max_tokens.
        max_completion_tokens: Option<usize>,
        /// Says the log-probabilities of the answer's tokens.
        logprobs: Option<bool>,
        /// And of so many of the most probable ones in their places.
        top_logprobs: Option<usize>,
        /// What the answer's text must be.
        response_format: Option<ResponseFormat>,
        /// Tools that the model may call.
        tools: Option<Vec<Tool>>,
        /// `auto`, `none`, `required`, or the function to call.
        tool_choice: Option<ToolChoice>,
        /// Allows several calls in one answer.
        parallel_tool_calls: Option<bool>,
        /// Variables of the model's template, such as `enable_thinking`.
        #[schema(value_type = Option<Object>)]
        chat_template_kwargs: Option<BTreeMap<String, Box<RawValue>>>,
        /// Lets special tokens within what is said count as such; else they are plain text.
        parse_special: Option<bool>,
        /// Ignored: the models here do not think before they answer, unless their template says so.
        #[schema(value_type = Option<String>)]
        #[allow(dead_code, reason = "read and ignored")]
        reasoning_effort: Option<IgnoredAny>,
        /// Ignored.
        #[schema(value_type = Option<String>)]
        #[allow(dead_code, reason = "read and ignored")]
        verbosity: Option<IgnoredAny>,
        /// `["text"]`; anything else is refused.
        modalities: Option<Vec<String>>,
    }
}

/// What the answer's text must be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ResponseFormat {
    /// Anything.
    Text,
    /// An object in JSON.
    JsonObject {
        /// Of this schema, as llama.cpp's server takes it.
        #[serde(default)]
        #[schema(value_type = Option<Object>)]
        schema: Option<serde_json::Value>,
    },
    /// JSON of a schema.
    JsonSchema {
        /// The schema.
        json_schema: JsonSchema,
    },
}

/// A JSON schema with its name.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct JsonSchema {
    /// The schema.
    #[schema(value_type = Object)]
    pub(crate) schema: serde_json::Value,
    /// Its name; not used.
    #[serde(default, rename = "name")]
    #[schema(value_type = Option<String>)]
    _name: Option<IgnoredAny>,
    /// What it is for; not used.
    #[serde(default, rename = "description")]
    #[schema(value_type = Option<String>)]
    _description: Option<IgnoredAny>,
    /// Always so.
    #[serde(default, rename = "strict")]
    #[schema(value_type = Option<bool>)]
    _strict: Option<IgnoredAny>,
}

/// Which tool is to be called.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ToolChoice {
    /// `auto`, `none` or `required`.
    Mode(String),
    /// This one.
    Function {
        /// `function`.
        #[serde(rename = "type")]
        _kind: String,
        /// Its name.
        function: FunctionName,
    },
}

/// The name of a function.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct FunctionName {
    pub(crate) name: String,
}

/// The whole answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatAnswer {
    pub(crate) id: String,
    /// `chat.completion`
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) choices: Vec<ChatChoice>,
    pub(crate) usage: Usage,
}

/// One answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatChoice {
    pub(crate) index: usize,
    pub(crate) message: Answer,
    pub(crate) logprobs: Option<ChatLogprobs>,
    /// `stop`, `length` or `tool_calls`.
    pub(crate) finish_reason: &'static str,
}

/// What the assistant said.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Answer {
    /// `assistant`
    pub(crate) role: &'static str,
    pub(crate) content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tool_calls: Vec<ToolCall>,
    /// Always null.
    pub(crate) refusal: Option<String>,
}

/// A piece of the answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatChunk {
    pub(crate) id: String,
    /// `chat.completion.chunk`
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) choices: Vec<ChunkChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Usage>,
    /// What the cache takes now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kv: Option<Kv>,
}

/// A piece of one answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChunkChoice {
    pub(crate) index: usize,
    pub(crate) delta: Delta,
    pub(crate) logprobs: Option<ChatLogprobs>,
    pub(crate) finish_reason: Option<&'static str>,
}

/// What is new.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<&'static str>,
    /// Null beside the role, which comes first and by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) content: Option<Option<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tool_calls: Vec<ToolCallDelta>,
}

/// What is new of a call.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct ToolCallDelta {
    pub(crate) index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) r#type: Option<&'static str>,
    pub(crate) function: FunctionDelta,
}

/// What is new of a function's call.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    pub(crate) arguments: String,
}

/// Log-probabilities of the answer's tokens.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct ChatLogprobs {
    pub(crate) content: Vec<TokenLogprob>,
}

/// A token with its log-probability, and the most probable ones in its place.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenLogprob {
    #[serde(flatten)]
    pub(crate) token: Logprob,
    pub(crate) top_logprobs: Vec<Logprob>,
}

/// A token with its log-probability.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Logprob {
    pub(crate) token: String,
    pub(crate) logprob: f32,
    pub(crate) bytes: Vec<u8>,
}
