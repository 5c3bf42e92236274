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
    let d = shape.layers[0].key_dim;
    for (layer, outputs) in outputs.iter().enumerate() {
        for token in (0..tokens).step_by(17).chain([tokens - 1]) {
            for head in 0..shape.layers[0].heads {
                let want = stream.attention(layer, head, token, &seen(token));
                let got = &outputs[(token * shape.layers[0].heads + head) * d..][..d];
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

/// The weights that a watched cache shows are those it used: with the values they make the output.
#[test]
fn watched_attention_makes_the_output() {
    let (shape, pool, tokens) = (shape(), ThreadPool::new(2), 400);
    let stream = Stream::new(&shape, tokens, 5);
    for (spec, remembers) in [
        ("full+f32", false),
        ("full+f32+topk(k=64)", false),
        ("full+f32+topk(k=64,rest=pages)", false),
        ("h2o+f32@96tok", false),
        ("window+f32+buckets@64tok", true),
    ] {
        let mut cache = cache(&shape, spec);
        assert!(cache.attention().is_empty());
        stream.run(&mut cache, &pool, 0, tokens - 1, 33);
        cache.watch_attention();
        let outputs = stream.run(&mut cache, &pool, tokens - 1, 1, 1);
        let d = shape.layers[0].key_dim;
        for (layer, (attention, output)) in cache.attention().iter().zip(&outputs).enumerate() {
            assert_eq!(attention.weights.len(), shape.layers[0].heads);
            for (head, (weights, remembered)) in
                attention.weights.iter().zip(&attention.remembered).enumerate()
            {
                assert_eq!(weights.len(), tokens);
                let sum: f32 = weights.iter().sum();
                assert!((sum + remembered - 1.0).abs() < 1e-4, "{spec}: {sum} and {remembered}");
                assert_eq!(*remembered > 1e-4, remembers, "{spec}: {remembered}");
                // What a mean of a page's values was given is not what these tokens' values were given.
                if remembers || spec.contains("rest=pages") {
                    continue;
                }
                let kv_head = head / shape.layers[0].group();
                let mut want = vec![0.0; d];
                for (position, weight) in weights.iter().enumerate() {
                    let at = (position * shape.layers[0].kv_heads + kv_head) * d;
                    let value = &stream.v[layer][at..][..d];
                    want.iter_mut().zip(value).for_each(|(w, v)| *w += f64::from(weight * v));
                }
                assert!(largest_difference(&output[head * d..][..d], &want) < 1e-4, "{spec}, head {head}");
            }
        }
    }
}
