//! Conversations as the model's template knows them.

use super::App;
use crate::api::{ApiError, CalledFunction, Message, Tool, ToolCall};
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// What a template is to render.
pub(crate) struct Rendering<'r> {
    pub(crate) messages: &'r [Message],
    pub(crate) tools: Option<&'r [Tool]>,
    pub(crate) arguments: Option<&'r BTreeMap<String, Box<RawValue>>>,
    /// Opens the assistant's turn.
    pub(crate) answer: bool,
    /// Special tokens within what was said count as such.
    pub(crate) parse_special: bool,
}

/// A conversation as templates know it. Its keys are in the order in which models have learned to read them.
#[derive(Serialize)]
struct ForTemplate<'r> {
    messages: Vec<MessageForTemplate<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<&'r [Tool]>,
    add_generation_prompt: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_template_kwargs: Option<&'r BTreeMap<String, Box<RawValue>>>,
}

#[derive(Serialize)]
struct MessageForTemplate<'r> {
    role: &'r str,
    content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'r str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallForTemplate<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'r str>,
}

/// A call whose arguments are an object, as templates want them, and not its text.
#[derive(Serialize)]
struct CallForTemplate<'r> {
    id: &'r str,
    r#type: &'static str,
    function: FunctionForTemplate<'r>,
}

#[derive(Serialize)]
struct FunctionForTemplate<'r> {
    name: &'r str,
    arguments: Box<RawValue>,
}

impl Rendering<'_> {
    /// The text of the conversation.
    pub(crate) fn render(&self, app: &App) -> Result<String, ApiError> {
        let tokenizer = app.model.tokenizer();
        if !tokenizer.has_chat_template() {
            return Err(ApiError::bad(format!(
                "{} brings no chat template: it goes on with texts, at /v1/completions",
                app.about.id
            )));
        }
        let messages = self.messages.iter().map(message_for_template);
        self.tools.unwrap_or_default().iter().try_for_each(Tool::check)?;
        let request = ForTemplate {
            messages: messages.collect::<Result<_, _>>()?,
            tools: self.tools,
            add_generation_prompt: self.answer,
            chat_template_kwargs: self.arguments,
        };
        let request = serde_json::to_string(&request).map_err(|error| ApiError::bad(error.to_string()))?;
        let request = sketchkv_model::ChatRequest::from_json(&request)?;
        let request = if self.parse_special { request } else { request.shielded(tokenizer) };
        Ok(tokenizer.chat_request(&request)?)
    }
}

fn message_for_template(message: &Message) -> Result<MessageForTemplate<'_>, ApiError> {
    let role = match message.role.as_str() {
        "developer" => "system",
        role @ ("system" | "user" | "assistant" | "tool") => role,
        role => {
            let message = format!("a message is by {role:?}: say system, developer, user, assistant or tool");
            return Err(ApiError::param("messages", message));
        }
    };
    let content = match (&message.content, &message.refusal) {
        (Some(content), _) => content.text()?,
        (None, refusal) => refusal.clone().unwrap_or_default(),
    };
    let calls = message.tool_calls.as_deref().unwrap_or_default();
    Ok(MessageForTemplate {
        role,
        content,
        reasoning_content: message.reasoning_content.as_deref(),
        name: message.name.as_deref(),
        tool_calls: calls.iter().map(call_for_template).collect::<Result<_, _>>()?,
        tool_call_id: message.tool_call_id.as_deref(),
    })
}

fn call_for_template(call: &ToolCall) -> Result<CallForTemplate<'_>, ApiError> {
    let CalledFunction { name, arguments } = &call.function;
    let text = if arguments.trim().is_empty() { "{}" } else { arguments };
    let arguments = RawValue::from_string(text.to_owned()).map_err(|error| {
        ApiError::param("messages", format!("the arguments of a call of {name:?} are no JSON: {error}"))
    })?;
    Ok(CallForTemplate {
        id: &call.id,
        r#type: "function",
        function: FunctionForTemplate { name, arguments },
    })
}
