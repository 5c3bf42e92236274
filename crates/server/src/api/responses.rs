//! `/v1/responses`: the basics.

use super::{Message, request};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use utoipa::ToSchema;

request! {
    /// A conversation to go on with, in the newer shape.
    ResponsesRequest {
        /// A text, or messages.
        input: Option<Input>,
        /// What the model is told first.
        instructions: Option<String>,
        /// Most tokens of the answer.
        max_output_tokens: Option<usize>,
        /// What the answer's text must be.
        text: Option<TextFormat>,
        /// Refused: nothing is kept between requests, but sessions.
        previous_response_id: Option<String>,
        /// Ignored.
        #[schema(value_type = Option<Object>)]
        #[allow(dead_code, reason = "read and ignored")]
        reasoning: Option<IgnoredAny>,
        /// Ignored.
        #[schema(value_type = Option<Vec<String>>)]
        #[allow(dead_code, reason = "read and ignored")]
        include: Option<IgnoredAny>,
        /// `disabled`, whatever is asked: a text that is too long is refused.
        #[schema(value_type = Option<String>)]
        #[allow(dead_code, reason = "read and ignored")]
        truncation: Option<IgnoredAny>,
    }
}

/// A text, or messages.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Input {
    Text(String),
    Messages(Vec<InputMessage>),
}

/// A message, as this shape has it.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct InputMessage {
    /// `message`; anything else is refused.
    #[serde(default)]
    pub(crate) r#type: Option<String>,
    #[serde(default)]
    pub(crate) role: String,
    #[serde(default)]
    pub(crate) content: Option<super::Content>,
}

/// What the answer's text must be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct TextFormat {
    #[serde(default)]
    pub(crate) format: Option<FlatFormat>,
}

/// As [`super::ResponseFormat`], with the schema's fields beside the type.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct FlatFormat {
    /// `text`, `json_object` or `json_schema`.
    pub(crate) r#type: String,
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub(crate) schema: Option<serde_json::Value>,
}

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
    pub(crate) output: Vec<OutputMessage>,
    /// Why it is incomplete.
    pub(crate) incomplete_details: Option<Incomplete>,
    pub(crate) instructions: Option<String>,
    /// Always null: an answer that fails is an error.
    pub(crate) error: Option<String>,
    pub(crate) parallel_tool_calls: bool,
    pub(crate) tool_choice: &'static str,
    #[schema(value_type = Vec<Object>)]
    pub(crate) tools: [(); 0],
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

/// What the assistant said.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct OutputMessage {
    pub(crate) id: String,
    /// `message`
    pub(crate) r#type: &'static str,
    /// `assistant`
    pub(crate) role: &'static str,
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

/// What an answer used, under this shape's names.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ResponseUsage {
    pub(crate) input_tokens: usize,
    pub(crate) input_tokens_details: super::PromptTokensDetails,
    pub(crate) output_tokens: usize,
    pub(crate) output_tokens_details: OutputTokensDetails,
    pub(crate) total_tokens: usize,
}

/// Of the answer's tokens.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct OutputTokensDetails {
    /// Always 0: what is thought is not told apart.
    pub(crate) reasoning_tokens: usize,
}

impl ResponsesRequest {
    /// The conversation in the older shape.
    pub(crate) fn messages(&self) -> Result<Vec<Message>, super::ApiError> {
        let instructions = self.instructions.iter().map(|text| Message {
            role: "system".into(),
            content: Some(super::Content::Text(text.clone())),
            ..Message::default()
        });
        let said = match &self.input {
            None => return Err(super::ApiError::param("input", "input is missing: a text, or messages")),
            Some(Input::Text(text)) => vec![InputMessage {
                r#type: None,
                role: "user".into(),
                content: Some(super::Content::Text(text.clone())),
            }],
            Some(Input::Messages(messages)) => messages.clone(),
        };
        let mut messages: Vec<Message> = instructions.collect();
        for InputMessage { r#type, role, content } in said {
            if let Some(kind) = r#type.filter(|kind| kind != "message") {
                let message =
                    format!("an item of the input is of type {kind:?}: only messages are read here");
                return Err(super::ApiError::param("input", message));
            }
            messages.push(Message { role, content, ..Message::default() });
        }
        Ok(messages)
    }
}
