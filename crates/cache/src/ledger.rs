/// The itemised count of the bytes a cache takes. All fields in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Encoded keys of live slots.
    pub keys: usize,
    /// Encoded values of live slots.
    pub values: usize,
    /// Scales, zero points and norms of the codes.
    pub scales: usize,
    /// Positions of the slots.
    pub positions: usize,
    /// Scores and other per-slot state of the `keep`.
    pub scores: usize,
    /// Codes and bounds of the `read` index.
    pub codes: usize,
    /// Fixed-size sketches of the `keep`.
    pub sketches: usize,
    /// State of the `tail`.
    pub tail: usize,
    /// Page tables and other bookkeeping.
    pub tables: usize,
    /// Allocated slots that hold no token.
    pub slack: usize,
}

impl Ledger {
    /// Every item by name, in bytes.
    pub fn items(&self) -> [(&'static str, usize); 10] {
        let Ledger { keys, values, scales, positions, scores, codes, sketches, tail, tables, slack } = *self;
        [
            ("keys", keys),
            ("values", values),
            ("scales", scales),
            ("positions", positions),
            ("scores", scores),
            ("codes", codes),
            ("sketches", sketches),
            ("tail", tail),
            ("tables", tables),
            ("slack", slack),
        ]
    }

    /// The sum of all items, in bytes.
    pub fn total(&self) -> usize {
        self.items().iter().map(|(_, bytes)| bytes).sum()
    }
}
