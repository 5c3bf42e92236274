//! Columns of many keys in one row of a table.

use super::Level;
use crate::hash::{LinearHash, column};

/// `columns[i] = column(hash(keys[i]), width)`.
///
/// # Panics
/// If the two slices differ in length.
pub(crate) fn columns(level: Level, hash: &LinearHash, width: u32, keys: &[u64], columns: &mut [u32]) {
    assert_eq!(keys.len(), columns.len());
    let _ = level;
    scalar(hash, width, keys, columns);
}

fn scalar(hash: &LinearHash, width: u32, keys: &[u64], columns: &mut [u32]) {
    for (out, &key) in columns.iter_mut().zip(keys) {
        *out = column(hash.hash(key), width);
    }
}
