//! The bytes of a session.
//!
//! Layout, numbers little-endian: `SKVSESS` and the version as a digit, the SHA-256 of what follows, the length of a header
//! (u64), the header in JSON, the number of logits (u64), the logits (f32), and the cache as [`Cache::to_bytes`] writes it.
//!
//! [`Cache::to_bytes`]: sketchkv_cache::Cache::to_bytes

use super::Unusable;
use crate::{conversation::Talk, generation::Rest};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const MAGIC: &[u8] = b"SKVSESS";
/// To be raised whenever older programs would misread what newer ones write.
const VERSION: u8 = b'2';
const DIGEST: usize = 32;

/// All of a session but logits and cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    /// The name of the model, for people, and what tells its weights from others.
    pub(super) model: String,
    pub(super) model_hash: String,
    pub(super) rest: Rest,
    /// Of a conversation.
    pub(super) talk: Option<Talk>,
}

/// The pieces of a file, in order.
pub(super) fn encode(header: &Header, logits: &[f32], cache: Vec<u8>) -> [Vec<u8>; 3] {
    let header = serde_json::to_vec(header).expect("texts and numbers can be written");
    let mut body = Vec::with_capacity(header.len() + 16 + 4 * logits.len());
    body.extend_from_slice(&(header.len() as u64).to_le_bytes());
    body.extend_from_slice(&header);
    body.extend_from_slice(&(logits.len() as u64).to_le_bytes());
    logits.iter().for_each(|logit| body.extend_from_slice(&logit.to_le_bytes()));
    let digest = Sha256::new().chain_update(&body).chain_update(&cache).finalize();
    [[MAGIC, &[VERSION], &digest[..]].concat(), body, cache]
}

/// Header, logits and the bytes of the cache.
pub(super) fn decode(bytes: &[u8]) -> Result<(Header, Vec<f32>, &[u8]), Unusable> {
    let unusable = |reason: &str| Unusable::Bytes(reason.to_owned());
    let foreign = || unusable("it is no session of sketchkv: name another file");
    let (&version, body) = bytes.strip_prefix(MAGIC).and_then(<[u8]>::split_first).ok_or_else(foreign)?;
    match version {
        VERSION => {}
        newer if newer > VERSION => {
            return Err(unusable("a newer sketchkv wrote it: go on with that one, or begin another session"));
        }
        b'0'..VERSION => return Err(unusable("an older sketchkv wrote it: begin another session")),
        _ => return Err(foreign()),
    }
    let (digest, body) = body.split_at_checked(DIGEST).ok_or_else(|| Unusable::damaged("it is cut short"))?;
    if Sha256::digest(body)[..] != *digest {
        return Err(Unusable::damaged("its checksum is wrong"));
    }
    let (header, body) = piece(body, 1)?;
    let (logits, cache) = piece(body, 4)?;
    let header =
        serde_json::from_slice(header).map_err(|error| Unusable::damaged(&format!("its header: {error}")))?;
    let logits = logits.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Ok((header, logits, cache))
}

/// A number, so many things of `size` bytes, and the rest.
fn piece(bytes: &[u8], size: u64) -> Result<(&[u8], &[u8]), Unusable> {
    let split = || {
        let (number, rest) = bytes.split_first_chunk::<8>()?;
        let length = u64::from_le_bytes(*number).checked_mul(size)?;
        rest.split_at_checked(usize::try_from(length).ok()?)
    };
    split().ok_or_else(|| Unusable::damaged("it is cut short"))
}
