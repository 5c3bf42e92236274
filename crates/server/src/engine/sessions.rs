//! Conversations at rest: in memory while there is room, in files for good.
//!
//! A session is locked while an answer goes on, read again where another process has written it since, and written by a thread of
//! its own: to a new file that takes the old one's place when it is whole and on the disk. States of prompts' beginnings go the
//! same way, under the names of their contents.

use super::{prefixes::Key, worker::Command};
use crate::api::ApiError;
use axum::http::StatusCode;
use sketchkv_cache::Cache;
use sketchkv_engine::{Conversation, Generation, Session, SessionError, SessionFile};
use sketchkv_model::{Model, Sampler, Sampling};
use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::SystemTime,
};

/// The folder of the sessions, and the most bytes that it takes.
#[derive(Debug, Clone)]
pub(crate) struct SessionFolder {
    pub(crate) path: PathBuf,
    pub(crate) limit: u64,
}

/// Whether a session may be called so.
pub(crate) fn is_session_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=128).contains(&name.len()) && name.chars().all(fits) && !name.starts_with('.')
}

impl SessionFolder {
    fn session(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.session"))
    }

    fn state(&self, key: Key) -> PathBuf {
        self.path.join(format!("{}.state", key.name()))
    }

    /// Names of the sessions in it.
    pub(crate) fn names(&self) -> Vec<String> {
        let files = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let name = |file: fs::DirEntry| Some(file.file_name().to_str()?.strip_suffix(".session")?.to_owned());
        let mut names: Vec<String> = files.filter_map(name).filter(|name| is_session_name(name)).collect();
        names.sort();
        names
    }

    /// Removes the files that were not written for longest, until all fit, but not `newest`.
    fn prune(&self, newest: &Path) {
        let files = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let mut files: Vec<(SystemTime, u64, PathBuf)> = files
            .filter_map(|file| {
                let (path, metadata) = (file.path(), file.metadata().ok()?);
                let ours = path.extension().is_some_and(|end| end == "session" || end == "state");
                ours.then_some((metadata.modified().ok()?, metadata.len(), path))
            })
            .collect();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        files.sort();
        for (_, bytes, path) in files {
            if total <= self.limit {
                break;
            }
            if path != newest && remove_unlocked(&path) {
                tracing::info!(file = %path.display(), bytes, "removed: the sessions' folder is full");
                total -= bytes;
            }
        }
    }
}

/// Removes a file that nobody holds; whether it is gone.
fn remove_unlocked(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    file.try_lock().is_ok() && fs::remove_file(path).is_ok()
}

/// What tells a version of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp(u64, Option<SystemTime>);

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Stamp(metadata.len(), metadata.modified().ok()))
    }
}

/// A session that was opened, and is locked.
pub(crate) struct Opened {
    pub(crate) file: SessionFile,
    pub(crate) conversation: Option<Conversation>,
    /// Bytes that it held of the pool.
    pub(crate) held: usize,
    /// The version of its file; `None` where it is not in one.
    pub(crate) stamp: Option<Stamp>,
}

/// A conversation at rest in memory.
struct Idle {
    conversation: Conversation,
    bytes: usize,
    stamp: Option<Stamp>,
    used: u64,
}

/// What the writer is to write.
struct Write {
    file: SessionFile,
    bytes: Vec<u8>,
    /// The session; a state has none.
    name: Option<String>,
}

/// What came of it.
pub(crate) struct Written {
    pub(crate) name: String,
    pub(crate) bytes: usize,
    pub(crate) stamp: Option<Stamp>,
    pub(crate) result: Result<(), SessionError>,
}

