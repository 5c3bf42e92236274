//! What a server is told.

use sketchkv_cache::Spec;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// What a server is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens.
    pub address: SocketAddr,
    /// The cache of requests that name none.
    pub kv: Spec,
    /// The most bytes that all caches take together: those of answers, of shared prefixes and of sessions at rest.
    pub kv_memory: usize,
    /// Answers in the works at the same time.
    pub parallel: usize,
    /// Requests that wait for their turn; more are refused.
    pub queue: usize,
    /// Most tokens of a text, prompt and answer together; the model's context if `None`.
    pub context: Option<usize>,
    /// Most tokens of an answer.
    pub max_tokens: Option<usize>,
    /// Tokens of a prompt that are run between two tokens of the others' answers, and behind which states are kept.
    pub chunk: usize,
    /// Whether an answer that goes on alone guesses its next tokens from the text so far; it is the same, and comes faster.
    pub guesses: bool,
    /// How long a request may take, the queue with it.
    pub timeout: Duration,
    /// Most bytes of a request's body.
    pub body: usize,
    /// Connections that are open at the same time; more wait to be taken.
    pub connections: usize,
    /// Keys of which a request has to bring one, if there are any.
    pub keys: Vec<String>,
    /// Origins whose pages may ask from a browser.
    pub cors: Vec<String>,
    /// The folder of the sessions; without it there are none.
    pub sessions: Option<PathBuf>,
    /// The most bytes of that folder; what was not used for longest goes.
    pub sessions_limit: u64,
    /// How long answers in the works may go on when the server is to stop.
    pub grace: Duration,
}
