//! The smaller requests and answers.

use super::{Kv, Message, Tool};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// `/v1/models`
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Models {
    /// `list`
    pub(crate) object: &'static str,
    pub(crate) data: Vec<ModelObject>,
}

/// The model that the server runs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ModelObject {
    /// Its name.
    pub(crate) id: String,
    /// `model`
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    /// `sketchkv`
    pub(crate) owned_by: &'static str,
    /// Most tokens of a text.
    pub(crate) context: usize,
    /// Bytes that a token takes in an uncompressed f16 cache, layers with sliding windows counted as if they had none.
    pub(crate) kv_bytes_per_token: usize,
    /// Whether it has a chat template.
    pub(crate) chat: bool,
    /// Whether its template knows tools.
    pub(crate) tools: bool,
}

/// `/kv`: what the page lets one choose from.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KvChoices {
    /// The cache of requests that name none.
    pub(crate) default: String,
    pub(crate) presets: Vec<KvPreset>,
    pub(crate) memory: KvMemory,
    /// Whether sessions are kept.
    pub(crate) sessions: bool,
}

/// A cache to choose.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KvPreset {
    pub(crate) spec: &'static str,
    /// What it does, in plain words.
    pub(crate) words: &'static str,
}

/// The bytes of all caches.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct KvMemory {
    pub(crate) limit: usize,
    /// Granted to running answers, and taken by shared prefixes and idle sessions.
    pub(crate) used: usize,
}

/// `/tokenize`
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizeRequest {
    /// The text; or `messages`, rendered by the template.
    pub(crate) content: Option<String>,
    /// As content.
    pub(crate) prompt: Option<String>,
    /// Adds the tokens that the tokenizer puts around a prompt.
    pub(crate) add_special: Option<bool>,
    /// Reads special tokens in the text as such; true unless given.
    pub(crate) parse_special: Option<bool>,
    /// Says the texts of the tokens too.
    pub(crate) with_pieces: Option<bool>,
    /// Ignored: other servers need it here.
    #[serde(rename = "model")]
    pub(crate) _model: Option<String>,
}

/// Tokens of a text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tokens {
    /// Ids, or ids with their texts.
    pub(crate) tokens: Vec<Token>,
    pub(crate) count: usize,
}

/// A token, by its id alone or with its text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Token {
    Id(u32),
    Spelled { id: u32, piece: String },
}

/// `/detokenize`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetokenizeRequest {
    pub(crate) tokens: Vec<u32>,
    /// Ignored: other servers need it here.
    #[serde(default, rename = "model")]
    pub(crate) _model: Option<String>,
}

/// A text of tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Text {
    pub(crate) content: String,
}

/// `/apply-template`
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TemplateRequest {
    pub(crate) messages: Vec<Message>,
    pub(crate) tools: Option<Vec<Tool>>,
    /// Variables of the model's template.
    #[schema(value_type = Option<Object>)]
    pub(crate) chat_template_kwargs: Option<BTreeMap<String, Box<RawValue>>>,
    /// Opens the assistant's turn; true unless given.
    pub(crate) add_generation_prompt: Option<bool>,
    /// Ignored: other servers need it here.
    #[serde(rename = "model")]
    pub(crate) _model: Option<String>,
}

/// A rendered conversation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rendered {
    pub(crate) prompt: String,
}

/// `/health`
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`
    pub(crate) status: &'static str,
}

/// One answer in the works, or a session at rest.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Slot {
    /// Names the answer while it is in the works; sessions at rest have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<u64>,
    /// The session, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
    /// `waiting`, `prompt`, `answer` or `idle`.
    pub(crate) state: &'static str,
    /// Tokens of the prompt.
    pub(crate) prompt_tokens: usize,
    /// Those whose state was there already.
    pub(crate) cached_tokens: usize,
    /// Tokens generated.
    pub(crate) completion_tokens: usize,
    /// Bytes that it may take.
    pub(crate) granted_bytes: usize,
    /// Whether its cap was lowered for others.
    pub(crate) lowered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kv: Option<Kv>,
}

/// `/slots`
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Slots {
    pub(crate) slots: Vec<Slot>,
    /// Names of the sessions on disk.
    pub(crate) sessions: Vec<String>,
    pub(crate) memory: KvMemory,
}

/// What to do with a session.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SlotAction {
    pub(crate) action: Action,
}

/// What to do with a session.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// Writes it; sessions are written of themselves.
    Save,
    /// Reads it into memory.
    Restore,
    /// Forgets it, on disk too.
    Erase,
}

/// What was done with a session.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct SlotDone {
    pub(crate) session: String,
    /// Tokens it holds.
    pub(crate) tokens: usize,
    /// Bytes of its file.
    pub(crate) file_bytes: usize,
}
