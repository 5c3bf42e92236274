//! The keep `foreseen`, the scorer that it may begin with, and how one is fitted.

mod common;

use common::{Random, Stream};
use sketchkv_cache::{
    Cache, CacheShape, HeadScorer, LayerShape, Rotation, Scorer, ScorerFit, Sensitivity, Spec,
};
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
    wrong[end - 12..end - 8].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(Scorer::from_bytes(&shape(), &wrong).unwrap_err().contains("finite"));
    let other = CacheShape::uniform(2, shape().layers[0].clone(), 4096);
    assert!(Scorer::from_bytes(&other, &bytes).unwrap_err().contains("2"));
}

/// The shape of two layers like the one above, whose heads are as sensitive as this.
fn two_layers(sensitivities: [Sensitivity; 2]) -> CacheShape {
    let shape = CacheShape::uniform(2, shape().layers[0].clone(), 4096);
    let head =
        HeadScorer { factors: vec![0.0; HeadScorer::width(&shape.layers[0])], by_distance: vec![0.001; 42] };
    let scorer = Scorer::new(&shape, 77, vec![vec![head.clone()], vec![head]]).unwrap();
    let all = sensitivities.map(|one| vec![one]).to_vec();
    CacheShape { scorer: Some(scorer.with_sensitivities(&shape, all).unwrap()), ..shape }
}

#[test]
fn what_heads_are_worth_is_saved_with_a_scorer() {
    let one = |eviction, coding| Sensitivity { eviction, coding };
    let shape = two_layers([one(1e-5, 2e-4), one(3e-3, 1e-6)]);
    let (scorer, bytes) = (shape.scorer.clone().unwrap(), shape.scorer.as_ref().unwrap().to_bytes());
    let read = Scorer::from_bytes(&shape, &bytes).unwrap();
    assert_eq!(read.sensitivities(), Some(&[vec![one(1e-5, 2e-4)], vec![one(3e-3, 1e-6)]][..]));
    assert_eq!(read.to_bytes(), bytes);
    assert!(scorer.clone().with_sensitivities(&shape, vec![vec![one(1.0, 1.0)]]).is_err());
    for wrong in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let all = vec![vec![one(1.0, wrong)], vec![one(1.0, 1.0)]];
        assert!(scorer.clone().with_sensitivities(&shape, all).unwrap_err().contains("positive"), "{wrong}");
    }
    // Files from before there were any.
    let mut old = bytes[..bytes.len() - 8 - 2 * (8 + 16)].to_vec();
    old[..8].copy_from_slice(b"SKVSCOR1");
    assert_eq!(Scorer::from_bytes(&shape, &old).unwrap().sensitivities(), None);
}

/// Tokens kept in each of two layers that see the same, and how far what they hold is from what they were given.
fn left_of(sensitivities: [Sensitivity; 2], cap: usize) -> [(usize, f64); 2] {
    let shape = two_layers(sensitivities);
    let one = stream();
    let twice = |x: &[Vec<f32>]| vec![x[0].clone(), x[0].clone()];
    let (q, k, v) = (twice(&one.q), twice(&one.k), twice(&one.v));
    let stream = Stream { shape: shape.clone(), q, k, v, tokens: TOKENS };
    let mut cache = Cache::new(shape, &format!("auto@{cap}B").parse().unwrap(), 0).unwrap();
    for first in (0..TOKENS).step_by(64) {
        stream.run(&mut cache, &ThreadPool::new(2), first, 64, 64);
        assert!(cache.ledger().total() <= cap, "{} of {cap}", cache.ledger().total());
    }
    [0, 1].map(|layer| {
        let slots = cache.slots(layer, 0);
        let (mut error, mut all) = (0.0, 0.0);
        for (&position, value) in slots.positions.iter().zip(slots.values.chunks_exact(DIM)) {
            for (x, y) in value.iter().zip(&stream.v[layer][position * DIM..]) {
                error += f64::from((x - y).powi(2));
                all += f64::from(y * y);
            }
        }
        (slots.positions.len(), error / all)
    })
}

#[test]
fn bytes_go_where_they_are_worth_most() {
    let alike = Sensitivity { eviction: 1e-4, coding: 1e-3 };
    let full = two_layers([alike; 2]).f16_bytes(TOKENS);
    let [first, second] = left_of([alike; 2], full / 5);
    assert_eq!(first, second, "layers alike");
    // One in which tokens are worth a hundred times as much keeps more of them, one in which bits are has more bits.
    let tokens = Sensitivity { eviction: 1e-2, ..alike };
    let [first, second] = left_of([tokens, alike], full / 5);
    assert!(first.0 > second.0 + 100, "{first:?} {second:?}");
    let bits = Sensitivity { coding: 1e-1, ..alike };
    let [first, second] = left_of([alike, bits], full / 5);
    assert!(first.1 > 2.0 * second.1, "{first:?} {second:?}");
    // Where bits are worth next to nothing tokens stay in two of them, where they are worth all tokens go instead.
    let [cheap, dear] = [1e-9, 1e3].map(|coding| left_of([Sensitivity { coding, ..alike }; 2], full / 5)[0]);
    assert!(cheap.0 > dear.0 + 200 && cheap.1 > 4.0 * dear.1, "{cheap:?} {dear:?}");
}

#[test]
fn one_head_loses_tokens_or_bits_and_no_other_does() {
    let alike = Sensitivity::TYPICAL;
    let shape = two_layers([alike; 2]);
    let one = stream();
    let twice = |x: &[Vec<f32>]| vec![x[0].clone(), x[0].clone()];
    let stream =
        Stream { shape: shape.clone(), q: twice(&one.q), k: twice(&one.k), v: twice(&one.v), tokens: TOKENS };
    let mut cache = Cache::new(shape, &"auto@1GiB".parse().unwrap(), 0).unwrap();
    stream.run(&mut cache, &ThreadPool::new(1), 0, TOKENS, 64);
    let (mut fork, before) = (cache.fork(), [cache.slots(0, 0), cache.slots(1, 0)]);
    let gone = fork.evict_from(1, 0, 200);
    assert!(gone > 0.0 && fork.kept(1) == [200] && fork.kept(0) == [TOKENS]);
    let more = cache.fork().evict_from(1, 0, 100);
    assert!(more > gone, "{more} with 100 left, {gone} with 200");
    let mut fork = cache.fork();
    fork.coarsen(0, 0);
    assert_eq!(fork.slots(1, 0), before[1]);
    let coded = fork.slots(0, 0);
    assert!(coded.positions == before[0].positions && coded.values != before[0].values);
    assert_eq!([cache.slots(0, 0), cache.slots(1, 0)], before, "forks are their own");
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
