//! A small model's worth of random queries, keys and values, and attention by its formula in f64.
#![allow(dead_code, missing_docs, unreachable_pub)]

use half::f16;
use sketchkv_cache::{Cache, CacheShape, OutputProjection, Rope, Spec};
use sketchkv_kernels::ThreadPool;

pub fn shape() -> CacheShape {
    let inverse_frequencies = (0..32).map(|i| 10_000f32.powf(-(i as f32) / 32.0)).collect();
    CacheShape {
        layers: 2,
        heads: 6,
        kv_heads: 2,
        head_dim: 64,
        context: 4096,
        rope: Some(Rope { inverse_frequencies }),
        output: Some(OutputProjection::new(|| output_grams(2 * 2, 64))),
    }
}

/// Sums of W_hᵀ·W_h for 24 rows of W, some dimensions of which matter much more than others, `[kv_head][d][d]`.
pub fn output_grams(kv_heads: usize, d: usize) -> Vec<f32> {
    let mut random = Random(99);
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

pub struct Random(pub u64);

impl Random {
    pub fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e3779b97f4a7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d049bb133111eb);
        ((x ^ (x >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }

    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}

impl Stream {
    pub fn new(shape: &CacheShape, tokens: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let (d, kv, heads) = (shape.head_dim, shape.kv_heads, shape.heads);
        let channel: Vec<f32> = (0..d).map(|i| if i % 13 == 3 { 4.0 } else { 0.5 }).collect();
        let mut make = |rows: usize, offset: f32, scale: f32| -> Vec<Vec<f32>> {
            (0..shape.layers)
                .map(|_| {
                    (0..tokens * rows * d)
                        .map(|i| random.normal() * scale + offset * channel[i % d])
                        .collect()
                })
                .collect()
        };
        Stream {
            shape: shape.clone(),
            q: make(heads, 0.3, 1.0),
            k: make(kv, 1.0, 1.0),
            v: make(kv, 0.1, 1.0),
            tokens,
        }
    }

    /// Two KV heads of layer 12 of SmolLM2 over 330 tokens of a novel; `scripts/golden/cache_stream.py` wrote them.
    pub fn real() -> Self {
        let shape = CacheShape {
            layers: 1,
            rope: Some(Rope {
                inverse_frequencies: (0..32).map(|i| 100_000f32.powf(-(i as f32) / 32.0)).collect(),
            }),
            output: Some(OutputProjection::new(|| output_grams(2, 64))),
            ..shape()
        };
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/smollm2-layer12.f16");
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut all = bytes.chunks_exact(2).map(|x| f16::from_le_bytes([x[0], x[1]]).to_f32());
        let tokens = bytes.len() / 2 / (shape.heads + 2 * shape.kv_heads) / shape.head_dim;
        let mut next = |rows: usize| vec![all.by_ref().take(tokens * rows * shape.head_dim).collect()];
        let (q, k, v) = (next(shape.heads), next(shape.kv_heads), next(shape.kv_heads));
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
        let mut outputs = vec![vec![]; self.shape.layers];
        let mut at = first;
        while at < first + count {
            let n = chunk.min(first + count - at);
            for (layer, outputs) in outputs.iter_mut().enumerate() {
                let q = self.rows(&self.q[layer], at, n);
                let mut out = vec![f32::NAN; q.len()];
                let (k, v) = (self.rows(&self.k[layer], at, n), self.rows(&self.v[layer], at, n));
                cache.layer(layer, pool).attend(q, k, v, &mut out);
                outputs.extend_from_slice(&out);
            }
            cache.advance(n);
            at += n;
        }
        outputs
    }

    /// Attention of one query head at `token` over the given positions, in f64.
    pub fn attention(&self, layer: usize, head: usize, token: usize, positions: &[usize]) -> Vec<f64> {
        let (d, kv) = (self.shape.head_dim, self.shape.kv_heads);
        let kv_head = head / self.shape.group();
        let q = &self.q[layer][(token * self.shape.heads + head) * d..][..d];
        let at = |p: usize| (p * kv + kv_head) * d;
        let logits: Vec<f64> = positions
            .iter()
            .map(|&p| {
                let k = &self.k[layer][at(p)..][..d];
                q.iter().zip(k).map(|(q, k)| *q as f64 * *k as f64).sum::<f64>() / (d as f64).sqrt()
            })
            .collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = logits.iter().map(|l| (l - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut out = vec![0.0; d];
        for (w, &p) in weights.iter().zip(positions) {
            let v = &self.v[layer][at(p)..][..d];
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
