//! A session's file: held by one process at a time, and written whole or not at all.

use super::{Session, SessionError, Unusable};
use crate::{Conversation, Generation, conversation::Talk};
use sketchkv_model::{Model, Sampling};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// The file of a session, locked against other processes as long as this lives.
///
/// The lock is on the file itself, not on its name: a new version is locked before it takes the name.
#[derive(Debug)]
pub struct SessionFile {
    path: PathBuf,
    file: File,
}

impl SessionFile {
    /// Opens the file, and makes it if it is not there; only its owner can read it then. It is gone again if nothing is
    /// saved.
    ///
    /// # Errors
    /// When another process holds it, when it or its folder cannot be written, or when it is no file.
    pub fn open(path: &Path) -> Result<Self, SessionError> {
        let writing = |error| SessionError::File { what: "write", path: path.to_owned(), error };
        loop {
            let file = private().read(true).write(true).create(true).open(path).map_err(writing)?;
            if !file.metadata().map_err(writing)?.is_file() {
                return Err(SessionError::NoFile { path: path.to_owned() });
            }
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(SessionError::InUse { path: path.to_owned() }),
                Err(TryLockError::Error(error)) => return Err(writing(error)),
            }
            // Whoever held it may have replaced or removed it between our opening and our lock.
            if is_at(&file, path) {
                // A link is followed, so that saving does not replace it.
                let session = SessionFile { path: fs::canonicalize(path).map_err(writing)?, file };
                session.begin_part().and_then(|_| fs::remove_file(session.part())).map_err(writing)?;
                return Ok(session);
            }
        }
    }

    /// Where it is, links followed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds, if anything was saved to it. Tokens are chosen as `sampling` says, but that its seed is the session's,
    /// and its random numbers go on.
    ///
    /// # Errors
    /// When it cannot be read, is damaged or of another version, or belongs to another model. It is left as it is.
    pub fn load(&mut self, model: &Model, sampling: Sampling) -> Result<Option<Session>, SessionError> {
        let mut bytes = Vec::new();
        let read = self.file.rewind().and_then(|()| self.file.read_to_end(&mut bytes));
        read.map_err(|error| self.failed("read", error))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let path = self.path.clone();
        Session::from_bytes(&bytes, model, sampling).map(Some).map_err(|error| match error {
            Unusable::Bytes(reason) => SessionError::Unusable { path, reason },
            Unusable::OtherModel(begun) => {
                SessionError::OtherModel { path, model: begun, other: model.config().name.clone() }
            }
            Unusable::Model(error) => SessionError::Model(error),
        })
    }

    /// Saves a text; what is running is interrupted.
    ///
    /// # Errors
    /// When the file cannot be written; it is then what it was.
    pub fn save_text(&mut self, model: &Model, generation: &mut Generation) -> Result<(), SessionError> {
        self.save(model, generation, None)
    }

    /// Saves a conversation; an answer in progress ends with what was shown of it.
    ///
    /// # Errors
    /// As [`SessionFile::save_text`].
    pub fn save_conversation(
        &mut self,
        model: &Model,
        conversation: &mut Conversation,
    ) -> Result<(), SessionError> {
        let (generation, talk) = conversation.at_rest(model);
        let talk = talk.clone();
        self.save(model, generation, Some(talk))
    }

    fn save(
        &mut self,
        model: &Model,
        generation: &mut Generation,
        talk: Option<Talk>,
    ) -> Result<(), SessionError> {
        let pieces = super::pieces(model, generation, talk)?;
        self.write_pieces(&pieces)
    }

    /// Saves the bytes of a session, as [`Session::to_bytes`] gives them.
    ///
    /// # Errors
    /// As [`SessionFile::save_text`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        self.write_pieces(&[bytes])
    }

    fn write_pieces(&mut self, pieces: &[impl AsRef<[u8]>]) -> Result<(), SessionError> {
        self.replace(pieces).map_err(|error| {
            let _ = fs::remove_file(self.part());
            self.failed("write", error)
        })
    }

    /// Writes the pieces to a new file, and puts it in the place of the old one.
    fn replace(&mut self, pieces: &[impl AsRef<[u8]>]) -> io::Result<()> {
        let mut file = self.begin_part()?;
        file.try_lock()?;
        pieces.iter().try_for_each(|piece| file.write_all(piece.as_ref()))?;
        file.sync_all()?;
        fs::rename(self.part(), &self.path)?;
        self.file = file;
        match self.path.parent().map(File::open) {
            // The new name is durable only when the folder is.
            Some(Ok(folder)) if cfg!(unix) => folder.sync_all(),
            _ => Ok(()),
        }
    }

    /// A new file beside the session's; nobody but the holder of the lock has one.
    fn begin_part(&self) -> io::Result<File> {
        let part = self.part();
        match fs::remove_file(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        private().read(true).write(true).create_new(true).open(part)
    }

    fn part(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(format!(".{name}.part"))
    }

    fn failed(&self, what: &'static str, error: io::Error) -> SessionError {
        SessionError::File { what, path: self.path.clone(), error }
    }
}

impl Drop for SessionFile {
    fn drop(&mut self) {
        // Nothing was saved: the file was made for the lock alone. Removed while it is still locked.
        if self.file.metadata().is_ok_and(|metadata| metadata.len() == 0) && is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// To open files that only their owner can read, if they are made.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Whether `file` is what has the name `path` now.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let named = fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    let open = file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
    matches!((named, open), (Ok(named), Ok(open)) if named == open)
}

/// Elsewhere an open file keeps its name.
#[cfg(not(unix))]
fn is_at(_file: &File, path: &Path) -> bool {
    path.exists()
}
