//! A name for the weights of a checkpoint, cheap enough to take on every run.

use super::Checkpoint;
use sha2::{Digest, Sha256};

/// Bytes hashed from the front of a file, and of each sample after it.
const FRONT: usize = 1 << 20;
const SAMPLE: usize = 4 << 10;
const SAMPLES: usize = 256;

/// SHA-256 over each weight file's length, first megabyte, last sample and 256 evenly spaced samples, in hexadecimal.
///
/// It tells files apart that were made differently; it is no proof against someone who builds two files to agree.
pub(crate) fn content_hash(checkpoint: &Checkpoint) -> String {
    let mut hash = Sha256::new();
    match checkpoint {
        Checkpoint::Gguf(gguf) => gguf.maps().for_each(|map| sample(&mut hash, map)),
        Checkpoint::Folder(folder) => {
            let mut config = folder.config().clone();
            config.sort_all_objects();
            hash.update(config.to_string());
            folder.weights().for_each(|bytes| sample(&mut hash, bytes));
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sample(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(&bytes[..bytes.len().min(FRONT)]);
    let last = bytes.len().saturating_sub(SAMPLE);
    for i in 1..=SAMPLES {
        let start = (last as u128 * i as u128 / SAMPLES as u128) as usize;
        hash.update(&bytes[start..(start + SAMPLE).min(bytes.len())]);
    }
}
