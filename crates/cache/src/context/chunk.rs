//! The tokens of a forward pass, as one KV head sees them.

/// The queries of a chunk that one KV head answers.
#[derive(Clone, Copy)]
pub struct GroupQueries<'a> {
    q: &'a [f32],
    stride: usize,
    offset: usize,
    len: usize,
    tokens: usize,
    position: usize,
}

impl<'a> GroupQueries<'a> {
    /// Of KV head `kv_head` among `q`, `[token][head][key_dim]`; a group of heads is `len` numbers, the first token is at
    /// `position`.
    pub(crate) fn new(q: &'a [f32], kv_heads: usize, kv_head: usize, len: usize, position: usize) -> Self {
        let stride = kv_heads * len;
        GroupQueries { q, stride, offset: kv_head * len, len, tokens: q.len() / stride, position }
    }

    /// The queries of one token of the chunk, `[query][key_dim]`, rotated, unscaled.
    pub fn token(&self, token: usize) -> &'a [f32] {
        &self.q[token * self.stride + self.offset..][..self.len]
    }

    /// Number of tokens in the chunk, at least one.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Position of the first of them.
    pub fn position(&self) -> usize {
        self.position
    }
}

/// Some queries of a pass that one KV head answered, and what all it saw came to.
#[derive(Clone, Copy)]
pub struct Sample<'a> {
    /// `[query][1 + key_dim]`: the logarithm of the sum, then the query.
    rows: &'a [f32],
    key_dim: usize,
}

impl<'a> Sample<'a> {
    pub(crate) fn new(rows: &'a [f32], key_dim: usize) -> Self {
        Sample { rows, key_dim }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.rows.len() / (1 + self.key_dim)
    }

    /// Each query, `[key_dim]`, rotated and scaled, and ln Σ e^logit over all that it saw.
    pub fn queries(&self) -> impl Iterator<Item = (&'a [f32], f32)> {
        self.rows.chunks_exact(1 + self.key_dim).map(|row| (&row[1..], row[0]))
    }

    /// Which of `rows` queries are taken, where `most` are wanted: every so-manieth, the last among them.
    pub(crate) fn takes(row: usize, rows: usize, most: usize) -> bool {
        most > 0 && (rows - 1 - row).is_multiple_of(rows.div_ceil(most))
    }
}

/// The keys and values of a chunk, as one KV head sees them.
#[derive(Clone, Copy)]
pub(crate) struct NewTokens<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    kv_heads: usize,
    kv_head: usize,
    key_dim: usize,
    value_dim: usize,
    /// How many there are.
    pub(crate) count: usize,
    /// Position of the first.
    pub(crate) position: usize,
}

impl<'a> NewTokens<'a> {
    /// Keys are `[token][kv_head][key_dim]`, values `[token][kv_head][value_dim]`; the first token is at `position`.
    pub(crate) fn new(
        keys: &'a [f32],
        values: &'a [f32],
        (kv_heads, kv_head): (usize, usize),
        count: usize,
        position: usize,
    ) -> Self {
        let width = |all: &[f32]| all.len() / (kv_heads * count.max(1));
        NewTokens {
            keys,
            values,
            kv_heads,
            kv_head,
            key_dim: width(keys),
            value_dim: width(values),
            count,
            position,
        }
    }

    /// Those from number `first` on.
    pub(crate) fn after(self, first: usize) -> Self {
        NewTokens {
            keys: &self.keys[first * self.kv_heads * self.key_dim..],
            values: &self.values[first * self.kv_heads * self.value_dim..],
            count: self.count - first,
            position: self.position + first,
            ..self
        }
    }

    pub(crate) fn key(&self, token: usize) -> &'a [f32] {
        &self.keys[(token * self.kv_heads + self.kv_head) * self.key_dim..][..self.key_dim]
    }

    pub(crate) fn value(&self, token: usize) -> &'a [f32] {
        &self.values[(token * self.kv_heads + self.kv_head) * self.value_dim..][..self.value_dim]
    }

    /// All values from this head's first on, and the distance from one token's to the next.
    pub(crate) fn values_strided(&self) -> (&'a [f32], usize) {
        (&self.values[self.kv_head * self.value_dim..], self.kv_heads * self.value_dim)
    }

    /// The position after the last of them.
    pub(crate) fn end(&self) -> usize {
        self.position + self.count
    }
}