/// All conversations at rest.
pub(crate) struct Sessions {
    folder: Option<SessionFolder>,
    idle: HashMap<String, Idle>,
    busy: HashSet<String>,
    clock: u64,
    writer: Option<mpsc::SyncSender<Write>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Writes that wait, at most: their bytes are in memory.
const WRITES: usize = 2;

impl Sessions {
    /// `inbox` hears what was written.
    pub(crate) fn new(folder: Option<SessionFolder>, inbox: mpsc::Sender<Command>) -> Self {
        let (writer, writes) = mpsc::sync_channel::<Write>(WRITES);
        let of_thread = folder.clone();
        let write = move || {
            for Write { mut file, bytes, name } in writes {
                let path = file.path().to_owned();
                let result = file.write(&bytes);
                if let Err(error) = &result {
                    tracing::warn!(%error, "a session is not saved");
                }
                if let Some(folder) = &of_thread {
                    folder.prune(&path);
                }
                let stamp = Stamp::of(&path);
                drop(file);
                let Some(name) = name else { continue };
                let written = Written { name, bytes: bytes.len(), stamp, result };
                if inbox.send(Command::Written(written)).is_err() {
                    return;
                }
            }
        };
        // Without it every save fails, and says so.
        let thread = thread::Builder::new().name("sessions".into()).spawn(write).ok();
        Sessions {
            folder,
            idle: HashMap::new(),
            busy: HashSet::new(),
            clock: 0,
            writer: Some(writer),
            thread,
        }
    }

    pub(crate) fn folder(&self) -> Option<&SessionFolder> {
        self.folder.as_ref()
    }

    /// Whether an answer of this session goes on, or is being written.
    pub(crate) fn is_busy(&self, name: &str) -> bool {
        self.busy.contains(name)
    }

    /// Opens a session. It is busy until [`Sessions::rest`] or [`Sessions::leave`].
    pub(crate) fn open(
        &mut self,
        name: &str,
        model: &Model,
        sampling: &Sampling,
    ) -> Result<Opened, ApiError> {
        let Some(folder) = &self.folder else {
            return Err(ApiError::param(
                "session",
                "this server keeps no sessions: start it with --sessions FOLDER",
            ));
        };
        let path = folder.session(name);
        let mut file = SessionFile::open(&path).map_err(refusal)?;
        // Without a stamp it could not be written, and is newer than the file.
        let is_current = |idle: &Idle| idle.stamp.is_none() || idle.stamp == Stamp::of(&path);
        let is_current = self.idle.get(name).is_some_and(is_current);
        let loaded = match is_current {
            true => None,
            false => {
                let unusable = |error| {
                    let refused = refusal(error);
                    ApiError { message: format!("{} (or erase the session)", refused.message), ..refused }
                };
                file.load(model, sampling.clone()).map_err(unusable)?
            }
        };
        let idle = self.idle.remove(name);
        let held = idle.as_ref().map_or(0, |idle| idle.bytes);
        self.busy.insert(name.to_owned());
        let (conversation, stamp) = match (loaded, idle) {
            (Some(Session::Conversation(conversation)), _) => (Some(conversation), Stamp::of(&path)),
            (Some(Session::Text(generation)), _) => {
                (Some(Conversation::over(generation, String::new())), Stamp::of(&path))
            }
            (None, Some(idle)) if is_current => (Some(idle.conversation), idle.stamp),
            // Its file is gone.
            (None, _) => (None, None),
        };
        Ok(Opened { file, conversation, held, stamp })
    }

    /// Nothing came of it.
    pub(crate) fn leave(&mut self, name: &str) {
        self.busy.remove(name);
    }

    /// Has the conversation written; [`Command::Written`] says when it is.
    pub(crate) fn save(
        &mut self,
        name: &str,
        file: SessionFile,
        conversation: Conversation,
        model: &Model,
    ) -> (Conversation, Result<(), ApiError>) {
        let mut session = Session::Conversation(conversation);
        let bytes = session.to_bytes(model);
        let Session::Conversation(conversation) = session else { unreachable!("it was one") };
        let sent = bytes.map_err(ApiError::from).and_then(|bytes| {
            let write = Write { file, bytes, name: Some(name.to_owned()) };
            let gone = || {
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the thread that writes sessions is gone")
            };
            self.writer.as_ref().ok_or_else(gone)?.send(write).map_err(|_| gone())
        });
        (conversation, sent)
    }

