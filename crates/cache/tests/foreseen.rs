//! The keep `foreseen`, the scorer that it may begin with, and how one is fitted.

mod common;

use common::{Random, Stream};
use sketchkv_cache::{Cache, CacheShape, HeadScorer, LayerShape, Rotation, Scorer, ScorerFit, Spec};
use sketchkv_kernels::ThreadPool;

const DIM: usize = 32;
const TOKENS: usize = 1536;

fn shape() -> CacheShape {
    let inverse_frequencies = (0..DIM / 4).map(|i| 10_000f32.powf(-(i as f32) / 8.0)).collect();
    let layer = LayerShape { rotation: Some(Rotation { inverse_frequencies }), ..LayerShape::new(2, 1, DIM) };
    CacheShape::uniform(1, layer, 4096)
}

/// Every seventh token is one that all queries look at: its key has a mark in the last dimension, which does not turn.
fn marked(position: usize) -> bool {
    position % 7 == 3
}

fn stream() -> Stream {
    let mut random = Random::new(5);
    let mut normal = |n: usize| -> Vec<f32> { (0..n).map(|_| random.normal() * 0.3).collect() };
    let (mut q, mut k, v) = (normal(TOKENS * 2 * DIM), normal(TOKENS * DIM), normal(TOKENS * DIM));
    q.chunks_exact_mut(DIM).for_each(|q| q[DIM - 1] = 4.0);
    for (position, k) in k.chunks_exact_mut(DIM).enumerate() {
        k[DIM - 1] = if marked(position) { 3.0 } else { 0.0 };
    }
    Stream { shape: shape(), q: vec![q], k: vec![k], v: vec![v], tokens: TOKENS }
}

fn run(shape: CacheShape, spec: &str, chunk: usize) -> Vec<usize> {
    let mut cache = Cache::new(shape, &spec.parse().unwrap(), 0).unwrap();
    stream().run(&mut cache, &ThreadPool::new(1), 0, TOKENS, chunk);
    cache.positions(0, 0)
}

/// Of the tokens before the newest, how many are marked.
fn share_of_marked(positions: &[usize]) -> f64 {
    let old: Vec<_> = positions.iter().filter(|p| **p < TOKENS - 128).collect();
    old.iter().filter(|p| marked(***p)).count() as f64 / old.len() as f64
}

fn fitted() -> Scorer {
    let stream = stream();
    let mut fit = ScorerFit::new(shape());
    let pool = ThreadPool::new(1);
    let mut cache = Cache::new(shape(), &ScorerFit::spec(TOKENS).unwrap(), 0).unwrap();
    cache.watch_attention();
    for first in (0..TOKENS).step_by(ScorerFit::CHUNK) {
        stream.run(&mut cache, &pool, first, ScorerFit::CHUNK, ScorerFit::CHUNK);
        fit.observe(&cache);
    }
    fit.learn(&cache, &pool);
    fit.finish(77).unwrap()
}

#[test]
fn what_draws_more_than_its_age_says_stays() {
    for chunk in [1, 64] {
        let kept = run(shape(), "foreseen@256tok", chunk);
        assert!(kept.len() <= 256 && (0..4).all(|sink| kept.contains(&sink)));
        assert!(kept.ends_with(&(TOKENS - 64..TOKENS).collect::<Vec<_>>()), "the newest stay");
        let share = share_of_marked(&kept);
        assert!(share > 0.8, "in chunks of {chunk} {share} of what stays is looked at, {} of all", 1.0 / 7.0);
    }
}

#[test]
fn a_scorer_knows_before_anything_is_drawn() {
    let with = CacheShape { scorer: Some(fitted()), ..shape() };
    // Half of a pass goes at once, whose queries are too near to its tokens to count.
    let marks = |shape: CacheShape| {
        let spec = "foreseen(sinks=0,recent=1)@32tok".parse().unwrap();
        let mut cache = Cache::new(shape, &spec, 0).unwrap();
        stream().run(&mut cache, &ThreadPool::new(1), 0, 64, 64);
        cache.positions(0, 0).into_iter().filter(|position| marked(*position)).count()
    };
    let (with, without) = (marks(with), marks(shape()));
    assert!(
        with == (0..64).filter(|position| marked(*position)).count() && without < 6,
        "{with} with, {without} without"
    );
}

#[test]
fn a_scorer_reads_back() {
    let (scorer, bytes) = (fitted(), fitted().to_bytes());
    assert_eq!((scorer.model(), &bytes), (77, &scorer.to_bytes()));
    assert_eq!(Scorer::from_bytes(&shape(), &bytes).unwrap().to_bytes(), bytes);
    for damaged in [&bytes[..bytes.len() - 1], &[&bytes[..], &[0]].concat(), &bytes[1..], &[]] {
        Scorer::from_bytes(&shape(), damaged).unwrap_err();
    }
    let mut wrong = bytes.clone();
    let end = wrong.len();
    wrong[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(Scorer::from_bytes(&shape(), &wrong).unwrap_err().contains("finite"));
    let other = CacheShape::uniform(2, shape().layers[0].clone(), 4096);
    assert!(Scorer::from_bytes(&other, &bytes).unwrap_err().contains("2"));
}

#[test]
fn layers_with_windows_need_no_scorer() {
    let windowed = LayerShape { window: Some(16), ..shape().layers[0].clone() };
    let shape = CacheShape { layers: vec![windowed, shape().layers[0].clone()], ..shape() };
    let head =
        HeadScorer { factors: vec![0.0; HeadScorer::width(&shape.layers[1])], by_distance: vec![0.01; 42] };
    let heads = vec![vec![], vec![head.clone()]];
    Scorer::new(&shape, 1, heads).unwrap();
    Scorer::new(&shape, 1, vec![vec![head.clone()], vec![head]]).unwrap_err();
}

#[test]
fn too_short_documents_are_refused() {
    let error = ScorerFit::new(shape()).finish(0).unwrap_err().to_string();
    assert!(error.contains("2048 tokens"), "{error}");
    let spec: Spec = ScorerFit::spec(1000).unwrap();
    assert_eq!(spec.to_string(), "h2o(decay=1)+f32@1064tok");
}

/// A prompt that comes in one pass shows which of its tokens are looked at from afar.
#[test]
fn a_long_pass_shows_what_its_own_tokens_are_worth() {
    const TOKENS: usize = 600;
    let shape = CacheShape::uniform(1, LayerShape::new(1, 1, 64), 4096);
    let mut stream = Stream::new(&shape, TOKENS, 5);
    for rows in [&mut stream.q, &mut stream.k] {
        rows[0].iter_mut().for_each(|x| *x *= 0.1);
    }
    // All later tokens look at one, and those right after another at that.
    let (far, near) = (200, 300);
    (stream.k[0][far * 64], stream.k[0][near * 64 + 1]) = (10.0, 10.0);
    for token in 270..TOKENS {
        stream.q[0][token * 64] = 10.0;
    }
    for token in near..near + 60 {
        stream.q[0][token * 64 + 1] = 12.0;
    }
    let mut cache = Cache::new(shape, &"foreseen@128tok".parse().unwrap(), 0).unwrap();
    stream.run(&mut cache, &ThreadPool::new(1), 0, TOKENS, TOKENS);
    let positions = cache.positions(0, 0);
    assert!(positions.contains(&far) && !positions.contains(&near), "{positions:?}");
}
