/// What the cache needs to know of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheShape {
    /// Number of layers.
    pub layers: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// KV heads per layer; divides `heads`.
    pub kv_heads: usize,
    /// Width of one key or value.
    pub head_dim: usize,
    /// The longest sequence the model was made for, in tokens.
    pub context: usize,
    /// How queries and keys were rotated before they reach the cache; `None` for learned positions.
    pub rope: Option<Rope>,
}

impl CacheShape {
    /// Query heads that share one KV head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Bytes an uncompressed f16 cache takes for one token over all layers.
    pub fn f16_bytes_per_token(&self) -> usize {
        self.layers * self.kv_heads * self.head_dim * 2 * 2
    }
}

/// Rotary position embedding in the half-split layout: dimension `i` turns with dimension
/// `i + inverse_frequencies.len()` by `position * inverse_frequencies[i]` radians; later dimensions do not turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Radians per position, one for each pair of dimensions.
    pub inverse_frequencies: Vec<f32>,
}
