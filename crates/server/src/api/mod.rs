//! What is asked and answered, each type written once: read and written by serde, described by utoipa.

mod chat;
mod common;
mod completion;
mod error;
mod kv;
mod message;
mod plain;
mod response;
mod responses;

pub(crate) use chat::*;
pub(crate) use common::{
    Common, CompletionTokensDetails, PromptTokensDetails, SessionUsage, Stop, StreamOptions, Usage, elastic,
    now, random, request,
};
pub(crate) use completion::{
    CompletionAnswer, CompletionChoice, CompletionLogprobs, CompletionRequest, Prompt,
};
pub(crate) use error::{ApiError, ErrorBody, Refusals};
pub(crate) use kv::Kv;
pub(crate) use message::{CalledFunction, Content, Function, Message, Tool, ToolCall};
pub(crate) use plain::*;
pub(crate) use response::*;
pub(crate) use responses::*;
