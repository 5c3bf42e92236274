//! What the caches are tried on: text of the user's own, and tasks made on the fly.

mod parquet;
mod text;

pub use text::{Corpus, TextSample};
