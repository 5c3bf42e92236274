//! The bytes of all caches, never exceeded.

/// Bytes that were granted: every answer in the works holds the most that its cache can take until it asks again, shared
/// prefixes and idle sessions what they take.
///
/// Pages that caches share are counted with each: what is really taken is less, never more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pool {
    limit: usize,
    used: usize,
}

impl Pool {
    pub(crate) fn new(limit: usize) -> Self {
        Pool { limit, used: 0 }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Bytes that nobody holds.
    pub(crate) fn free(&self) -> usize {
        self.limit - self.used
    }

    /// Takes `bytes`, if they are free.
    #[must_use]
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.free();
        if fits {
            self.used += bytes;
        }
        fits
    }

    /// Gives `bytes` back.
    pub(crate) fn give(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.used, "more is given back than was taken");
        self.used = self.used.saturating_sub(bytes);
    }
}
