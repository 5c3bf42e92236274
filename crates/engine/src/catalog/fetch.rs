//! One file over HTTP, resumed where it was left and checked before it gets its name.

use super::{CatalogError, Progress, checksum::Checksum};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use ureq::{
    Agent, Body, RequestBuilder,
    config::RedirectAuthHeaders,
    http::{Response, StatusCode, header},
    typestate::WithoutBody,
};

/// How often a connection may break without a byte gained before the download is given up.
const ATTEMPTS: u32 = 5;

/// A connection that is still sending after this long is closed and resumed, so that one that hangs is noticed.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// A file to be had from a server.
pub(super) struct Remote {
    /// Where from.
    pub(super) url: String,
    /// Its size, if the server says.
    pub(super) bytes: Option<u64>,
    /// What it must hash to, if anyone says.
    pub(super) checksum: Option<Checksum>,
}

/// A server and how to speak to it.
#[derive(Debug, Clone)]
pub(super) struct Server {
    agent: Agent,
    token: Option<String>,
}

impl Server {
    /// A client that gives every answer back, whatever its status; `token` goes to the server asked, never to one
    /// it redirects to.
    pub(super) fn new(token: Option<String>) -> Self {
        let agent = Agent::config_builder()
            .user_agent(concat!("sketchkv/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_recv_body(Some(BODY_TIMEOUT))
            .build();
        Server { agent: agent.into(), token }
    }

    /// A GET of `url`, redirects followed.
    pub(super) fn get(&self, url: &str) -> Result<Response<Body>, CatalogError> {
        self.authorized(self.agent.get(url)).call().map_err(unreachable(url))
    }

    /// A HEAD of `url`; a redirect is an answer like any other.
    pub(super) fn head(&self, url: &str) -> Result<Response<Body>, CatalogError> {
        let request = self.authorized(self.agent.head(url)).config().max_redirects(0).build();
        request.call().map_err(unreachable(url))
    }

    fn authorized(&self, request: RequestBuilder<WithoutBody>) -> RequestBuilder<WithoutBody> {
        match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    /// What a server's refusal means and what to do about it.
    pub(super) fn refusal(&self, url: &str, status: StatusCode) -> CatalogError {
        let way_out = match status {
            StatusCode::NOT_FOUND => "check the name of the repository, the revision and the file",
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.token.is_some() => {
                "the repository does not exist, or the token in HF_TOKEN may not read it"
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                "the repository does not exist, or needs a login: put a token into HF_TOKEN"
            }
            _ => "try again later, or set HF_ENDPOINT to a mirror",
        };
        CatalogError::Source(format!("{url} answers {status}: {way_out}"))
    }
}

fn unreachable(url: &str) -> impl FnOnce(ureq::Error) -> CatalogError {
    move |error| CatalogError::Source(format!("cannot reach {url}: {error}"))
}

/// Puts the content of `remote` at `target` and returns the bytes that came over the wire.
///
/// Until everything has arrived and been checked, the content lies beside `target` in a file whose name ends in
/// `.part`; a later call goes on from there. `target` itself appears whole or not at all.
pub(super) fn fetch(
    server: &Server,
    remote: &Remote,
    target: &Path,
    progress: &mut dyn Progress,
) -> Result<u64, CatalogError> {
    let part = part_path(target, remote.checksum.as_ref());
    if remote.checksum.is_none() {
        // Nothing ties what lies there to what the server has now.
        remove_if_there(&part)?;
    }
    let open = OpenOptions::new().create(true).append(true).open(&part);
    let file = open.map_err(CatalogError::writing(&part, remote.bytes))?;
    let have = file.metadata().map_err(CatalogError::file("read", &part))?.len();
    let mut download = Download { server, remote, progress, part: &part, file, have, received: 0 };
    download.finish()?;
    let received = download.received;
    accept(&part, target, remote.bytes, remote.checksum.as_ref())?;
    Ok(received)
}

/// Checks the finished file at `part` and gives it its name; a wrong one is removed.
pub(super) fn accept(
    part: &Path,
    target: &Path,
    bytes: Option<u64>,
    checksum: Option<&Checksum>,
) -> Result<(), CatalogError> {
    let size = fs::metadata(part).map_err(CatalogError::file("read", part))?.len();
    let wrong = match (bytes, checksum) {
        (Some(wanted), _) if wanted != size => Some((format!("{size} bytes"), wanted.to_string())),
        (_, Some(wanted)) => {
            let found = wanted.of_file(part).map_err(CatalogError::file("read", part))?;
            (found != *wanted).then(|| (found.to_string(), wanted.to_string()))
        }
        _ => None,
    };
    if let Some((found, wanted)) = wrong {
        remove_if_there(part)?;
        let file = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Err(CatalogError::Wrong { file, found, wanted });
    }
    let finish = || CatalogError::file("finish", target);
    File::open(part).and_then(|file| file.sync_all()).map_err(finish())?;
    fs::rename(part, target).map_err(finish())?;
    sync_folder(target).map_err(finish())
}

/// The unfinished content of `target`. The checksum in the name keeps two versions of a file apart.
pub(super) fn part_path(target: &Path, checksum: Option<&Checksum>) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let version = checksum.map_or("unknown", |checksum| &checksum.digits()[..16]);
    target.with_file_name(format!(".{name}.{version}.part"))
}

/// A download in progress.
struct Download<'a> {
    server: &'a Server,
    remote: &'a Remote,
    progress: &'a mut dyn Progress,
    part: &'a Path,
    file: File,
    /// Bytes at `part`.
    have: u64,
    /// Bytes that came over the wire.
    received: u64,
}

/// Why a request did not bring the whole file.
enum Failure {
    /// Another attempt may go on.
    Passing(String),
    /// Another attempt would fail the same way.
    Final(CatalogError),
}

impl Download<'_> {
    /// Requests until the file is complete.
    fn finish(&mut self) -> Result<(), CatalogError> {
        let resumed = self.have;
        let mut failures = 0;
        // An empty file is complete only once the server has said so.
        while self.have == 0 || self.remote.bytes != Some(self.have) {
            if self.remote.bytes.is_some_and(|bytes| self.have > bytes) {
                self.restart()?;
            }
            let before = self.received;
            let reason = match self.attempt() {
                // Without a size from the server, the end of the body is the end of the file.
                Ok(()) if self.remote.bytes.is_none_or(|bytes| bytes == self.have) => break,
                Ok(()) => "the connection was closed early".to_owned(),
                Err(Failure::Passing(reason)) => reason,
                Err(Failure::Final(error)) => return Err(error),
            };
            failures = if self.received > before { 0 } else { failures + 1 };
            if failures == ATTEMPTS {
                return Err(CatalogError::Source(format!(
                    "{} broke off at byte {}; run the same command again to go on from there: {reason}",
                    self.remote.url, self.have
                )));
            }
            thread::sleep(Duration::from_millis(250 << failures));
        }
        if resumed > 0 && self.received > 0 {
            self.progress.note(&format!("resumed after {resumed} bytes"));
        }
        Ok(())
    }

