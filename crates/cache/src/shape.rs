use std::fmt;
use std::sync::{Arc, LazyLock};

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
    /// What becomes of values after attention; only the budget `critical` asks for it.
    pub output: Option<OutputProjection>,
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

type Compute = Box<dyn FnOnce() -> Vec<f32> + Send>;

/// How much values matter once a model's output projection has been applied to them; computed when first asked for, and
/// shared by all caches of the model.
#[derive(Clone)]
pub struct OutputProjection {
    grams: Arc<LazyLock<Vec<f32>, Compute>>,
}

impl OutputProjection {
    /// `grams` gives `[layer][kv_head][head_dim][head_dim]`, the sum of W_hᵀ·W_h over the query heads h of the KV head,
    /// where W_h `[hidden][head_dim]` are the columns of the output projection that multiply the output of h.
    pub fn new(grams: impl FnOnce() -> Vec<f32> + Send + 'static) -> Self {
        OutputProjection { grams: Arc::new(LazyLock::new(Box::new(grams))) }
    }

    /// √(Σ_h ‖W_h·v‖²) for a value of the `index`-th KV head of all layers.
    pub(crate) fn norm(&self, index: usize, value: &[f32]) -> f32 {
        let d = value.len();
        let gram = &self.grams[index * d * d..][..d * d];
        let dot = |row: &[f32]| row.iter().zip(value).map(|(g, v)| g * v).sum::<f32>();
        let square: f32 = gram.chunks_exact(d).zip(value).map(|(row, v)| dot(row) * v).sum();
        square.max(0.0).sqrt()
    }
}

impl fmt::Debug for OutputProjection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutputProjection")
    }
}

/// The same one, not an equal one.
impl PartialEq for OutputProjection {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.grams, &other.grams)
    }
}
