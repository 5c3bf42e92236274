//! `/v1/responses`: what is asked.

use super::{
    ApiError, CalledFunction, Content, Function, FunctionName, Message, Tool, ToolCall, ToolChoice, request,
};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;
use std::collections::HashSet;
use utoipa::ToSchema;

request! {
    /// A conversation to go on with, in the newer shape.
    ResponsesRequest {
        /// A text, or messages, calls and what came of them.
        input: Option<Input>,
        /// What the model is told first.
        instructions: Option<String>,
        /// Most tokens of the answer.
        max_output_tokens: Option<usize>,
        /// What the answer's text must be.
        text: Option<TextFormat>,
        /// Functions that the model may call.
        tools: Option<Vec<FlatTool>>,
        /// `auto`, `none`, `required`, or the function to call.
        tool_choice: Option<FlatChoice>,
        /// Allows several calls in one answer.
        parallel_tool_calls: Option<bool>,
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

/// A text, or items.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Input {
    Text(String),
    Items(Vec<InputItem>),
}

/// A message, a call, or what came of one.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct InputItem {
    /// `message`, `function_call` or `function_call_output`; anything else is refused.
    pub(crate) r#type: Option<String>,
    /// Of a message.
    pub(crate) role: String,
    /// Of a message.
    pub(crate) content: Option<Content>,
    /// Names a call, there and where it is answered.
    pub(crate) call_id: Option<String>,
    /// The function that is called.
    pub(crate) name: String,
    /// Its arguments: an object in JSON, as text.
    pub(crate) arguments: String,
    /// What came of the call.
    pub(crate) output: Option<Content>,
}

/// As [`Tool`], with the function's fields beside the type.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub(crate) struct FlatTool {
    /// `function`.
    pub(crate) r#type: String,
    /// Its name.
    #[serde(default)]
    pub(crate) name: String,
    /// What it does, for the model to read.
    #[serde(default)]
    pub(crate) description: Option<String>,
    /// The JSON schema of its arguments, keys in the order in which the model is to read them.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub(crate) parameters: Option<Box<RawValue>>,
    /// Ignored: the schema binds wherever a tool has to be called.
    #[serde(default)]
    pub(crate) strict: Option<bool>,
}

/// As [`ToolChoice`], with the function's name beside the type.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum FlatChoice {
    /// `auto`, `none` or `required`.
    Mode(String),
    /// This one.
    Function {
        /// `function`; anything else is refused.
        r#type: String,
        /// Its name.
        #[serde(default)]
        name: String,
    },
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

impl ResponsesRequest {
    /// The conversation in the older shape.
    pub(crate) fn messages(&self) -> Result<Vec<Message>, ApiError> {
        let by = |role: &str, text: &String| Message {
            role: role.into(),
            content: Some(Content::Text(text.clone())),
            ..Message::default()
        };
        let mut messages: Vec<Message> = self.instructions.iter().map(|text| by("system", text)).collect();
        match &self.input {
            None => return Err(ApiError::param("input", "input is missing: a text, or messages")),
            Some(Input::Text(text)) => messages.push(by("user", text)),
            Some(Input::Items(items)) => {
                let mut called = HashSet::new();
                items.iter().try_for_each(|item| item.add_to(&mut messages, &mut called))?;
            }
        }
        Ok(messages)
    }
}

impl InputItem {
    /// Adds the item to a conversation in the older shape; `called` are the ids of the calls in it.
    fn add_to<'i>(
        &'i self,
        messages: &mut Vec<Message>,
        called: &mut HashSet<&'i str>,
    ) -> Result<(), ApiError> {
        match self.r#type.as_deref().unwrap_or("message") {
            "message" => {
                let (role, content) = (self.role.clone(), self.content.clone());
                messages.push(Message { role, content, ..Message::default() });
            }
            "function_call" => {
                called.insert(self.call_id()?);
                let (name, arguments) = (self.name.clone(), self.arguments.clone());
                let call = ToolCall {
                    id: self.call_id()?.into(),
                    r#type: "function".into(),
                    function: CalledFunction { name, arguments },
                };
                // A turn of the assistant's is one message, its text and its calls together.
                if messages.last().is_none_or(|last| last.role != "assistant") {
                    messages.push(Message { role: "assistant".into(), ..Message::default() });
                }
                if let Some(turn) = messages.last_mut() {
                    turn.tool_calls.get_or_insert_default().push(call);
                }
            }
            "function_call_output" => {
                let id = self.call_id()?;
                if !called.contains(id) {
                    let message = format!(
                        "an output answers the call {id:?}, and the input has no such function_call before it"
                    );
                    return Err(ApiError::param("input", message));
                }
                messages.push(Message {
                    role: "tool".into(),
                    content: self.output.clone(),
                    tool_call_id: Some(id.into()),
                    ..Message::default()
                });
            }
            kind => {
                let message = format!(
                    "an item of the input is of type {kind:?}: message, function_call and function_call_output are read here"
                );
                return Err(ApiError::param("input", message));
            }
        }
        Ok(())
    }

    fn call_id(&self) -> Result<&str, ApiError> {
        let missing = || ApiError::param("input", "a function_call or its output has no call_id");
        self.call_id.as_deref().ok_or_else(missing)
    }
}

impl From<&FlatTool> for Tool {
    fn from(tool: &FlatTool) -> Self {
        let FlatTool { r#type, name, description, parameters, strict } = tool.clone();
        Tool { r#type, function: Function { name, description, parameters, _strict: strict } }
    }
}

impl FlatChoice {
    /// In the older shape.
    pub(crate) fn choice(&self) -> Result<ToolChoice, ApiError> {
        match self {
            FlatChoice::Mode(mode) => Ok(ToolChoice::Mode(mode.clone())),
            FlatChoice::Function { r#type, name } if r#type == "function" => Ok(ToolChoice::Function {
                _kind: r#type.clone(),
                function: FunctionName { name: name.clone() },
            }),
            FlatChoice::Function { r#type, .. } => {
                let message =
                    format!("tool_choice of type {type:?}: say auto, none, required, or name a function");
                Err(ApiError::param("tool_choice", message))
            }
        }
    }
}
