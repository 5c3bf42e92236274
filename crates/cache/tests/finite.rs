//! Finite in, finite out: every store of the registry, of keys and of values, over vectors from zeros to the ends of f16,
//! mixed in one page, in chunks and token by token. `cargo xtask test levels` runs this at every instruction set.

mod common;

use common::{Random, Stream, cache, shape};
use proptest::prelude::*;
use sketchkv_cache::method::Choice;
use sketchkv_cache::{AttentionWorkspace, Cache, CacheError, Registry};
use sketchkv_kernels::ThreadPool;

/// Tokens of a test: a page is sealed, and the next one is not.
const TOKENS: usize = 90;

/// Both ends of what a cache may be given: what a rotation makes of vectors of 10,000 is within f16, too.
const MAGNITUDES: [f32; 9] = [0.0, 1e-45, 1e-38, f32::MIN_POSITIVE, 1e-37, 6e-8, 1e-3, 1.0, 1e4];

/// The largest number of f16, the least that is rounded beyond it, one whose square is beyond f32, and nearly the largest of
/// f32.
const BEYOND: [f32; 4] = [65_504.0, 65_520.0, 1e19, 3e38];

/// Every store on either side, alone and where slots are taken again.
fn specs() -> Vec<String> {
    let registry = Registry::builtin();
    let stores = registry.methods().filter(|m| m.choice == Choice::Store).map(|m| m.name);
    stores
        .flat_map(|store| {
            [
                format!("full+{store}"),
                format!("full+k={store}+v=f32"),
                format!("full+k=f32+v={store}"),
                format!("window+{store}@64tok"),
            ]
        })
        .collect()
}

/// The outputs of all tokens, layer by layer.
fn outputs(spec: &str, stream: &Stream, chunk: usize) -> Vec<Vec<f32>> {
    let pool = ThreadPool::new(1);
    let mut cache = cache(&stream.shape, spec);
    stream.run(&mut cache, &pool, 0, stream.tokens, chunk)
}

/// Fills vectors of 64 with `number`s of a magnitude, or of several, each vector its own.
fn fill(vectors: &mut [f32], magnitudes: &[f32], random: &mut Random) {
    let pick = |random: &mut Random| magnitudes[(random.uniform() * magnitudes.len() as f32) as usize];
    for vector in vectors.chunks_mut(64) {
        let one = (random.uniform() < 0.5).then(|| pick(random));
        for x in vector {
            let magnitude = one.unwrap_or_else(|| pick(random));
            *x = magnitude * (2.0 * random.uniform() - 1.0);
        }
    }
}

/// Keys, values and queries of these magnitudes, in every layer.
fn extremes(of_keys: &[f32], of_values: &[f32], of_queries: f32, seed: u64) -> Stream {
    let mut random = Random::new(seed);
    let mut stream = Stream::new(&shape(), TOKENS, seed);
    for layer in 0..stream.k.len() {
        fill(&mut stream.k[layer], of_keys, &mut random);
        fill(&mut stream.v[layer], of_values, &mut random);
        fill(&mut stream.q[layer], &[of_queries], &mut random);
    }
    stream
}

