//! Tools in a conversation: which may be called, how a model's template writes calls, and calls read out of an answer.

mod choice;
mod format;
mod reader;

pub(crate) use choice::ToolUse;
pub(crate) use format::ToolFormat;
pub(crate) use reader::{Read, Reader};
