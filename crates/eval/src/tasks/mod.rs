//! What the caches are tried on: text of the user's own, and tasks made on the fly from a seed.

mod kind;
mod parquet;
mod prose;
mod rule;
mod task;
mod text;
mod words;

pub use kind::TaskKind;
pub use prose::NOVEL;
pub use rule::Rule;
pub use task::{Answer, Awareness, Task, TaskMaker};
pub use text::{Corpus, TextSample};
