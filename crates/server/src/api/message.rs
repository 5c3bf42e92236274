//! Messages of a conversation and the tools in it.

use super::ApiError;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A message of a conversation.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Message {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    pub(crate) role: String,
    /// What was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<Content>,
    /// What was thought before it was said, for templates that read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning_content: Option<String>,
    /// Who said it, or the tool that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Tools that the assistant called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_calls: Option<Vec<ToolCall>>,
    /// The call that a tool answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_call_id: Option<String>,
    /// What the assistant refused; it is read as its content.
    #[serde(skip_serializing)]
    pub(crate) refusal: Option<String>,
}

/// A text, or parts of it.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<ContentPart>),
}

/// A part of a message. Only texts are read; others are refused.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub(crate) struct ContentPart {
    /// `text`, `input_text`, `output_text` or `refusal`.
    pub(crate) r#type: String,
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
}

impl Content {
    /// All of it as one text.
    pub(crate) fn text(&self) -> Result<String, ApiError> {
        let part = |part: &ContentPart| match (part.r#type.as_str(), &part.text) {
            ("text" | "input_text" | "output_text" | "refusal", Some(text)) => Ok(text.clone()),
            (kind, _) => Err(ApiError::param(
                "messages",
                format!("a part of a message is of type {kind:?}: this model reads text only"),
            )),
        };
        match self {
            Content::Text(text) => Ok(text.clone()),
            Content::Parts(parts) => parts.iter().map(part).collect(),
        }
    }
}

/// A tool that was called.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub(crate) struct ToolCall {
    /// Names the call.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) id: String,
    /// `function`.
    pub(crate) r#type: String,
    /// Which, and with what.
    pub(crate) function: CalledFunction,
}

/// A function that was called.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub(crate) struct CalledFunction {
    /// Its name.
    pub(crate) name: String,
    /// Its arguments: an object in JSON, as text.
    pub(crate) arguments: String,
}

/// A tool that the model may call.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub(crate) struct Tool {
    /// `function`.
    pub(crate) r#type: String,
    /// What it does.
    pub(crate) function: Function,
}

impl Tool {
    /// Refuses what no template can show.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        let schema = self.function.parameters.as_ref().map_or("{}", |schema| schema.get());
        if schema.trim_start().starts_with('{') {
            return Ok(());
        }
        let message =
            format!("the parameters of the tool {:?} are no JSON schema: an object", self.function.name);
        Err(ApiError::param("tools", message))
    }
}

/// A function that the model may call.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// What it does, for the model to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// The JSON schema of its arguments, keys in the order in which the model is to read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(crate) parameters: Option<Box<RawValue>>,
    /// Ignored: the schema binds wherever a tool has to be called.
    #[serde(default, skip_serializing, rename = "strict")]
    pub(crate) _strict: Option<bool>,
}
