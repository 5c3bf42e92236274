//! Which tools a request shows to the model, and how it may call them.

use super::ToolFormat;
use crate::api::{ApiError, Tool, ToolChoice};

/// What of the tools is shown to the model, and how it may call them.
pub(crate) struct ToolUse<'r> {
    pub(crate) shown: Option<&'r [Tool]>,
    /// How calls are read; `None` if there are none to read.
    pub(crate) format: Option<ToolFormat>,
    /// What the answer has to be where a tool must be called.
    pub(crate) grammar: Option<String>,
}

impl<'r> ToolUse<'r> {
    /// `known` is how the model called `model` writes calls, if it does; `several` allows more than one in an answer.
    pub(crate) fn of(
        known: Option<&ToolFormat>,
        model: &str,
        tools: &'r [Tool],
        choice: Option<&ToolChoice>,
        several: bool,
    ) -> Result<Self, ApiError> {
        let none = ToolUse { shown: None, format: None, grammar: None };
        let named = match choice {
            Some(ToolChoice::Function { function, .. }) => Some(function.name.as_str()),
            Some(ToolChoice::Mode(mode)) if !matches!(mode.as_str(), "auto" | "none" | "required") => {
                let message = format!("tool_choice {mode:?}: say auto, none, required, or name a function");
                return Err(ApiError::param("tool_choice", message));
            }
            _ => None,
        };
        let mode = match choice {
            Some(ToolChoice::Mode(mode)) => mode.as_str(),
            _ => "auto",
        };
        if tools.is_empty() && (named.is_some() || mode == "required") {
            return Err(ApiError::param("tool_choice", "a tool is to be called, and there are no tools"));
        }
        if tools.is_empty() || mode == "none" {
            return Ok(none);
        }
        let Some(format) = known else {
            let message = format!("the template of {model} knows no tools that this server can read");
            return Err(ApiError::param("tools", message));
        };
        if let Some(tool) = tools.iter().find(|tool| tool.r#type != "function") {
            let message = format!("a tool is of type {:?}: only functions are known here", tool.r#type);
            return Err(ApiError::param("tools", message));
        }
        let callable: Vec<&Tool> =
            tools.iter().filter(|tool| named.is_none_or(|name| tool.function.name == name)).collect();
        let grammar = match (named, mode) {
            (Some(name), _) if callable.is_empty() => {
                return Err(ApiError::param("tool_choice", format!("there is no tool {name:?}")));
            }
            (None, "auto") => None,
            _ => Some(format.grammar(&callable, several && named.is_none())?),
        };
        Ok(ToolUse { shown: Some(tools), format: Some(format.clone()), grammar })
    }
}
