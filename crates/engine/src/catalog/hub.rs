//! The protocol of the Hugging Face hub, as much as a download needs.
//!
//! `GET /api/models/REPOSITORY/revision/REVISION` lists the files of a commit; `HEAD` and `GET` of
//! `/REPOSITORY/resolve/COMMIT/FILE` give a file's size and checksum and its content, large files by a
//! redirect to another host. The checksum is the entity tag: a SHA-256 for large files, a git blob hash for others.

use super::{
    CatalogError,
    checksum::Checksum,
    fetch::{Remote, Server},
};
use serde::Deserialize;
use std::{borrow::Cow, env};
use ureq::http::{HeaderMap, header};

/// A repository of the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HubSource {
    /// `organisation/repository`.
    pub(super) repository: Cow<'static, str>,
    /// A branch, tag or commit.
    pub(super) revision: Cow<'static, str>,
    /// The one file wanted; `None` takes what a model folder needs.
    pub(super) file: Option<Cow<'static, str>>,
    /// What that file must hash to, whatever the server says.
    pub(super) pinned: Option<Checksum>,
    /// Bytes of its weights, where they are known beforehand: those of the main branch may change.
    pub(super) bytes: Option<u64>,
}

impl HubSource {
    /// What the main branch of `repository` has.
    pub(super) const fn named(repository: &'static str, bytes: u64) -> Self {
        HubSource {
            repository: Cow::Borrowed(repository),
            revision: Cow::Borrowed("main"),
            file: None,
            pinned: None,
            bytes: Some(bytes),
        }
    }
}

/// The Hugging Face hub, or a mirror of it.
#[derive(Debug, Clone)]
pub struct Hub {
    endpoint: String,
    pub(super) server: Server,
}

/// The files of a repository at one commit.
pub(super) struct Listing {
    /// The commit the revision stands for.
    pub(super) commit: String,
    files: Vec<String>,
}

/// Beside the weights, what a model folder consists of; only `config.json` and `tokenizer.json` must be there.
const SIDE_FILES: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
];
const WEIGHTS: &str = "model.safetensors";
const SHARD_INDEX: &str = "model.safetensors.index.json";

impl Hub {
    /// The hub at `endpoint`, its own address if there is none; `token` logs in.
    pub fn new(endpoint: Option<&str>, token: Option<&str>) -> Self {
        let endpoint = endpoint.unwrap_or("https://huggingface.co").trim().trim_end_matches('/').to_owned();
        Hub { endpoint, server: Server::new(token.map(|token| token.trim().to_owned())) }
    }

    /// The hub named by `HF_ENDPOINT`, with the token in `HF_TOKEN`.
    pub fn from_environment() -> Self {
        let set = |name| env::var(name).ok().filter(|value| !value.trim().is_empty());
        Hub::new(set("HF_ENDPOINT").as_deref(), set("HF_TOKEN").as_deref())
    }

