//! A server that speaks the protocol of the Hugging Face hub, well or badly as a test asks.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// The commit that `main` of every repository stands for.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A file of a repository.
#[derive(Clone)]
pub(crate) struct HubFile {
    pub(crate) content: Vec<u8>,
    /// Kept as a large file: a SHA-256 for an entity tag, the content behind a redirect to another path.
    pub(crate) large: bool,
    /// The connection breaks once, after this many bytes of the body.
    pub(crate) breaks_after: Option<usize>,
    /// The content served is not the one the entity tag stands for.
    pub(crate) corrupted: bool,
    /// Ranges are ignored: every answer is the whole content.
    pub(crate) ignores_ranges: bool,
    /// No entity tag is given.
    pub(crate) anonymous: bool,
}

impl HubFile {
    pub(crate) fn small(content: &[u8]) -> Self {
        let content = content.to_vec();
        HubFile {
            content,
            large: false,
            breaks_after: None,
            corrupted: false,
            ignores_ranges: false,
            anonymous: false,
        }
    }

    pub(crate) fn large(content: &[u8]) -> Self {
        HubFile { large: true, ..HubFile::small(content) }
    }

    fn tag(&self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        if self.large {
            return hex(&Sha256::digest(&self.content));
        }
        let prefix = format!("blob {}\0", self.content.len());
        hex(&Sha1::new_with_prefix(prefix).chain_update(&self.content).finalize())
    }
}

/// One request as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, HubFile>,
    token: Option<String>,
    requests: Vec<Request>,
}

/// The running server; it ends with the test's process.
pub(crate) struct Hub {
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    /// Serves `files` of the repository `organisation/model`.
    pub(crate) fn serve(files: impl IntoIterator<Item = (&'static str, HubFile)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let files = files.into_iter().map(|(name, file)| (name.to_owned(), file)).collect();
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // A client that goes away in the middle is no failure of the server.
                thread::spawn(move || answer(stream, &shared).ok());
            }
        });
        Hub { endpoint, state }
    }

    /// From now on, only this token may read.
    pub(crate) fn require_token(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.to_owned());
    }

    /// Replaces or adds a file.
    pub(crate) fn put(&self, name: &str, file: HubFile) {
        self.state.lock().unwrap().files.insert(name.to_owned(), file);
    }

    /// The requests so far, oldest first; forgets them.
    pub(crate) fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let found = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
        found
            .clone()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
    };
    let Some(line) = lines.first() else { return Ok(()) };
    let request =
        Request { line: line.clone(), range: header("range"), authorization: header("authorization") };
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (listing, found, allowed) = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        let bearer = state.token.as_ref().map(|token| format!("Bearer {token}"));
        // Where large files lie, the address itself is the permission.
        let allowed = path.starts_with("/storage/") || bearer.is_none() || bearer == request.authorization;
        let names: Vec<_> = state.files.keys().map(|name| format!("{{\"rfilename\":\"{name}\"}}")).collect();
        let name = path
            .strip_prefix(&format!("/organisation/model/resolve/{COMMIT}/"))
            .or_else(|| path.strip_prefix("/storage/"))
            .map(str::to_owned);
        let found = name.and_then(|name| {
            let file = state.files.get_mut(&name)?;
            let copy = file.clone();
            if method == "GET" && (!file.large || path.starts_with("/storage/")) {
                file.breaks_after = None;
            }
            Some((name, copy))
        });
        (names.join(","), found, allowed)
    };
    if !allowed {
        return respond(stream, "401 Unauthorized", &[], b"", None);
    }
    if path == "/api/models/organisation/model/revision/main" {
        let body = format!("{{\"sha\":\"{COMMIT}\",\"siblings\":[{listing}]}}");
        return respond(stream, "200 OK", &[], body.as_bytes(), None);
    }
    let Some((name, file)) = found else { return respond(stream, "404 Not Found", &[], b"", None) };
    let tag = |key: &str| if file.anonymous { String::new() } else { format!("{key}: \"{}\"", file.tag()) };
    if file.large && !path.starts_with("/storage/") {
        let address = stream.local_addr()?;
        let location = format!("Location: http://localhost:{}/storage/{name}", address.port());
        let size = format!("X-Linked-Size: {}", file.content.len());
        return respond(stream, "302 Found", &[location, tag("X-Linked-ETag"), size], b"", None);
    }
    let mut content = file.content.clone();
    if file.corrupted {
        content[0] ^= 1;
    }
    let from =
        header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match from {
        _ if method == "HEAD" => {
            let length = format!("Content-Length: {}", content.len());
            respond_head(stream, "200 OK", &[tag("ETag"), length])
        }
        Some(from) if from >= content.len() && !file.ignores_ranges => {
            respond(stream, "416 Range Not Satisfiable", &[], b"", None)
        }
        Some(from) if !file.ignores_ranges => {
            let range = format!("Content-Range: bytes {from}-{}/{}", content.len() - 1, content.len());
            respond(stream, "206 Partial Content", &[range], &content[from..], file.breaks_after)
        }
        _ => respond(stream, "200 OK", &[tag("ETag")], &content, file.breaks_after),
    }
}

fn respond(
    stream: TcpStream,
    status: &str,
    headers: &[String],
    body: &[u8],
    breaks_after: Option<usize>,
) -> std::io::Result<()> {
    let length = format!("Content-Length: {}", body.len());
    let headers: Vec<String> = headers.iter().cloned().chain([length]).collect();
    let mut sender = stream.try_clone()?;
    respond_head(stream, status, &headers)?;
    sender.write_all(&body[..breaks_after.unwrap_or(body.len()).min(body.len())])
}

fn respond_head(mut stream: TcpStream, status: &str, headers: &[String]) -> std::io::Result<()> {
    let headers: Vec<&str> = headers.iter().map(String::as_str).filter(|header| !header.is_empty()).collect();
    write!(stream, "HTTP/1.1 {status}\r\n{}\r\nConnection: close\r\n\r\n", headers.join("\r\n"))
}
