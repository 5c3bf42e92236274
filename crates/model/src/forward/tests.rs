//! A layer that uses every operation, as Gemma 3's does, against the same layer by its formulas.

use super::angles::{Angles, Rotations};
use super::attention::{Attention, AttentionMemory};
use super::expression::gelu_gate;
use super::schedule::Span;
use super::tensor::Arena;
use super::{Operations, Sequence, Tensor};
use crate::weights::{Linear, Norm};
use sketchkv_cache::{Cache, CacheShape, LayerShape, Rotation, Stopwatch};
use sketchkv_kernels::{Matrix, ThreadPool, WeightFormat};

const HIDDEN: usize = 8;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const DIM: usize = 6;
const INNER: usize = 10;
const EMBEDDING_SCALE: f32 = 1.7;
const TOKENS: [u32; 5] = [3, 1, 4, 1, 5];

/// Weights of a layer, `[output][input]`.
struct Weights {
    embedding: Vec<f32>,
    before: [Vec<f32>; 2],
    after: [Vec<f32>; 2],
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    head_norms: [Vec<f32>; 2],
    o: Vec<f32>,
    gate_up: Vec<f32>,
    down: Vec<f32>,
    frequencies: Vec<f32>,
}

impl Weights {
    fn new() -> Weights {
        let mut seed = 0.0_f32;
        let mut wave = |length: usize, size: f32, middle: f32| -> Vec<f32> {
            seed += 1.0;
            (0..length).map(|i| middle + size * (seed * 1.3 + i as f32 * 0.71).sin()).collect()
        };
        let mut norm = |width| wave(width, 0.3, 1.0);
        let (before, after) = ([norm(HIDDEN), norm(HIDDEN)], [norm(HIDDEN), norm(HIDDEN)]);
        let head_norms = [norm(DIM), norm(DIM)];
        Weights {
            embedding: wave(9 * HIDDEN, 1.0, 0.0),
            before,
            after,
            q: wave(HEADS * DIM * HIDDEN, 0.5, 0.0),
            k: wave(KV_HEADS * DIM * HIDDEN, 0.5, 0.0),
            v: wave(KV_HEADS * DIM * HIDDEN, 0.5, 0.0),
            head_norms,
            o: wave(HIDDEN * HEADS * DIM, 0.5, 0.0),
            gate_up: wave(2 * INNER * HIDDEN, 0.5, 0.0),
            down: wave(HIDDEN * INNER, 0.5, 0.0),
            frequencies: vec![1.0, 0.2, 0.04],
        }
    }
}

/// The layer as an architecture's file would have it.
fn forward<'a>(weights: &Weights, ops: &mut Operations<'a>, pool: &ThreadPool) -> Tensor<'a> {
    let matrix = |rows, values: &[f32]| {
        Matrix::from_f32(rows, values.len() / rows, values, WeightFormat::F32, pool).unwrap()
    };
    let linear = |rows, values| Linear { matrix: matrix(rows, values), bias: None };
    let norm = |weight: &Vec<f32>| Norm { weight: weight.clone(), bias: None, epsilon: 1e-6 };

    let mut x = ops.embed_tokens(&matrix(9, &weights.embedding));
    ops.scale(&mut x, EMBEDDING_SCALE);

    let before = norm(&weights.before[0]);
    let q = ops.compute(linear(HEADS * DIM, &weights.q).of(before.of(&x)));
    let k = ops.compute(linear(KV_HEADS * DIM, &weights.k).of(before.of(&x)));
    let v = ops.compute(linear(KV_HEADS * DIM, &weights.v).of(before.of(&x)));
    let mut q = ops.norm(q, &norm(&weights.head_norms[0]));
    let mut k = ops.norm(k, &norm(&weights.head_norms[1]));
    ops.rotate(0, &mut q);
    ops.rotate(0, &mut k);
    let attended = ops.attend(0, q, k, v);
    let o = ops.compute(linear(HIDDEN, &weights.o).of(&attended));
    let o = ops.norm(o, &norm(&weights.after[0]));
    ops.add(&mut x, &o);

    let gate_up = ops.compute(linear(2 * INNER, &weights.gate_up).of(norm(&weights.before[1]).of(&x)));
    let down = ops.compute(linear(HIDDEN, &weights.down).of(gelu_gate(&gate_up)));
    let down = ops.norm(down, &norm(&weights.after[1]));
    ops.add(&mut x, &down);
    x
}

type Rows = Vec<Vec<f64>>;

fn times(weights: &[f32], x: &[f64]) -> Vec<f64> {
    weights.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum()).collect()
}

/// The norm of each stretch of as many values as there are weights.
fn rms(x: &[f64], weight: &[f32]) -> Vec<f64> {
    let stretch = |x: &[f64]| -> Vec<f64> {
        let root = (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + 1e-6).sqrt();
        x.iter().zip(weight).map(|(x, w)| x / root * f64::from(*w)).collect()
    };
    x.chunks_exact(weight.len()).flat_map(stretch).collect()
}