    /// Lists the files at the revision of `source`.
    pub(super) fn list(&self, source: &HubSource) -> Result<Listing, CatalogError> {
        #[derive(Deserialize)]
        struct Answer {
            sha: Option<String>,
            #[serde(default)]
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let url = format!(
            "{}/api/models/{}/revision/{}",
            self.endpoint,
            source.repository,
            source.revision.replace('/', "%2F")
        );
        let mut response = self.server.get(&url)?;
        if !response.status().is_success() {
            return Err(self.server.refusal(&url, response.status()));
        }
        let text = response
            .body_mut()
            .read_to_string()
            .map_err(|error| CatalogError::Source(format!("cannot read {url}: {error}")))?;
        let answer: Answer = serde_json::from_str(&text).map_err(|error| {
            CatalogError::Source(format!("{url} does not answer as the hub does: {error}"))
        })?;
        Ok(Listing {
            commit: answer.sha.unwrap_or_else(|| source.revision.clone().into_owned()),
            files: answer.siblings.into_iter().map(|sibling| sibling.rfilename).collect(),
        })
    }

    /// Where `file` of `repository` is, how large, and what it hashes to.
    pub(super) fn locate(&self, repository: &str, commit: &str, file: &str) -> Result<Remote, CatalogError> {
        let url = format!("{}/{repository}/resolve/{commit}/{}", self.endpoint, escaped(file));
        let mut asked = url.clone();
        // A redirect within the server only renames; one to another host is where the content lies.
        for _ in 0..5 {
            let response = self.server.head(&asked)?;
            let (status, headers) = (response.status(), response.headers());
            if !status.is_success() && !status.is_redirection() {
                return Err(self.server.refusal(&asked, status));
            }
            match text(headers, header::LOCATION.as_str()) {
                Some(location) if status.is_redirection() && location.starts_with('/') => {
                    asked = format!("{}{location}", origin(&self.endpoint));
                }
                _ => return Ok(described(url, headers, status.is_success())),
            }
        }
        Err(CatalogError::Source(format!("{url} redirects without end")))
    }
}

/// The split model that a file is a part of: what stands around its number in `NAME-00001-of-00003.gguf`.
pub(crate) fn split_model(file: &str) -> Option<(&str, &str)> {
    let (before, count) = file.rsplit_once("-of-")?;
    let (stem, number) = before.rsplit_once('-')?;
    let count = count.strip_suffix(".gguf")?;
    let is_five = |text: &&str| text.len() == 5 && is_number(text);
    [number, count].iter().all(is_five).then_some((stem, count))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl Listing {
    /// The files of the listing that `source` asks for.
    pub(super) fn wanted(&self, source: &HubSource) -> Result<Vec<&str>, CatalogError> {
        let has = |name: &str| self.files.iter().any(|file| file == name);
        if let Some(wanted) = &source.file {
            let parts = self.parts_beside(wanted);
            return if parts.is_empty() { Err(self.missing(source, wanted)) } else { Ok(parts) };
        }
        let mut wanted: Vec<&str> = SIDE_FILES.into_iter().filter(|name| has(name)).collect();
        if has(WEIGHTS) {
            wanted.push(WEIGHTS);
        } else if has(SHARD_INDEX) {
            wanted.push(SHARD_INDEX);
            wanted.extend(self.files.iter().filter(|file| is_shard(file)).map(String::as_str));
        } else {
            return self.only_gguf(source);
        }
        for needed in ["config.json", "tokenizer.json"] {
            if !has(needed) {
                return Err(self.missing(source, needed));
            }
        }
        Ok(wanted)
    }

    /// The file of this name, and of a split model all parts, in order.
    fn parts_beside(&self, wanted: &str) -> Vec<&str> {
        let is_wanted = |file: &&str| {
            *file == wanted || split_model(file).is_some_and(|of| split_model(wanted) == Some(of))
        };
        let mut files: Vec<&str> = self.files.iter().map(String::as_str).filter(is_wanted).collect();
        files.sort_unstable();
        if files.contains(&wanted) { files } else { vec![] }
    }

    /// The GGUF file of a repository that has exactly one and no safetensors; a split model is one.
    fn only_gguf(&self, source: &HubSource) -> Result<Vec<&str>, CatalogError> {
        let gguf: Vec<&str> = self.files.iter().map(String::as_str).filter(|file| is_gguf(file)).collect();
        let repository = &source.repository;
        let parts = gguf.first().map_or(vec![], |first| self.parts_beside(first));
        match gguf[..] {
            [_, ..] if parts.len() == gguf.len() => Ok(parts),
            [] => Err(CatalogError::Source(format!("{repository} has neither {WEIGHTS} nor a GGUF file"))),
            _ => Err(CatalogError::Source(format!(
                "{repository} has several GGUF files; name one as {repository}:FILE: {}",
                gguf.join(", "),
            ))),
        }
    }

    fn missing(&self, source: &HubSource, file: &str) -> CatalogError {
        let mut similar: Vec<&str> =
            self.files.iter().map(String::as_str).filter(|name| is_gguf(name)).collect();
        if similar.is_empty() {
            similar = self.files.iter().map(String::as_str).take(20).collect();
        }
        CatalogError::Source(format!(
            "{} at {} has no {file}; it has {}",
            source.repository,
            source.revision,
            similar.join(", ")
        ))
    }
}

fn is_gguf(file: &str) -> bool {
    file.to_ascii_lowercase().ends_with(".gguf")
}

/// Whether `file` is like `model-00001-of-00002.safetensors`.
fn is_shard(file: &str) -> bool {
    let middle = file.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
    let numbers = middle.and_then(|middle| middle.split_once("-of-"));
    numbers.is_some_and(|(index, count)| is_number(index) && is_number(count))
}

/// `final_answer` says that the headers are those of the content itself, not of a redirect.
fn described(url: String, headers: &HeaderMap, final_answer: bool) -> Remote {
    let linked = text(headers, "x-linked-size");
    let size = linked.or_else(|| text(headers, header::CONTENT_LENGTH.as_str()).filter(|_| final_answer));
    let tag = text(headers, "x-linked-etag").or_else(|| text(headers, header::ETAG.as_str()));
    Remote {
        url,
        bytes: size.and_then(|size| size.parse().ok()),
        checksum: tag.and_then(Checksum::from_entity_tag),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// `https://host:port` of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url, |end| &url[..host + end])
}

/// A path for a URL: everything but letters, digits and `-._~/` in percent notation.
fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
