//! Sessions in files: a cache, and what the program knows of the text it has seen.
//!
//! Layout: the magic `SKVSESS1`, the SHA-256 of what follows, the length of a header (u64, little-endian), the header in
//! JSON, and the cache as [`Cache::to_bytes`] writes it.

use crate::{failure::usage, output};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sketchkv_cache::{Cache, Spec};
use sketchkv_model::{ChatMessage, Model};
use std::{io::ErrorKind, path::Path};

const MAGIC: &[u8; 8] = b"SKVSESS1";
const DIGEST: usize = 32;

/// What is known of the text that a cache has seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Text {
    /// What the cache has seen, followed by `pending`; empty unless it is a conversation.
    pub(crate) transcript: String,
    /// Tokens that were generated but not yet run through the model.
    pub(crate) pending: Vec<u32>,
    /// Of a conversation.
    pub(crate) messages: Vec<ChatMessage>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    model: String,
    model_hash: String,
    #[serde(flatten)]
    text: Text,
}

/// Reads a session of this model, if there is one, for a cache of `spec` unless it is left open.
///
/// # Errors
/// When the file cannot be read, is damaged, or belongs to another model or cache.
pub(crate) fn load(path: &Path, model: &Model, spec: Option<&Spec>) -> Result<Option<(Text, Cache)>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let (text, cache) =
        parse(&bytes, model).with_context(|| format!("cannot go on with the session {}", path.display()))?;
    if let Some(spec) = spec.filter(|spec| spec.to_string() != cache.spec().to_string()) {
        return Err(usage(format!(
            "the session {} has the cache `{}`, not `{spec}`: leave --kv out, or begin another session",
            path.display(),
            cache.spec()
        )));
    }
    Ok(Some((text, cache)))
}

fn parse(bytes: &[u8], model: &Model) -> Result<(Text, Cache)> {
    let body = bytes.strip_prefix(MAGIC).filter(|body| body.len() >= DIGEST + 8);
    let Some((digest, body)) = body.map(|body| body.split_at(DIGEST)) else {
        bail!("the file is no session of sketchkv");
    };
    if Sha256::digest(body)[..] != *digest {
        bail!("the file is damaged: its checksum is wrong");
    }
    let (length, body) = body.split_at(8);
    let length = u64::from_le_bytes(length.try_into()?) as usize;
    let (header, cache) = body.split_at_checked(length).context("the file is damaged")?;
    let header: Header = serde_json::from_slice(header).context("the file is damaged")?;
    let hash = model.content_hash()?;
    if header.model_hash != hash {
        return Err(usage(format!(
            "it was begun with the model {}, and this is {} with other weights",
            header.model,
            model.config().name
        )));
    }
    Ok((header.text, Cache::from_bytes(cache, model.cache_shape())?))
}

/// Writes a session, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn save(path: &Path, model: &Model, text: Text, cache: &Cache) -> Result<()> {
    let header = Header { model: model.config().name.clone(), model_hash: model.content_hash()?, text };
    let header = serde_json::to_vec(&header)?;
    let mut body = (header.len() as u64).to_le_bytes().to_vec();
    body.extend(header);
    body.extend(cache.to_bytes());
    let bytes = [&MAGIC[..], &Sha256::digest(&body)[..], &body].concat();
    output::file(path, &bytes)
}
