//! Tools in a conversation: how a model's template writes calls, and calls read out of an answer.

mod format;
mod reader;

pub(crate) use format::ToolFormat;
pub(crate) use reader::{Read, Reader};
