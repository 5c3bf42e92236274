use crate::{CacheError, CacheShape, Ledger, Spec};
use sketchkv_kernels::ThreadPool;

/// The cache of one sequence: all layers.
pub struct Cache {
    shape: CacheShape,
    spec: Spec,
    position: usize,
    layers: Vec<Layer>,
}

struct Layer {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Cache {
    /// An empty cache for a model of this `shape`.
    ///
    /// # Errors
    /// When the spec does not fit the shape or its cap is below the minimum.
    pub fn new(shape: CacheShape, spec: &Spec, _seed: u64) -> Result<Self, CacheError> {
        let layers = (0..shape.layers).map(|_| Layer { keys: vec![], values: vec![] }).collect();
        Ok(Cache { shape, spec: spec.clone(), position: 0, layers })
    }

    /// The spec this cache runs.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The shape of the model it serves.
    pub fn shape(&self) -> &CacheShape {
        &self.shape
    }

    /// Position of the next token, which is the number of tokens seen.
    pub fn position(&self) -> usize {
        self.position
    }

    /// One layer, ready to attend.
    pub fn layer<'a>(&'a mut self, layer: usize, pool: &'a ThreadPool) -> LayerCache<'a> {
        LayerCache { shape: &self.shape, layer: &mut self.layers[layer], pool }
    }

    /// Ends a forward pass over `tokens` tokens, after every layer has attended.
    pub fn advance(&mut self, tokens: usize) {
        self.position += tokens;
    }

    /// What the cache takes now.
    pub fn ledger(&self) -> Ledger {
        let bytes = |v: &Vec<f32>| v.len() * 4;
        Ledger {
            keys: self.layers.iter().map(|l| bytes(&l.keys)).sum(),
            values: self.layers.iter().map(|l| bytes(&l.values)).sum(),
            ..Ledger::default()
        }
    }

    /// Forgets every token.
    pub fn reset(&mut self) {
        self.position = 0;
        for layer in &mut self.layers {
            layer.keys.clear();
            layer.values.clear();
        }
    }
}

/// One layer of a [`Cache`], borrowed for a forward pass.
pub struct LayerCache<'a> {
    shape: &'a CacheShape,
    layer: &'a mut Layer,
    #[allow(dead_code)]
    pool: &'a ThreadPool,
}

impl LayerCache<'_> {
    /// Causal attention of a chunk of tokens over everything the cache remembers and the chunk itself;
    /// then takes the chunk's keys and values in.
    ///
    /// `q` and `out` are `[token][head][head_dim]`, `k` and `v` are `[token][kv_head][head_dim]`, rotated.
    /// The scale 1/√head_dim is applied here.
    pub fn attend(&mut self, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
        let CacheShape { heads, kv_heads, head_dim: d, .. } = *self.shape;
        let past = self.layer.keys.len() / (kv_heads * d);
        self.layer.keys.extend_from_slice(k);
        self.layer.values.extend_from_slice(v);
        let (keys, values) = (&self.layer.keys, &self.layer.values);
        let group = heads / kv_heads;
        for (row, (q, out)) in q.chunks_exact(d).zip(out.chunks_exact_mut(d)).enumerate() {
            let (token, kv_head) = (row / heads, row % heads / group);
            let slot = |i: usize| (i * kv_heads + kv_head) * d..(i * kv_heads + kv_head + 1) * d;
            let mut weights: Vec<f32> = (0..=past + token)
                .map(|i| q.iter().zip(&keys[slot(i)]).map(|(a, b)| a * b).sum::<f32>() / (d as f32).sqrt())
                .collect();
            let max = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            weights.iter_mut().for_each(|w| *w = (*w - max).exp());
            let sum: f32 = weights.iter().sum();
            out.fill(0.0);
            for (i, w) in weights.iter().enumerate() {
                out.iter_mut().zip(&values[slot(i)]).for_each(|(o, v)| *o += w / sum * v);
            }
        }
    }
}