    /// One request and its body.
    fn attempt(&mut self) -> Result<(), Failure> {
        let mut response = self.request(self.have)?;
        if !resumes_at(&response, self.have) {
            self.restart().map_err(Failure::Final)?;
        }
        self.progress.reached(self.have);
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            if self.progress.stopped() {
                return Err(Failure::Final(CatalogError::Stopped));
            }
            let read = match body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Passing(error.to_string())),
            };
            let missing = self.remote.bytes.map(|bytes| bytes.saturating_sub(self.have));
            let written = self.file.write_all(&buffer[..read]);
            written.map_err(CatalogError::writing(self.part, missing)).map_err(Failure::Final)?;
            self.have += read as u64;
            self.received += read as u64;
            self.progress.reached(self.have);
        }
    }

    fn request(&self, from: u64) -> Result<Response<Body>, Failure> {
        let url = &self.remote.url;
        let mut request = self.server.authorized(self.server.agent.get(url));
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let response =
            request.call().map_err(|error| Failure::Passing(format!("cannot fetch {url}: {error}")))?;
        match response.status() {
            status if status.is_success() => Ok(response),
            // What lies on the disk is no prefix of what the server has: begin again.
            StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => self.request(0),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(Failure::Passing(format!("{url} answers {status}")))
            }
            status => Err(Failure::Final(self.server.refusal(url, status))),
        }
    }

    fn restart(&mut self) -> Result<(), CatalogError> {
        self.have = 0;
        self.file.set_len(0).map_err(CatalogError::writing(self.part, None))
    }
}

/// Whether the body begins at byte `from`, as asked; otherwise it begins at 0.
fn resumes_at(response: &Response<Body>, from: u64) -> bool {
    if from == 0 {
        return true;
    }
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.trim_start().starts_with(&format!("bytes {from}-")))
}

fn remove_if_there(path: &Path) -> Result<(), CatalogError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CatalogError::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes the entry of `path` in its folder durable; a folder that cannot be opened as a file needs no sync.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent().map(File::open) {
        Some(Ok(folder)) if cfg!(unix) => folder.sync_all(),
        _ => Ok(()),
    }
}
