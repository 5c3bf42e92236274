//! How much a cache of some spec takes for a model, found by filling one.

use anyhow::Result;
use sketchkv_cache::{Cache, CacheShape, Ledger, Spec};
use sketchkv_eval::Rng;
use sketchkv_kernels::ThreadPool;

/// Tokens taken in at once, as in a prefill.
const CHUNK: usize = 512;

/// The ledger of a cache of `spec` after `tokens` tokens of noise, for a model of this `shape`.
///
/// Which tokens a method keeps depends on the text, how many bytes it takes does not.
///
/// # Errors
/// When the spec does not fit the model.
pub(crate) fn after(shape: &CacheShape, spec: &Spec, tokens: usize, pool: &ThreadPool) -> Result<Ledger> {
    let mut cache = Cache::new(shape.clone(), spec, 0)?;
    let mut random = Rng::new(0);
    let mut noise = |count: usize| -> Vec<f32> { (0..count).map(|_| random.unit() as f32 - 0.5).collect() };
    // The widest chunk is made once; every layer and chunk sees the same numbers.
    let (queries, keys) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let widest = tokens.min(CHUNK);
    let (q, k, v) = (noise(widest * queries), noise(widest * keys), noise(widest * keys));
    let mut out = vec![0.0; widest * queries];
    let mut left = tokens;
    while left > 0 {
        let chunk = left.min(CHUNK);
        for layer in 0..shape.layers {
            let (queries, keys) = (chunk * queries, chunk * keys);
            cache.layer(layer, pool).attend(&q[..queries], &k[..keys], &v[..keys], &mut out[..queries]);
        }
        cache.advance(chunk);
        left -= chunk;
    }
    Ok(cache.ledger())
}
