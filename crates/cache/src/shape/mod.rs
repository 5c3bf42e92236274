//! What the cache needs to know of a model: its layers, and what is known of its attention beforehand.

mod scorer;

pub(crate) use scorer::{BINS, ByDistance, Distances, NEAR, bin_of};
pub use scorer::{HeadScorer, Scorer, Sensitivity};

use crate::CacheError;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// What the cache needs to know of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheShape {
    /// Its layers, each with a shape of its own.
    pub layers: Vec<LayerShape>,
    /// The longest sequence the model was made for, in tokens.
    pub context: usize,
    /// What becomes of values after attention; only `critical` asks for it.
    pub output: Option<OutputProjection>,
    /// What is known of the model's attention beforehand; only `foreseen` asks for it, and does without.
    pub scorer: Option<Scorer>,
}

/// What the cache needs to know of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerShape {
    /// Query heads.
    pub heads: usize,
    /// KV heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one query or key.
    pub key_dim: usize,
    /// Width of one value.
    pub value_dim: usize,
    /// What the product of a query and a key is multiplied by: 1/√`key_dim` in most models.
    pub scale: f32,
    /// Logits x become c·tanh(x/c).
    pub softcap: Option<f32>,
    /// How many tokens a token sees, itself included; `None` for all before it.
    pub window: Option<usize>,
    /// How queries and keys were rotated before they reach the cache; `None` when they were not.
    pub rotation: Option<Rotation>,
    /// Whether the projection of keys adds a bias: a few channels may then be far larger than all others.
    pub biased_keys: bool,
}

impl LayerShape {
    /// A layer whose keys and values are `head_dim` wide, which sees everything and scales by 1/√`head_dim`.
    pub fn new(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        LayerShape {
            heads,
            kv_heads,
            key_dim: head_dim,
            value_dim: head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            softcap: None,
            window: None,
            rotation: None,
            biased_keys: false,
        }
    }

    /// Query heads that share one KV head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Bytes an uncompressed f16 cache takes for one token of this layer.
    pub fn f16_bytes_per_token(&self) -> usize {
        self.kv_heads * (self.key_dim + self.value_dim) * 2
    }

    /// How many of `seen` tokens the next one can still see.
    pub fn visible(&self, seen: usize) -> usize {
        self.window.map_or(seen, |window| seen.min(window.saturating_sub(1)))
    }

    fn check(&self, layer: usize) -> Result<(), CacheError> {
        let refuse = |what: String| Err(CacheError::Unsupported(format!("layer {layer} has {what}")));
        if self.kv_heads == 0 || self.heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return refuse(format!(
                "{} query heads over {} KV heads: every KV head needs the same number of query heads",
                self.heads, self.kv_heads
            ));
        }
        for dim in [self.key_dim, self.value_dim] {
            if dim == 0 || dim > 512 {
                return refuse(format!("heads of {dim} dimensions: 1 to 512 are supported"));
            }
        }
        if self.window == Some(0) {
            return refuse("a sliding window of no tokens: a token sees at least itself".to_owned());
        }
        if !self.scale.is_finite() || self.softcap.is_some_and(|cap| cap.is_nan() || cap <= 0.0) {
            return refuse(format!(
                "scale {} and softcap {:?}: both must be positive",
                self.scale, self.softcap
            ));
        }
        Ok(())
    }
}

impl CacheShape {
    /// A model of `layers` layers alike.
    pub fn uniform(layers: usize, layer: LayerShape, context: usize) -> Self {
        CacheShape { layers: vec![layer; layers], context, output: None, scorer: None }
    }

    /// Bytes an uncompressed f16 cache takes for one token, over the layers that still grow when `seen` tokens have been
    /// seen: a sliding layer does not beyond its window.
    pub fn f16_bytes(&self, seen: usize) -> usize {
        self.layers.iter().map(|layer| layer.visible(seen) * layer.f16_bytes_per_token()).sum()
    }

