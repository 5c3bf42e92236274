//! A small model's worth of random queries, keys and values, and attention by its formula in f64.
#![allow(dead_code, missing_docs, unreachable_pub)]

use half::f16;
use sketchkv_cache::{AttentionWorkspace, Cache, CacheShape, LayerShape, OutputProjection, Rotation, Spec};
use sketchkv_kernels::ThreadPool;
use sketchkv_sketch::SplitMix64;

pub fn shape() -> CacheShape {
    let layer = LayerShape { rotation: Some(rotation(10_000.0)), ..LayerShape::new(6, 2, 64) };
    let output =
        OutputProjection::new(|| output_grams(2 * 2, 64).chunks(2 * 64 * 64).map(<[f32]>::to_vec).collect());
    CacheShape { output: Some(output), ..CacheShape::uniform(2, layer, 4096) }
}

/// Of heads of 64 dimensions.
fn rotation(base: f32) -> Rotation {
    Rotation { inverse_frequencies: (0..32).map(|i| base.powf(-(i as f32) / 32.0)).collect() }
}

/// Sums of W_hᵀ·W_h for 24 rows of W, some dimensions of which matter much more than others, `[kv_head][d][d]`.
pub fn output_grams(kv_heads: usize, d: usize) -> Vec<f32> {
    let mut random = Random::new(99);
    let mut grams = vec![0.0; kv_heads * d * d];
    for gram in grams.chunks_exact_mut(d * d) {
        for _ in 0..24 {
            let w: Vec<f32> = (0..d).map(|i| random.normal() * if i % 5 == 0 { 3.0 } else { 0.3 }).collect();
            for (row, x) in gram.chunks_exact_mut(d).zip(&w) {
                row.iter_mut().zip(&w).for_each(|(g, y)| *g += x * y);
            }
        }
    }
    grams
}

/// Numbers that look like those of a trained head: a few outlier channels, keys that drift, repeated content.
pub struct Stream {
    pub shape: CacheShape,
    pub q: Vec<Vec<f32>>,
    pub k: Vec<Vec<f32>>,
    pub v: Vec<Vec<f32>>,
    pub tokens: usize,
}

pub struct Random(SplitMix64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(SplitMix64::new(seed))
    }

    pub fn uniform(&mut self) -> f32 {
        (self.0.next_u64() >> 40) as f32 / (1u64 << 24) as f32
    }

    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}

impl Stream {
    pub fn new(shape: &CacheShape, tokens: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let channel = |i: usize| if i % 13 == 3 { 4.0 } else { 0.5 };
        let mut make = |rows: fn(&LayerShape) -> (usize, usize), offset: f32| -> Vec<Vec<f32>> {
            let mut layer = |layer: &LayerShape| {
                let (rows, d) = rows(layer);
                (0..tokens * rows * d).map(|i| random.normal() + offset * channel(i % d)).collect()
            };
            shape.layers.iter().map(&mut layer).collect()
        };
        Stream {
            shape: shape.clone(),
            q: make(|layer| (layer.heads, layer.key_dim), 0.3),
            k: make(|layer| (layer.kv_heads, layer.key_dim), 1.0),
            v: make(|layer| (layer.kv_heads, layer.value_dim), 0.1),
            tokens,
        }
    }

    /// Two KV heads of layer 12 of SmolLM2 over 330 tokens of a novel; `scripts/golden/cache_stream.py` wrote them.
    pub fn real() -> Self {
        let layer = LayerShape { rotation: Some(rotation(100_000.0)), ..LayerShape::new(6, 2, 64) };
        let output = OutputProjection::new(|| vec![output_grams(2, 64)]);
        let shape = CacheShape { output: Some(output), ..CacheShape::uniform(1, layer.clone(), 4096) };
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/smollm2-layer12.f16");
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut all = bytes.chunks_exact(2).map(|x| f16::from_le_bytes([x[0], x[1]]).to_f32());
        let tokens = bytes.len() / 2 / (layer.heads + 2 * layer.kv_heads) / layer.key_dim;
        let mut next = |rows: usize| vec![all.by_ref().take(tokens * rows * layer.key_dim).collect()];
        let (q, k, v) = (next(layer.heads), next(layer.kv_heads), next(layer.kv_heads));
        Stream { shape, q, k, v, tokens }
    }

    pub fn rows<'a>(&self, all: &'a [f32], first: usize, count: usize) -> &'a [f32] {
        let row = all.len() / self.tokens;
        &all[first * row..(first + count) * row]
    }

    /// Runs tokens `first .. first + count` through every layer of a cache in chunks; returns the outputs per layer.
    pub fn run(
        &self,
        cache: &mut Cache,
        pool: &ThreadPool,
        first: usize,
        count: usize,
        chunk: usize,
    ) -> Vec<Vec<f32>> {
        let mut outputs = vec![vec![]; self.shape.layers.len()];
        let mut workspace = AttentionWorkspace::new();
        let mut at = first;
        while at < first + count {
            let n = chunk.min(first + count - at);
            let mut pass = cache.begin(n, &mut workspace).unwrap();
            for (layer, outputs) in outputs.iter_mut().enumerate() {
                let shape = &self.shape.layers[layer];
                let mut out = vec![f32::NAN; n * shape.heads * shape.value_dim];
                let [q, k, v] = [&self.q, &self.k, &self.v].map(|all| self.rows(&all[layer], at, n));
                pass.attend(layer, pool, &mut workspace, q, k, v, &mut out).unwrap();
                outputs.extend_from_slice(&out);
            }
            pass.finish(pool, &mut workspace).unwrap();
            at += n;
        }
        outputs
    }

    /// Attention of one query head at `token` over the given positions, in f64.
    pub fn attention(&self, layer: usize, head: usize, token: usize, positions: &[usize]) -> Vec<f64> {
        let shape = &self.shape.layers[layer];
        let (d, e, kv) = (shape.key_dim, shape.value_dim, shape.kv_heads);
        let kv_head = head / shape.group();
        let q = &self.q[layer][(token * shape.heads + head) * d..][..d];
        let row = |p: usize| p * kv + kv_head;
        let logits: Vec<f64> = positions
            .iter()
            .map(|&p| {
                let k = &self.k[layer][row(p) * d..][..d];
                let product = q.iter().zip(k).map(|(q, k)| *q as f64 * *k as f64).sum::<f64>();
                let logit = product * shape.scale as f64;
                shape.softcap.map_or(logit, |cap| cap as f64 * (logit / cap as f64).tanh())
            })
            .collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = logits.iter().map(|l| (l - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut out = vec![0.0; e];
        for (w, &p) in weights.iter().zip(positions) {
            let v = &self.v[layer][row(p) * e..][..e];
            out.iter_mut().zip(v).for_each(|(o, v)| *o += w / sum * *v as f64);
        }
        out
    }
}

pub fn cache(shape: &CacheShape, spec: &str) -> Cache {
    let spec: Spec = spec.parse().unwrap_or_else(|e| panic!("{e}"));
    Cache::new(shape.clone(), &spec, 1).unwrap_or_else(|e| panic!("{e}"))
}

pub fn largest_difference(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (*a as f64 - b).abs())
        .fold(0.0, |m, x| if x.is_nan() { f64::NAN } else { m.max(x) })
}