    /// The conversation rests in memory, with `bytes` of the pool; `stamp` is the version of the file that holds it, if any.
    pub(crate) fn rest(
        &mut self,
        name: String,
        conversation: Conversation,
        stamp: Option<Stamp>,
        bytes: usize,
    ) {
        self.busy.remove(&name);
        self.clock += 1;
        self.idle.insert(name, Idle { conversation, bytes, stamp, used: self.clock });
    }

    /// Lets go of the conversation that rests in memory for longest, of those that are in files; gives its bytes.
    pub(crate) fn shed(&mut self) -> Option<usize> {
        let in_files = self.idle.iter().filter(|(_, idle)| idle.stamp.is_some());
        let name = in_files.min_by_key(|(_, idle)| idle.used)?.0.clone();
        self.idle.remove(&name).map(|idle| idle.bytes)
    }

    /// Bytes of the conversations that [`Sessions::shed`] can let go of.
    pub(crate) fn idle_bytes(&self) -> usize {
        self.idle.values().filter(|idle| idle.stamp.is_some()).map(|idle| idle.bytes).sum()
    }

    /// Forgets a session, its file too; gives the bytes that it held in memory.
    pub(crate) fn erase(&mut self, name: &str) -> Result<usize, ApiError> {
        let Some(folder) = &self.folder else { return Ok(0) };
        let held = self.idle.remove(name).map_or(0, |idle| idle.bytes);
        match fs::remove_file(folder.session(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("cannot remove the session {name}: {error}"),
            )),
            _ => Ok(held),
        }
    }

    /// Sessions that rest in memory: name, tokens and bytes.
    pub(crate) fn idle(&self) -> impl Iterator<Item = (&str, &Cache, usize)> {
        self.idle.iter().map(|(name, idle)| (name.as_str(), idle.conversation.cache(), idle.bytes))
    }

    /// Whether the state of a prompt's beginning is in a file.
    pub(crate) fn has_state(&self, key: Key) -> bool {
        self.folder.as_ref().is_some_and(|folder| folder.state(key).exists())
    }

    /// Reads the state of a prompt's beginning; `None` if there is none that can be used.
    pub(crate) fn read_state(&self, key: Key, model: &Model) -> Option<Cache> {
        let path = self.folder.as_ref()?.state(key);
        let bytes = fs::read(&path).ok()?;
        match Session::from_bytes(&bytes, model, Sampling::greedy()) {
            Ok(Session::Text(generation)) => Some(generation.into_cache()),
            Ok(Session::Conversation(_)) => None,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "a state cannot be used");
                None
            }
        }
    }

    /// Has the state of a prompt's beginning written, unless it is or the writer has enough to do.
    pub(crate) fn save_state(&mut self, key: Key, cache: Cache, model: &Model) {
        let Some(folder) = self.folder.as_ref().filter(|_| !self.has_state(key)) else { return };
        let (Ok(file), Ok(sampler)) =
            (SessionFile::open(&folder.state(key)), Sampler::new(Sampling::greedy()))
        else {
            return;
        };
        if let Ok(bytes) = Session::Text(Generation::new(cache, sampler)).to_bytes(model) {
            let write = Write { file, bytes, name: None };
            let _ = self.writer.as_ref().map(|writer| writer.try_send(write));
        }
    }
}

impl Drop for Sessions {
    /// What is to be written is written.
    fn drop(&mut self) {
        drop(self.writer.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Why a session cannot be gone on with, as a client hears it.
fn refusal(error: SessionError) -> ApiError {
    let status = match &error {
        SessionError::InUse { .. } => StatusCode::CONFLICT,
        SessionError::OtherModel { .. } | SessionError::Unusable { .. } => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    ApiError { param: Some("session".into()), ..ApiError::new(status, error.to_string()) }
}
