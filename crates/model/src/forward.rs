use sketchkv_cache::Cache;

/// One sequence of a batch: the tokens to run now, over the cache that holds what came before.
pub struct Sequence<'a> {
    /// At least one token.
    pub tokens: &'a [u32],
    /// The sequence's cache.
    pub cache: &'a mut Cache,
}

/// Which logits a forward pass computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// None: only the caches advance.
    None,
    /// Those of each sequence's last token.
    Last,
    /// Those of every token.
    All,
}

/// The buffers of a forward pass, grown once and used again.
#[derive(Default)]
pub struct Workspace {
    logits: Vec<f32>,
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn logits(&self) -> &[f32] {
        &self.logits
    }
}