/// Whether outputs are finite and within the values, but for the rounding of codes.
fn check(spec: &str, chunk: usize, stream: &Stream) -> Result<(), TestCaseError> {
    for (layer, outputs) in outputs(spec, stream, chunk).iter().enumerate() {
        let largest = stream.v[layer].iter().fold(0.0f32, |m, v| m.max(v.abs()));
        for (at, x) in outputs.iter().enumerate() {
            prop_assert!(
                x.is_finite() && x.abs() <= 2.0 * largest + 1e-6,
                "{spec}, chunk {chunk}, layer {layer}, number {at}: {x} where values are up to {largest}"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn outputs_of_extremes_are_finite(
        of_keys in prop::collection::vec(prop::sample::select(MAGNITUDES.to_vec()), 1..4),
        of_values in prop::collection::vec(prop::sample::select(MAGNITUDES.to_vec()), 1..4),
        of_queries in prop::sample::select(vec![1e-38f32, 1.0, 30.0, 1e4]),
        seed: u64,
    ) {
        let stream = extremes(&of_keys, &of_values, of_queries, seed);
        for spec in specs() {
            for chunk in [1, 33] {
                check(&spec, chunk, &stream)?;
            }
        }
    }
}

/// Runs a stream in chunks; each either comes out finite, or is refused and leaves the cache as it was. Returns how many came out.
fn check_beyond(spec: &str, chunk: usize, stream: &Stream) -> Result<usize, TestCaseError> {
    let pool = ThreadPool::new(1);
    let (mut cache, mut workspace) = (cache(&stream.shape, spec), AttentionWorkspace::new());
    let mut came_out = 0;
    for first in (0..stream.tokens).step_by(chunk) {
        let count = chunk.min(stream.tokens - first);
        let before = cache.to_bytes();
        let mut out = vec![0.0; count * stream.q[0].len() / stream.tokens];
        let mut pass = cache.begin(count, &mut workspace).unwrap();
        let mut seen = Ok(());
        for layer in 0..stream.k.len() {
            let [q, k, v] =
                [&stream.q, &stream.k, &stream.v].map(|all| stream.rows(&all[layer], first, count));
            out.fill(f32::NAN);
            seen = pass.attend(layer, &pool, &mut workspace, q, k, v, &mut out);
            if seen.is_err() {
                break;
            }
            prop_assert!(
                out.iter().all(|x| x.is_finite()),
                "{spec}, chunk {chunk}, layer {layer}, token {first}: outputs are not finite"
            );
        }
        match seen {
            Ok(()) => {
                pass.finish(&pool, &mut workspace).unwrap();
                came_out += count;
            }
            Err(CacheError::OutOfRange { .. } | CacheError::NotFinite { .. }) => {
                drop(pass);
                prop_assert!(cache.to_bytes() == before, "{spec}, chunk {chunk}, token {first}: changed");
            }
            Err(other) => prop_assert!(false, "{spec}, chunk {chunk}, token {first}: {other}"),
        }
    }
    let read = Cache::from_bytes(&cache.to_bytes(), stream.shape.clone());
    prop_assert!(read.is_ok(), "{spec}, chunk {chunk}: {:?}", read.err());
    Ok(came_out)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn what_is_beyond_a_store_is_finite_or_refused(
        of_keys in prop::collection::vec(prop::sample::select([&MAGNITUDES[..], &BEYOND].concat()), 1..4),
        of_values in prop::collection::vec(prop::sample::select([&MAGNITUDES[..], &BEYOND].concat()), 1..4),
        of_queries in prop::sample::select([&[1e-38, 1.0], &BEYOND[..]].concat()),
        seed: u64,
    ) {
        let stream = extremes(&of_keys, &of_values, of_queries, seed);
        for spec in specs() {
            for chunk in [1, 33] {
                check_beyond(&spec, chunk, &stream)?;
            }
        }
    }
}

/// Where the range of a store ends, and that of f32.
#[test]
fn a_range_ends_where_it_says() {
    for (spec, largest, comes_out) in [
        ("full", 65_504.0, true),
        ("full", 65_520.0, false),
        ("full+q8", 65_520.0, true),
        ("full+q8", 1e19, false),
        ("full+q4", 65_504.0, true),
        ("full+q4", 65_520.0, false),
        ("full+bf16", 1e19, true),
        ("full+f32", 1e19, true),
        ("full+f32", 1e36, true),
    ] {
        let mut stream = Stream::new(&shape(), TOKENS, 1);
        for v in &mut stream.v {
            v.iter_mut().for_each(|v| *v = if *v > 0.0 { largest } else { -largest });
        }
        for chunk in [1, 33] {
            let came_out = check_beyond(spec, chunk, &stream).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(came_out, if comes_out { TOKENS } else { 0 }, "{spec}, {largest:e}, chunk {chunk}");
        }
    }
}

/// Keys are graded by the squares of queries, which are beyond f32 where the queries are not.
#[test]
fn queries_may_be_too_large_to_be_squared() {
    let mut stream = Stream::new(&shape(), TOKENS, 1);
    for layer in 0..stream.k.len() {
        stream.k[layer].fill(0.0);
        stream.q[layer].iter_mut().for_each(|q| *q *= 1e19);
    }
    for spec in specs() {
        for chunk in [1, 33] {
            let came_out = check_beyond(&spec, chunk, &stream).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(came_out, TOKENS, "{spec}, chunk {chunk}");
        }
    }
}

/// Where scores lie so far below the largest that all weights of a page are next to nothing, their reciprocal is next to
/// infinite. Keys with large biases, as those of Qwen2, have such pages.
#[test]
fn pages_that_weigh_next_to_nothing_are_finite() {
    let mut random = Random::new(1);
    for first in [78, 82, 86] {
        let mut stream = Stream::new(&shape(), TOKENS, 1);
        for layer in 0..stream.k.len() {
            fill(&mut stream.v[layer], &[1.0], &mut random);
            stream.q[layer].fill(1.0);
            // All keys point to where queries do, those of the first page away from it: by so much that their logits, 8
            // times a number of such a key, are 78 to 90 below those of the second page, in each head by another number.
            let heads = stream.k[layer].len() / TOKENS / 64;
            for (at, key) in stream.k[layer].chunks_mut(64).enumerate() {
                let below = (first + 2 * layer + at % heads) as f32 + random.uniform();
                key.fill(if at / heads < 64 { -below / 8.0 } else { 0.0 });
            }
        }
        for spec in specs() {
            check(&spec, 1, &stream).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

/// How far a mean of values up to 10,000 may be off, by the bits in the name of their store, or the 3 of `graded`.
fn tolerance(spec: &str) -> f64 {
    let store = spec.rsplit(['=', '+']).next().expect("a store");
    let bits: i32 = store.trim_matches(char::is_alphabetic).parse().unwrap_or(3);
    1e4 * 0.16 * 0.5f64.powi(bits.min(8))
}

/// Where all tokens are alike to a query the output is the mean of the values, and stores differ by their rounding alone.
#[test]
fn means_of_extremes_are_near() {
    let mut random = Random::new(3);
    let mut stream = Stream::new(&shape(), TOKENS, 3);
    for layer in 0..stream.k.len() {
        fill(&mut stream.k[layer], &[0.0, 1e-45, 1e-38, 1e-37, 1e-5], &mut random);
        fill(&mut stream.v[layer], &MAGNITUDES, &mut random);
    }
    let (heads, tokens) = (stream.shape.layers[0].heads, stream.tokens);
    for spec in specs().into_iter().filter(|spec| spec.starts_with("full")) {
        for chunk in [1, 33] {
            for (layer, outputs) in outputs(&spec, &stream, chunk).iter().enumerate() {
                let d = outputs.len() / tokens / heads;
                for (head, got) in outputs[(tokens - 1) * heads * d..].chunks(d).enumerate() {
                    let want = stream.attention(layer, head, tokens - 1, &(0..tokens).collect::<Vec<_>>());
                    let far = common::largest_difference(got, &want);
                    assert!(far < tolerance(&spec), "{spec}, chunk {chunk}: {far} off");
                }
            }
        }
    }
}
