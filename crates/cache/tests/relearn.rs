//! The greatest attention that a token draws, and tokens judged anew by queries over a fork.

mod common;

use common::{Random, Stream};
use sketchkv_cache::{AttentionWorkspace, Cache, CacheShape, Cap, LayerShape};
use sketchkv_kernels::ThreadPool;

const DIM: usize = 32;
const HEADS: usize = 4;

fn shape() -> CacheShape {
    CacheShape::uniform(1, LayerShape::new(HEADS, 2, DIM), 4096)
}

fn stream(tokens: usize, seed: u64) -> Stream {
    let mut random = Random::new(seed);
    let mut normal = |n: usize| -> Vec<f32> { (0..n).map(|_| random.normal()).collect() };
    let (q, k, v) = (normal(tokens * HEADS * DIM), normal(tokens * 2 * DIM), normal(tokens * 2 * DIM));
    Stream { shape: shape(), q: vec![q], k: vec![k], v: vec![v], tokens }
}

fn cache(spec: &str) -> Cache {
    let mut cache = Cache::new(shape(), &spec.parse().unwrap(), 0).unwrap();
    cache.watch_attention();
    cache
}

#[test]
fn the_greatest_weight_of_a_chunk_is_the_greatest_of_its_tokens() {
    let (before, tokens) = (100, 40);
    let (stream, pool) = (stream(before + tokens, 1), ThreadPool::new(2));
    let mut greatest = vec![vec![0f32; before]; 2];
    let mut single = cache("kvzip+f32");
    stream.run(&mut single, &pool, 0, before, before);
    for token in before..before + tokens {
        stream.run(&mut single, &pool, token, 1, 1);
        let attention = &single.attention()[0];
        for (head, weights) in attention.weights.iter().enumerate() {
            let group = &mut greatest[head / (HEADS / 2)];
            group.iter_mut().zip(weights).for_each(|(most, weight)| *most = most.max(*weight));
        }
        // Of the step itself: the greatest over the group.
        for (kv_head, drawn) in attention.drawn.iter().enumerate() {
            let group = &attention.weights[kv_head * 2..][..2];
            for (position, drawn) in drawn.iter().enumerate() {
                let most = group.iter().map(|weights| weights[position]).fold(0.0, f32::max);
                assert!((drawn - most).abs() <= 1e-6, "{position}: {drawn} {most}");
            }
        }
    }
    let mut whole = cache("kvzip+f32");
    stream.run(&mut whole, &pool, 0, before, before);
    stream.run(&mut whole, &pool, before, tokens, tokens);
    for (drawn, greatest) in whole.attention()[0].drawn.iter().zip(&greatest) {
        for (drawn, greatest) in drawn.iter().zip(greatest) {
            assert!((drawn - greatest).abs() <= 1e-6, "{drawn} {greatest}");
        }
    }
}

#[test]
fn what_stays_is_what_a_fork_looked_at() {
    let tokens = 512;
    let pool = ThreadPool::new(1);
    let mut text = stream(tokens + 64, 2);
    // The queries of the text look at nothing; those after it, at every fifth key, which has a mark.
    for (position, q) in text.q[0].chunks_exact_mut(HEADS * DIM).enumerate() {
        q.chunks_exact_mut(DIM).for_each(|q| q[0] = if position < tokens { 0.0 } else { 40.0 });
    }
    for (position, k) in text.k[0].chunks_exact_mut(2 * DIM).enumerate() {
        k.chunks_exact_mut(DIM).for_each(|k| k[0] = if position % 5 == 2 { 4.0 } else { 0.0 });
    }
    let kept = |asks: bool| {
        let mut cache = cache("kvzip+f32");
        stream_run(&text, &mut cache, &pool, 0, tokens);
        cache.forget_attention();
        if asks {
            let mut fork = cache.fork();
            stream_run(&text, &mut fork, &pool, tokens, 64);
            cache.learn_from(&fork);
        }
        assert_eq!(cache.position(), tokens);
        cache.set_cap(Cap::Tokens(192), &pool, &mut AttentionWorkspace::default()).unwrap();
        // The sinks, and the newest, stay in any case.
        let old = |p: &usize| (4..tokens - 48).contains(p) && p % 5 == 2;
        cache.positions(0, 0).iter().filter(|p| old(p)).count() as f64
            / (4..tokens - 48).filter(old).count() as f64
    };
    let (with, without) = (kept(true), kept(false));
    assert!(with > 0.98 && without < 0.6, "{with} of what is looked at stays, {without} without the fork");
    assert!(cache("kvzip").asks_for_repetition() && !cache("h2o").asks_for_repetition());
}

fn stream_run(stream: &Stream, cache: &mut Cache, pool: &ThreadPool, first: usize, count: usize) {
    stream.run(cache, pool, first, count, 64);
}
