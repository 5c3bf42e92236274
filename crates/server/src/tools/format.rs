//! How a model writes a call, learned from its own template.

use crate::api::{ApiError, Tool};
use serde_json::{Value, json};
use sketchkv_model::{ChatRequest, Tokenizer};
use std::ops::Range;

/// How the model's template writes calls: one JSON object each, with a `name` and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToolFormat {
    /// Before the first call, such as `<tool_call>\n`.
    pub(crate) open: String,
    /// Between two calls; `None` if the template allows but one.
    pub(crate) between: Option<String>,
    /// Behind the last.
    pub(crate) close: String,
    /// What the object calls the arguments: `arguments` or `parameters`.
    pub(crate) arguments: String,
}

const NAMES: [&str; 2] = ["probe_one", "probe_two"];

impl ToolFormat {
    /// Has the template write calls, and looks at how it does; `None` if it knows no tools, or writes them in another way than
    /// as JSON.
    pub(crate) fn learn(tokenizer: &Tokenizer) -> Option<Self> {
        let plain = render(tokenizer, &json!({"role": "assistant", "content": "\u{1}"}))?;
        let call = |name: &str| json!({"id": "call00001", "type": "function", "function": {"name": name, "arguments": {"probe_key": 1}}});
        let calls = |names: &[&str]| {
            let calls: Vec<Value> = names.iter().map(|name| call(name)).collect();
            render(tokenizer, &json!({"role": "assistant", "content": "", "tool_calls": calls}))
        };
        let single = calls(&NAMES[..1])?;
        let begins = plain.char_indices().zip(single.chars()).find(|((_, a), b)| a != b)?.0.0;
        let (object, arguments) = object(&single, NAMES[0])?;
        let open = single.get(begins..object.start)?.to_owned();
        let rest = &single[object.end..];
        let ends = tokenizer.ends().filter_map(|end| tokenizer.token(end));
        let close = rest[..ends.filter_map(|end| rest.find(&end)).min().unwrap_or(rest.len())].to_owned();
        let between = calls(&NAMES).and_then(|double| {
            let first = self::object(&double, NAMES[0])?.0;
            let second = self::object(&double, NAMES[1])?.0;
            Some(double.get(first.end..second.start)?.to_owned())
        });
        Some(ToolFormat { open, between, close, arguments })
    }

    /// What tells a call from a text, if anything does.
    pub(crate) fn marker(&self) -> &str {
        self.open.trim()
    }

    /// A grammar of answers that are calls of `tools`, one or, where `several`, more.
    pub(crate) fn grammar(&self, tools: &[&Tool], several: bool) -> Result<String, ApiError> {
        let quoted = |text: &str| Value::from(text).to_string();
        let call = |tool: &&Tool| {
            let schema =
                tool.function.parameters.as_ref().map_or(r#"{"type":"object"}"#, |schema| schema.get());
            format!(
                r#"{{"type":"object","properties":{{"name":{{"const":{}}},{}:{schema}}},"required":["name",{}],"additionalProperties":false}}"#,
                quoted(&tool.function.name),
                quoted(&self.arguments),
                quoted(&self.arguments),
            )
        };
        let calls: Vec<String> = tools.iter().map(call).collect();
        let schema = match &calls[..] {
            [] => return Err(ApiError::param("tools", "a tool is to be called, and there is none")),
            [one] => one.clone(),
            all => format!(r#"{{"anyOf":[{}]}}"#, all.join(",")),
        };
        let literal = |text: &str| if text.is_empty() { String::new() } else { quoted(text) };
        let more = match self.between.as_deref().filter(|_| several) {
            Some(between) => format!("({} call)*", literal(between)),
            None => String::new(),
        };
        Ok(format!(
            "start: {} call {more} {}\ncall: %json {schema}\n",
            literal(&self.open),
            literal(&self.close)
        ))
    }
}

/// A conversation whose last message is `answer`, by the template.
fn render(tokenizer: &Tokenizer, answer: &Value) -> Option<String> {
    let parameters = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let tool =
        json!({"type": "function", "function": {"name": "a", "description": "a", "parameters": parameters}});
    let request = ChatRequest::new(&[json!({"role": "user", "content": "a"}), answer.clone()]).tools(&[tool]);
    tokenizer.chat_request(&request).ok()
}

/// Where the object is in `text` that calls `name`, and what it calls the arguments.
fn object(text: &str, name: &str) -> Option<(Range<usize>, String)> {
    let at = text.find(name)?;
    let start = text[..at].rfind('{')?;
    let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
    let value = values.next()?.ok()?;
    let end = start + values.byte_offset();
    let object = value.as_object().filter(|object| object.get("name").is_some_and(|n| n == name))?;
    let arguments = object.iter().find(|(_, value)| value.get("probe_key").is_some())?.0.clone();
    Some((start..end, arguments))
}
