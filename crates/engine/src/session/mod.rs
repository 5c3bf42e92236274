//! Sessions: texts and conversations in files, to go on another time as if they had never stopped.

mod file;
mod format;

pub use file::SessionFile;

use crate::{Conversation, Generation, conversation::Talk};
use sketchkv_model::{Model, ModelError, Sampling};
use std::{io, path::PathBuf};

/// What a session holds.
pub enum Session {
    /// A text that goes on.
    Text(Generation),
    /// A conversation.
    Conversation(Conversation),
}

/// What can go wrong with a session in a file. Every message is one line and says the way out.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The file cannot be read or written.
    #[error("cannot {what} the session {path}: {error}", path = path.display())]
    File {
        /// Read or write.
        what: &'static str,
        /// The session's file.
        path: PathBuf,
        /// The operating system's reason.
        error: io::Error,
    },
    /// What has that name is no file.
    #[error("the session {path} is no regular file: name another one", path = path.display())]
    NoFile {
        /// What was opened.
        path: PathBuf,
    },
    /// Someone else goes on with it.
    #[error("the session {path} is in use: another process goes on with it; wait for its end or name another file", path = path.display())]
    InUse {
        /// The session's file.
        path: PathBuf,
    },
    /// It is damaged, or something else than a session of this version.
    #[error("cannot go on with the session {path}: {reason}", path = path.display())]
    Unusable {
        /// The session's file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// It was begun with another model.
    #[error("the session {path} was begun with the model {model}, and this is {other} with other weights", path = path.display())]
    OtherModel {
        /// The session's file.
        path: PathBuf,
        /// The name of its model.
        model: String,
        /// The name of the model that should go on with it.
        other: String,
    },
    /// The model's files are gone, or the sampling is out of range.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl Session {
    /// The bytes of a [`SessionFile`] that holds it; what is running is interrupted.
    ///
    /// # Errors
    /// When the model's files are gone.
    pub fn to_bytes(&mut self, model: &Model) -> Result<Vec<u8>, ModelError> {
        let pieces = match self {
            Session::Text(generation) => pieces(model, generation, None)?,
            Session::Conversation(conversation) => {
                let (generation, talk) = conversation.at_rest(model);
                pieces(model, generation, Some(talk.clone()))?
            }
        };
        Ok(pieces.concat())
    }

    /// The session that the bytes of a [`SessionFile`] hold, if they are those of one and of this model. Tokens are chosen
    /// as `sampling` says, but that its seed is the session's, and its random numbers go on.
    ///
    /// # Errors
    /// Says which, and what is wrong with them.
    pub fn from_bytes(bytes: &[u8], model: &Model, sampling: Sampling) -> Result<Session, Unusable> {
        let (header, logits, cache) = format::decode(bytes)?;
        if header.model_hash != model.content_hash()? {
            return Err(Unusable::OtherModel(header.model));
        }
        header.rest.check(model, &logits).map_err(Unusable::damaged)?;
        let cache = sketchkv_cache::Cache::from_bytes(cache, model.cache_shape())
            .map_err(|error| Unusable::Bytes(error.to_string()))?;
        let generation = Generation::resume(cache, sampling, header.rest, logits)?;
        Ok(match header.talk {
            None => Session::Text(generation),
            Some(talk) => Session::Conversation(Conversation::resume(generation, talk)),
        })
    }
}

/// The bytes of a session, in pieces.
fn pieces(
    model: &Model,
    generation: &mut Generation,
    talk: Option<Talk>,
) -> Result<[Vec<u8>; 3], ModelError> {
    let (model_name, model_hash) = (model.config().name.clone(), model.content_hash()?);
    let (rest, logits) = generation.at_rest(model);
    let logits = logits.to_vec();
    let header = format::Header { model: model_name, model_hash, rest, talk };
    Ok(format::encode(&header, &logits, generation.cache().to_bytes()))
}

/// Why bytes are no session to go on with.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// They are damaged, or of something else.
    #[error("{0}")]
    Bytes(String),
    /// They are of another model, of this name.
    #[error("it was begun with the model {0}")]
    OtherModel(String),
    /// As [`SessionError::Model`].
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl Unusable {
    fn damaged(what: &str) -> Self {
        Unusable::Bytes(format!("it is damaged ({what}): begin another one"))
    }
}
