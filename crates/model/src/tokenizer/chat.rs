//! What a chat template is asked to render.

use super::Tokenizer;
use crate::ModelError;
use minijinja::Value;
use minijinja::value::{Serde, ValueKind};
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl ChatMessage {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        ChatMessage { role: role.into(), content: content.into() }
    }
}

/// A conversation with all that a template may ask about it, as `apply_chat_template` of transformers takes it.
///
/// Reads from JSON by serde, with the field names of an OpenAI-style request. Templates print tools as JSON, and the
/// model was trained on their keys in a certain order: a request read from text keeps the order of the text, while a
/// `serde_json::Value` sorts its keys unless that crate's feature `preserve_order` is on.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ChatRequest {
    messages: Vec<Value>,
    tools: Option<Value>,
    documents: Option<Value>,
    add_generation_prompt: bool,
    chat_template_kwargs: BTreeMap<String, Value>,
    #[serde(skip)]
    now: Option<String>,
}

impl ChatRequest {
    /// A conversation of messages: maps with at least a `role`, mostly `content`, perhaps `tool_calls`.
    pub fn new(messages: &[impl Serialize]) -> Self {
        ChatRequest { messages: messages.iter().map(value).collect(), ..ChatRequest::default() }
    }

    /// Reads `{"messages": [...], "tools": [...], "documents": [...], "add_generation_prompt": true,
    /// "chat_template_kwargs": {...}}`, all but the messages optional, other keys ignored.
    ///
    /// # Errors
    ///
    /// When the text is no such JSON.
    pub fn from_json(text: &str) -> Result<Self, ModelError> {
        serde_json::from_str(text)
            .map_err(|error| ModelError::Template(format!("this is no conversation in JSON: {error}")))
    }

    /// Spells the special tokens of `tokenizer` so that they are plain text, in everything that the request brings: who
    /// said it, what was said and called, tools, documents, further variables.
    pub fn shielded(mut self, tokenizer: &Tokenizer) -> Self {
        let shield = |value: &mut Value| *value = shielded(value, tokenizer);
        self.messages.iter_mut().for_each(shield);
        self.tools
            .iter_mut()
            .chain(&mut self.documents)
            .chain(self.chat_template_kwargs.values_mut())
            .for_each(shield);
        self
    }

    /// Opens the assistant's turn at the end.
    pub fn answer(mut self, answer: bool) -> Self {
        self.add_generation_prompt = answer;
        self
    }

    /// The tools the model may call, as JSON schemas.
    pub fn tools(mut self, tools: &[impl Serialize]) -> Self {
        self.tools = Some(tools.iter().map(value).collect());
        self
    }

    /// Documents to answer from, for templates that know them.
    pub fn documents(mut self, documents: &[impl Serialize]) -> Self {
        self.documents = Some(documents.iter().map(value).collect());
        self
    }

    /// A variable of this template, such as `enable_thinking`; it hides a special token of the same name.
    pub fn argument(mut self, name: impl Into<String>, argument: &impl Serialize) -> Self {
        self.chat_template_kwargs.insert(name.into(), value(argument));
        self
    }

    /// The local date and time that the template sees, such as `2025-07-26T09:05:03`, in place of the clock's.
    pub fn at(mut self, now: impl Into<String>) -> Self {
        self.now = Some(now.into());
        self
    }

    pub(super) fn now(&self) -> Option<&str> {
        self.now.as_deref()
    }

    /// The variables a template starts with, those of `tokens` first.
    pub(super) fn variables(&self, tokens: &BTreeMap<String, String>) -> BTreeMap<String, Value> {
        let mut variables: BTreeMap<_, _> =
            tokens.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str()))).collect();
        variables.extend(self.chat_template_kwargs.clone());
        // What is not given is None, not undefined: templates tell the two apart.
        let given = |value: &Option<Value>| value.clone().unwrap_or_else(|| Value::from(()));
        variables.insert("messages".into(), self.messages.iter().map(normalized).collect());
        variables.insert("tools".into(), given(&self.tools));
        variables.insert("documents".into(), given(&self.documents));
        variables.insert("add_generation_prompt".into(), self.add_generation_prompt.into());
        variables
    }
}

/// The value with all text in it shielded, keys too.
fn shielded(value: &Value, tokenizer: &Tokenizer) -> Value {
    if let Some(text) = value.as_str() {
        return match tokenizer.shield(text) {
            Cow::Borrowed(_) => value.clone(),
            Cow::Owned(text) => text.into(),
        };
    }
    match (value.kind(), value.as_object()) {
        (ValueKind::Map, Some(object)) => {
            let of = |(key, value): (Value, Value)| (shielded(&key, tokenizer), shielded(&value, tokenizer));
            Value::from(Serde(Pairs(object.try_iter_pairs().into_iter().flatten().map(of).collect())))
        }
        (ValueKind::Seq, _) => {
            value.try_iter().into_iter().flatten().map(|value| shielded(&value, tokenizer)).collect()
        }
        _ => value.clone(),
    }
}

fn value(from: &impl Serialize) -> Value {
    Value::from(Serde(from))
}

/// The message as transformers hands it on: without keys that are None, and with the reasoning under the names that
/// templates read.
fn normalized(message: &Value) -> Value {
    let Some(object) = message.as_object().filter(|_| message.kind() == ValueKind::Map) else {
        return message.clone();
    };
    let given = object.try_iter_pairs().into_iter().flatten().filter(|(_, value)| !value.is_none());
    let mut pairs: Vec<(Value, Value)> = given.collect();
    let of = |pairs: &[(Value, Value)], name: &str| {
        pairs.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value.clone())
    };
    let reasoning = ["reasoning_content", "thinking", "reasoning"].iter().find_map(|name| of(&pairs, name));
    if let Some(reasoning) = reasoning {
        let thinking = of(&pairs, "thinking").unwrap_or_else(|| reasoning.clone());
        pairs.retain(|(key, _)| key.as_str() != Some("thinking"));
        pairs.insert(0, ("thinking".into(), thinking));
        if of(&pairs, "reasoning_content").is_none() {
            pairs.push(("reasoning_content".into(), reasoning));
        }
    }
    Value::from(Serde(Pairs(pairs)))
}

/// A map with its keys in this order.
struct Pairs(Vec<(Value, Value)>);

impl Serialize for Pairs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}
