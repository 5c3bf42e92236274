//! `/v1/responses`: what is answered.

use super::{FlatChoice, FlatTool, Kv, PromptTokensDetails, SessionUsage, Usage};
use serde::Serialize;
use utoipa::ToSchema;

/// The answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ResponseObject {
    pub(crate) id: String,
    /// `response`
    pub(crate) object: &'static str,
    pub(crate) created_at: u64,
    /// `in_progress`, `completed` or `incomplete`.
    pub(crate) status: &'static str,
    pub(crate) model: String,
    pub(crate) output: Vec<OutputItem>,
    /// Why it is incomplete.
    pub(crate) incomplete_details: Option<Incomplete>,
    pub(crate) instructions: Option<String>,
    /// Always null: an answer that fails is an error.
    pub(crate) error: Option<String>,
    pub(crate) parallel_tool_calls: bool,
    pub(crate) tool_choice: FlatChoice,
    pub(crate) tools: Vec<FlatTool>,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) usage: Option<ResponseUsage>,
}

/// Why an answer is incomplete.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Incomplete {
    /// `max_output_tokens`
    pub(crate) reason: &'static str,
}

/// What the assistant said, or called.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum OutputItem {
    Message(OutputMessage),
    Call(OutputCall),
}

/// What the assistant said.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct OutputMessage {
    pub(crate) id: String,
    /// `message`
    pub(crate) r#type: &'static str,
    /// `assistant`
    pub(crate) role: &'static str,
    /// `in_progress`, `completed` or `incomplete`.
    pub(crate) status: &'static str,
    pub(crate) content: Vec<OutputText>,
}

/// A text.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct OutputText {
    /// `output_text`
    pub(crate) r#type: &'static str,
    pub(crate) text: String,
    #[schema(value_type = Vec<Object>)]
    pub(crate) annotations: [(); 0],
}

/// A function that the assistant calls.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct OutputCall {
    pub(crate) id: String,
    /// `function_call`
    pub(crate) r#type: &'static str,
    /// `in_progress`, `completed` or `incomplete`.
    pub(crate) status: &'static str,
    /// Names the call where it is answered.
    pub(crate) call_id: String,
    pub(crate) name: String,
    /// An object in JSON, as text.
    pub(crate) arguments: String,
}

/// What an answer used, under this shape's names.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ResponseUsage {
    pub(crate) input_tokens: usize,
    pub(crate) input_tokens_details: PromptTokensDetails,
    pub(crate) output_tokens: usize,
    pub(crate) output_tokens_details: OutputTokensDetails,
    pub(crate) total_tokens: usize,
    /// What the cache took at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kv: Option<Kv>,
    /// The session, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<SessionUsage>,
    /// Milliseconds from the request's arrival to its first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_token_ms: Option<f64>,
}

/// Of the answer's tokens.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct OutputTokensDetails {
    /// Always 0: what is thought is not told apart.
    pub(crate) reasoning_tokens: usize,
}

impl From<Usage> for ResponseUsage {
    fn from(usage: Usage) -> Self {
        ResponseUsage {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: usage.prompt_tokens_details,
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputTokensDetails::default(),
            total_tokens: usage.total_tokens,
            kv: usage.kv,
            session: usage.session,
            first_token_ms: usage.first_token_ms,
        }
    }
}
