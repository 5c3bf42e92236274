//! The engine thread: it alone runs the model, over all answers in the works, within one pool of bytes.
//!
//! The way of a request: a [`Job`] comes through the inbox and waits in the [`Scheduler`]'s queue; the [`Worker`] admits it when
//! the [`Pool`] grants its bytes, from the longest of the [`Prefixes`] that it begins with or from its session; from then on it is
//! [`Running`], and every round the scheduler says which of those decode a token and which one takes in a chunk of its prompt.
//! What comes of it goes out as [`Event`]s.

mod job;
mod pool;
mod prefixes;
mod running;
mod scheduler;
mod sessions;
mod worker;

pub(crate) use job::{Chosen, Event, Job, PromptTokens};
pub(crate) use sessions::{SessionFolder, is_session_name};
pub(crate) use worker::{Command, Handle, Inspection, Limits, Worker};
