//! How much a cache of some spec takes for a model, found by filling one.

use crate::{Footprint, Rng};
use sketchkv_cache::{AttentionWorkspace, Cache, CacheError, CacheShape, LayerShape, OutputProjection, Spec};
use sketchkv_kernels::ThreadPool;

/// Tokens taken in at once, as in a prefill.
const CHUNK: usize = 512;

/// Tokens after which stores of every kind begin anew with a page.
const PAGE: usize = 64;

/// Up to so many tokens a cache under a cap is filled to see what it takes; beyond, it is at its cap, or a forecast tells.
const FILLED: usize = 1024;

/// What a cache of `spec` takes after `tokens` tokens of noise, for a model of this `shape`: which tokens a method keeps depends on
/// the text, how many bytes it takes does not. Takes no longer for many tokens than for some.
///
/// # Errors
/// When the spec does not fit the model.
pub fn footprint_after(
    shape: &CacheShape,
    spec: &Spec,
    tokens: usize,
    pool: &ThreadPool,
) -> Result<Footprint, CacheError> {
    let cache = Cache::new(with_output(shape), spec, 0)?;
    let bytes = match spec.evicts() {
        false => uncapped_bytes(shape, spec, tokens, pool)?,
        true if tokens > FILLED => cache.forecast(tokens).bytes,
        true => {
            let mut filling = Filling::new(shape, spec)?;
            filling.fill(tokens, pool)?;
            filling.cache.ledger().total()
        }
    };
    Ok(Footprint::at(&cache, tokens, bytes))
}

/// Bytes that a cache of `spec`, which evicts nothing, takes after `tokens` tokens.
///
/// Every page takes the same: beyond two chunks the bytes are reckoned from how they grow from one to the next.
///
/// # Errors
/// When the spec does not fit the model.
pub(crate) fn uncapped_bytes(
    shape: &CacheShape,
    spec: &Spec,
    tokens: usize,
    pool: &ThreadPool,
) -> Result<usize, CacheError> {
    let mut filling = Filling::new(shape, spec)?;
    if tokens < 2 * CHUNK + PAGE {
        filling.fill(tokens, pool)?;
        return Ok(filling.cache.ledger().total());
    }
    let first = CHUNK + tokens % PAGE;
    filling.fill(first, pool)?;
    let before = filling.cache.ledger().total();
    filling.fill(CHUNK, pool)?;
    let growth = filling.cache.ledger().total() - before;
    Ok(before + (growth as f64 * (tokens - first) as f64 / CHUNK as f64).round() as usize)
}

/// A cache that takes in noise, the same numbers in every layer and chunk.
struct Filling {
    cache: Cache,
    workspace: AttentionWorkspace,
    /// As much as the widest layer takes of queries, keys or values.
    noise: Vec<f32>,
    out: Vec<f32>,
}

impl Filling {
    fn new(shape: &CacheShape, spec: &Spec) -> Result<Self, CacheError> {
        let mut random = Rng::new(0);
        let widest = |layer: &LayerShape| layer.heads * layer.key_dim.max(layer.value_dim);
        let numbers = CHUNK * shape.layers.iter().map(widest).max().unwrap_or(0);
        let noise = (0..numbers).map(|_| random.unit() as f32 - 0.5).collect();
        let cache = Cache::new(with_output(shape), spec, 0)?;
        Ok(Filling { cache, workspace: AttentionWorkspace::new(), noise, out: vec![0.0; numbers] })
    }

    fn fill(&mut self, tokens: usize, pool: &ThreadPool) -> Result<(), CacheError> {
        let Filling { cache, workspace, noise, out } = self;
        let shape = cache.shape().clone();
        let mut left = tokens;
        while left > 0 {
            let chunk = left.min(CHUNK);
            let mut pass = cache.begin(chunk, workspace)?;
            for (index, layer) in shape.layers.iter().enumerate() {
                let q = &noise[..chunk * layer.heads * layer.key_dim];
                let k = &noise[..chunk * layer.kv_heads * layer.key_dim];
                let v = &noise[..chunk * layer.kv_heads * layer.value_dim];
                let out = &mut out[..chunk * layer.heads * layer.value_dim];
                pass.attend(index, pool, workspace, q, k, v, out)?;
            }
            pass.finish(pool, workspace)?;
            left -= chunk;
        }
        Ok(())
    }
}

/// `shape` with some output projection: bytes do not depend on what a model makes of values, and its weights need not be loaded to
/// count them.
fn with_output(shape: &CacheShape) -> CacheShape {
    let mut shape = shape.clone();
    let blank = blank_output(&shape.layers);
    shape.output.get_or_insert(blank);
    shape
}

/// An output projection that makes nothing of any value.
fn blank_output(layers: &[LayerShape]) -> OutputProjection {
    let gram = |layer: &LayerShape| layer.kv_heads * layer.value_dim * layer.value_dim;
    let sizes: Vec<usize> = layers.iter().map(gram).collect();
    OutputProjection::new(move || sizes.into_iter().map(|size| vec![0.0; size]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a cache after tokens of noise: which a method keeps depends on the text, how many bytes it takes does not.
    fn filled(shape: &CacheShape, spec: &Spec, tokens: usize, pool: &ThreadPool) -> Cache {
        let mut filling = Filling::new(shape, spec).unwrap();
        filling.fill(tokens, pool).unwrap();
        filling.cache
    }

    #[test]
    fn what_is_told_of_many_tokens_is_what_a_filled_cache_takes() {
        let shape = CacheShape::uniform(2, LayerShape::new(4, 2, 64), 4096);
        let pool = ThreadPool::new(2);
        for spec in ["full", "full+kivi4", "auto", "window@25%", "h2o+q8@40%", "auto@100KiB", "full+topk"] {
            let spec: Spec = spec.parse().unwrap();
            for tokens in [100, 1087, 2500] {
                let cache = filled(&shape, &spec, tokens, &pool);
                let (took, told) =
                    (Footprint::of(&cache), footprint_after(&shape, &spec, tokens, &pool).unwrap());
                let off = told.kv_bytes as f64 / took.kv_bytes as f64 - 1.0;
                assert!(off.abs() < 0.05, "{spec} {tokens}: {told:?} for {took:?}");
                assert_eq!((told.asked_bytes, told.floor_bytes), (took.asked_bytes, took.floor_bytes));
            }
        }
    }

    #[test]
    fn what_is_reckoned_is_what_a_filled_cache_takes() {
        let shape = CacheShape::uniform(2, LayerShape::new(4, 2, 64), 4096);
        let pool = ThreadPool::new(2);
        for spec in ["full", "full+q8", "full+q4h", "full+k=kivi4+v=q4"] {
            let spec: Spec = spec.parse().unwrap();
            for tokens in [100, 1087, 1088, 2500, 3001] {
                let filled = filled(&shape, &spec, tokens, &pool).ledger().total() as f64;
                let reckoned = uncapped_bytes(&shape, &spec, tokens, &pool).unwrap() as f64;
                assert!((reckoned / filled - 1.0).abs() < 0.005, "{spec} {tokens}: {reckoned} for {filled}");
            }
        }
    }
}
