//! What every door to sketchkv shares: models by name, generation step by step, conversations, and sessions in files.
//!
//! A door finds a model by what its user calls it ([`Source::find`], [`catalog::pull`]), makes a cache for it, and holds a
//! [`Generation`] for each text: feeds it, runs what it asks for, and gives it the logits. A [`Conversation`] is a
//! generation that is fed by the model's chat template; a [`SessionFile`] keeps either on disk, to go on another time as if
//! it had never stopped. [`Grammars`] holds a text to a form. Nothing here prints, has a thread of its own (but to compile a grammar in), or
//! knows how its user wrote what is wanted.
#![warn(missing_docs)]

pub mod catalog;
mod constraint;
mod conversation;
mod document;
mod error;
mod generation;
mod losses;
mod profile;
pub mod session;
mod source;
pub mod speculate;

pub use constraint::{Constraint, Grammars};
pub use conversation::Conversation;
pub use document::read_document;
pub use error::EngineError;
pub use generation::{Finish, GenerateOptions, Generation, Step, Timing};
pub use losses::{Bound, ExpectedLoss, Loss, Losses};
pub use profile::Profile;
pub use session::{Session, SessionError, SessionFile};
pub use source::{EMBEDDED, EMBEDDED_ABOUT, Source};