/// Value i of each head turned with value i + DIM / 2.
fn turn(x: &[f64], position: usize, frequencies: &[f32]) -> Vec<f64> {
    let half = DIM / 2;
    let head = |x: &[f64]| -> Vec<f64> {
        let angle = |i: usize| position as f64 * f64::from(frequencies[i % half]);
        let (cos, sin) = (|i| f64::cos(angle(i)), |i| f64::sin(angle(i)));
        let turned = |i: usize| {
            if i < half { x[i] * cos(i) - x[i + half] * sin(i) } else { x[i] * cos(i) + x[i - half] * sin(i) }
        };
        (0..DIM).map(turned).collect()
    };
    x.chunks_exact(DIM).flat_map(head).collect()
}

/// Causal attention of the query heads of token `t`, scale 0.4.
fn attention(q: &[f64], k: &Rows, v: &Rows, t: usize) -> Vec<f64> {
    let head = |h: usize| -> Vec<f64> {
        let (q, kv) = (&q[h * DIM..][..DIM], h / (HEADS / KV_HEADS) * DIM);
        let weights: Vec<f64> = (0..=t)
            .map(|s| (0.4 * q.iter().zip(&k[s][kv..]).map(|(q, k)| q * k).sum::<f64>()).exp())
            .collect();
        let sum: f64 = weights.iter().sum();
        (0..DIM).map(|i| (0..=t).map(|s| weights[s] / sum * v[s][kv + i]).sum()).collect()
    };
    (0..HEADS).flat_map(head).collect()
}

fn gelu(x: f64) -> f64 {
    x / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

fn by_formula(weights: &Weights) -> Rows {
    let mut x: Rows = TOKENS
        .iter()
        .map(|token| {
            let row = &weights.embedding[*token as usize * HIDDEN..][..HIDDEN];
            row.iter().map(|x| f64::from(*x) * f64::from(EMBEDDING_SCALE)).collect()
        })
        .collect();
    let n: Rows = x.iter().map(|x| rms(x, &weights.before[0])).collect();
    let rotated = |w: &[f32], norm: &[f32]| -> Rows {
        let row = |(t, n): (usize, &Vec<f64>)| turn(&rms(&times(w, n), norm), t, &weights.frequencies);
        n.iter().enumerate().map(row).collect()
    };
    let (q, k) = (rotated(&weights.q, &weights.head_norms[0]), rotated(&weights.k, &weights.head_norms[1]));
    let v: Rows = n.iter().map(|n| times(&weights.v, n)).collect();
    for (t, x) in x.iter_mut().enumerate() {
        let o = rms(&times(&weights.o, &attention(&q[t], &k, &v, t)), &weights.after[0]);
        x.iter_mut().zip(o).for_each(|(x, o)| *x += o);
        let inner = times(&weights.gate_up, &rms(x, &weights.before[1]));
        let (gate, up) = inner.split_at(INNER);
        let gated: Vec<f64> = gate.iter().zip(up).map(|(gate, up)| gelu(*gate) * up).collect();
        let down = rms(&times(&weights.down, &gated), &weights.after[1]);
        x.iter_mut().zip(down).for_each(|(x, down)| *x += down);
    }
    x
}

#[test]
fn operations_are_their_formulas() {
    let weights = Weights::new();
    let pool = ThreadPool::new(2);
    let rotation = Rotation { inverse_frequencies: weights.frequencies.as_slice().into() };
    let layer = LayerShape { scale: 0.4, rotation: Some(rotation), ..LayerShape::new(HEADS, KV_HEADS, DIM) };
    let layers = [layer.clone()];
    let mut cache = Cache::new(CacheShape::uniform(1, layer, 64), &"full+f32".parse().unwrap(), 0).unwrap();

    let rotations = Rotations::new(&layers);
    let positions: Vec<usize> = (0..TOKENS.len()).collect();
    let mut angles = Angles::default();
    angles.fill(&rotations, &positions);
    let (arena, mut memory, mut products) =
        (Arena::default(), AttentionMemory::default(), sketchkv_kernels::Workspace::new());
    let spans = [Span { sequence: 0, tokens: 0..TOKENS.len(), position: 0, logits: 0..0 }];
    let mut batch = [Sequence { tokens: &TOKENS, cache: &mut cache }];
    let mut watch = Stopwatch::start(false);
    let mut ops = Operations {
        pool: &pool,
        layers: &layers,
        rotations: &rotations,
        tokens: &TOKENS,
        positions: &positions,
        angles: &angles,
        arena: &arena,
        products: &mut products,
        attention: Attention::begin(&mut batch, &spans, &mut memory),
        watch: &mut watch,
    };
    let x = forward(&weights, &mut ops, &pool);
    for (found, expected) in x.values().chunks_exact(HIDDEN).zip(by_formula(&weights)) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-4, "{found} is not {expected}");
        }
    }
    let mut logits = [-30.0, 0.0, 5.0, 1e30];
    ops.softcap(&mut logits, 30.0);
    let expected = [-30.0 * 1_f32.tanh(), 0.0, 30.0 * (1.0_f32 / 6.0).tanh(), 30.0];
    assert!(logits.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-5));
}
