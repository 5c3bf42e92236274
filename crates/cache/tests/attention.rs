//! What the cache computes against attention by its formula.

mod common;

use common::{Stream, cache, largest_difference, shape};
use sketchkv_kernels::ThreadPool;

fn check(spec: &str, tokens: usize, chunk: usize, tolerance: f64, seen: impl Fn(usize) -> Vec<usize>) {
    let shape = shape();
    let stream = Stream::new(&shape, tokens, 7);
    let pool = ThreadPool::new(2);
    let mut cache = cache(&shape, spec);
    let outputs = stream.run(&mut cache, &pool, 0, tokens, chunk);
    let d = shape.head_dim;
    for (layer, outputs) in outputs.iter().enumerate() {
        for token in (0..tokens).step_by(17).chain([tokens - 1]) {
            for head in 0..shape.heads {
                let want = stream.attention(layer, head, token, &seen(token));
                let got = &outputs[(token * shape.heads + head) * d..][..d];
                let difference = largest_difference(got, &want);
                assert!(difference < tolerance, "{spec}, chunk {chunk}, token {token}: {difference}");
            }
        }
    }
}

#[test]
fn full_equals_the_formula_for_every_store_and_chunk() {
    for (spec, tolerance) in [
        ("full+f32", 1e-5),
        ("full", 3e-3),
        ("full+bf16", 3e-2),
        ("full+q8", 6e-2),
        ("full+q4", 1.0),
        ("full+q4h", 1.0),
        ("full+tq4", 1.0),
        ("full+kivi4", 1.0),
        ("full+k=kivi4+v=q8", 1.0),
        ("full+k=f32+v=tq3", 1.0),
    ] {
        for chunk in [1, 7, 64, 512] {
            check(spec, 300, chunk, tolerance, |token| (0..=token).collect());
        }
    }
}

#[test]
fn window_keeps_sinks_and_the_newest() {
    // 64 slots and the token itself.
    let seen = |token: usize| {
        if token < 64 { (0..=token).collect() } else { (0..4).chain(token - 60..=token).collect() }
    };
    check("window+f32@64tok", 300, 1, 1e-5, seen);
    check("window(sinks=0)+f32@64tok", 300, 1, 1e-5, |token| (token.saturating_sub(64)..=token).collect());
}

#[test]
fn window_after_a_chunk_holds_the_same_tokens() {
    let shape = shape();
    let stream = Stream::new(&shape, 400, 3);
    let pool = ThreadPool::new(1);
    for chunk in [1, 7, 64, 400] {
        let mut cache = cache(&shape, "window+q8@100tok");
        stream.run(&mut cache, &pool, 0, 400, chunk);
        for (layer, head) in [(0, 0), (1, 1)] {
            let want: Vec<usize> = (0..4).chain(304..400).collect();
            assert_eq!(cache.positions(layer, head), want, "chunk {chunk}");
        }
    }
}