    /// Whether a layer has a sliding window.
    pub fn slides(&self) -> bool {
        self.layers.iter().any(|layer| layer.window.is_some())
    }

    /// What the model loses by what is taken from a KV head.
    pub(crate) fn sensitivity(&self, layer: usize, kv_head: usize) -> Sensitivity {
        let measured = self.scorer.as_ref().and_then(Scorer::sensitivities);
        measured.map_or(Sensitivity::TYPICAL, |all| all[layer][kv_head])
    }

    /// Heap bytes of the shape itself; rotations are counted once where layers share them.
    pub(crate) fn bytes(&self) -> usize {
        let mut seen: Vec<&Arc<[f32]>> = vec![];
        for rotation in self.layers.iter().filter_map(|layer| layer.rotation.as_ref()) {
            if !seen.iter().any(|known| Arc::ptr_eq(known, &rotation.inverse_frequencies)) {
                seen.push(&rotation.inverse_frequencies);
            }
        }
        let tables: usize = seen.iter().map(|table| 2 * size_of::<usize>() + size_of_val(&***table)).sum();
        self.layers.capacity() * size_of::<LayerShape>() + tables
    }

    pub(crate) fn check(&self) -> Result<(), CacheError> {
        if self.layers.is_empty() {
            return Err(CacheError::Unsupported("a model without layers".to_owned()));
        }
        self.layers.iter().enumerate().try_for_each(|(index, layer)| layer.check(index))
    }
}

/// Rotary position embedding in the half-split layout: dimension `i` turns with dimension
/// `i + inverse_frequencies.len()` by `position * inverse_frequencies[i]` radians; later dimensions do not turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotation {
    /// Radians per position, one for each pair of dimensions.
    pub inverse_frequencies: Arc<[f32]>,
}

impl Rotation {
    /// Sine and cosine of what the token at a position was turned by, of each pair of dimensions.
    pub(crate) fn turns(&self, position: usize) -> impl ExactSizeIterator<Item = (f32, f32)> {
        self.inverse_frequencies.iter().map(move |frequency| (position as f32 * frequency).sin_cos())
    }
}

/// ‖x‖
pub(crate) fn norm(x: &[f32]) -> f32 {
    x.iter().map(|x| x * x).sum::<f32>().sqrt()
}

/// Turns a vector back by the [turns](Rotation::turns) of its position.
pub(crate) fn turn_back(turns: impl ExactSizeIterator<Item = (f32, f32)>, x: &mut [f32]) {
    let (low, rest) = x.split_at_mut(turns.len());
    for ((x, y), (sin, cos)) in low.iter_mut().zip(rest).zip(turns) {
        (*x, *y) = (cos * *x + sin * *y, cos * *y - sin * *x);
    }
}

type Compute = Box<dyn FnOnce() -> Vec<Vec<f32>> + Send>;

/// How much values matter once a model's output projection has been applied to them; computed when first asked for, and
/// shared by all caches of the model.
#[derive(Clone)]
pub struct OutputProjection {
    grams: Arc<LazyLock<Vec<Vec<f32>>, Compute>>,
}

impl OutputProjection {
    /// `grams` gives, of each layer, `[kv_head][value_dim][value_dim]`, the sum of W_hᵀ·W_h over the query heads h of the
    /// KV head, where W_h `[hidden][value_dim]` are the columns of the output projection that multiply the output of h.
    pub fn new(grams: impl FnOnce() -> Vec<Vec<f32>> + Send + 'static) -> Self {
        OutputProjection { grams: Arc::new(LazyLock::new(Box::new(grams))) }
    }

    /// √(Σ_h ‖W_h·v‖²) for a value of a KV head.
    pub(crate) fn norm(&self, layer: usize, kv_head: usize, value: &[f32]) -> f32 {
        let d = value.len();
        let gram = &self.grams[layer][kv_head * d * d..][..d * d];
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
