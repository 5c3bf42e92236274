//! A pass is one thing: begun, attended through, finished, or never been.

mod common;

use common::{Stream, cache, shape};
use sketchkv_cache::{AttentionWorkspace, CacheError};
use sketchkv_kernels::ThreadPool;

const SPECS: [&str; 6] = [
    "full+f32",
    "h2o+q8@96tok",
    "expected(cov=full)+k=kivi4+v=q4h+ada@25%",
    "snapkv+critical+pyramid@25%",
    "cms+buckets+topk(k=64,rest=pages,prompt=64)@25%",
    "tova+tq3+merge@25%",
];

/// Attends in layer `layer` of the pass that begins at token `at`.
fn attend(
    stream: &Stream,
    pass: &mut sketchkv_cache::Pass<'_>,
    layer: usize,
    pool: &ThreadPool,
    workspace: &mut AttentionWorkspace,
) -> Result<(), CacheError> {
    let (at, n, shape) = (pass.position(), pass.tokens(), &stream.shape.layers[layer]);
    let mut out = vec![0.0; n * shape.heads * shape.value_dim];
    let [q, k, v] = [&stream.q, &stream.k, &stream.v].map(|all| stream.rows(&all[layer], at, n));
    pass.attend(layer, pool, workspace, q, k, v, &mut out)
}

#[test]
fn a_pass_that_is_dropped_has_never_been() {
    let stream = Stream::new(&shape(), 300, 12);
    let pool = ThreadPool::new(2);
    for spec in SPECS {
        let (mut cut, mut straight) = (cache(&stream.shape, spec), cache(&stream.shape, spec));
        stream.run(&mut cut, &pool, 0, 200, 50);
        stream.run(&mut straight, &pool, 0, 200, 50);
        let mut workspace = AttentionWorkspace::new();
        for (tokens, layers) in [(1, 0), (1, 1), (40, 1), (40, 2), (1, 2)] {
            let mut pass = cut.begin(tokens, &mut workspace).unwrap();
            (0..layers).for_each(|layer| attend(&stream, &mut pass, layer, &pool, &mut workspace).unwrap());
            drop(pass);
            assert_eq!(cut.to_bytes(), straight.to_bytes(), "{spec}: {tokens} tokens, {layers} layers");
            assert_eq!(cut.position(), 200);
        }
        let got = stream.run(&mut cut, &pool, 200, 100, 25);
        assert_eq!(got, stream.run(&mut straight, &pool, 200, 100, 25), "{spec}");
    }
}

#[test]
fn what_does_not_fit_is_an_error_and_changes_nothing() {
    let stream = Stream::new(&shape(), 120, 3);
    let pool = ThreadPool::new(1);
    let mut workspace = AttentionWorkspace::new();
    let mut cache = cache(&stream.shape, "h2o+q8@64tok");
    stream.run(&mut cache, &pool, 0, 100, 20);
    let before = cache.to_bytes();
    assert!(matches!(cache.begin(0, &mut workspace), Err(CacheError::Argument(_))));
    assert!(matches!(cache.begin(usize::MAX, &mut workspace), Err(CacheError::Argument(_))));
    let message = |result: Result<(), CacheError>| result.unwrap_err().to_string();

    let mut pass = cache.begin(2, &mut workspace).unwrap();
    assert!(message(attend(&stream, &mut pass, 1, &pool, &mut workspace)).contains("turn of layer 0 of 2"));
    attend(&stream, &mut pass, 0, &pool, &mut workspace).unwrap();
    assert!(message(attend(&stream, &mut pass, 0, &pool, &mut workspace)).contains("turn of layer 1 of 2"));
    let mut out = vec![0.0; 2 * 384];
    let short = pass.attend(1, &pool, &mut workspace, &[0.0; 767], &[0.0; 256], &[0.0; 256], &mut out);
    assert_eq!(message(short), "layer 1 got 767 numbers as queries where 2 tokens take 768");
    assert!(message(pass.finish(&pool, &mut workspace)).contains("1 of 2 layers"));
    assert_eq!(cache.to_bytes(), before);
}

/// Numbers that are not finite, or beyond a store, are told with their layer and position, and never stored.
#[test]
fn numbers_that_are_not_finite_are_told_where_they_began() {
    let shape = shape();
    let pool = ThreadPool::new(1);
    let mut workspace = AttentionWorkspace::new();
    for (spec, layer, which, x, want) in [
        ("full", 1, "queries", f32::NAN, None),
        ("full+f32", 0, "keys", f32::INFINITY, None),
        ("h2o+q8@64tok", 1, "values", f32::NEG_INFINITY, None),
        ("full", 1, "keys", 65_600.0, Some("65504")),
        ("full+q8", 0, "values", 9e6, Some("8319008")),
        ("full+q4h", 1, "values", -9e5, Some("65504")),
    ] {
        let mut stream = Stream::new(&shape, 60, 5);
        let (token, all) = match which {
            "queries" => (52, &mut stream.q[layer]),
            "keys" => (52, &mut stream.k[layer]),
            _ => (52, &mut stream.v[layer]),
        };
        let row = all.len() / 60;
        all[token * row + 17] = x;
        let mut cache = cache(&shape, spec);
        stream.run(&mut cache, &pool, 0, 50, 10);
        let before = cache.to_bytes();
        let mut pass = cache.begin(10, &mut workspace).unwrap();
        let outcome = (0..2).try_for_each(|layer| attend(&stream, &mut pass, layer, &pool, &mut workspace));
        let error = outcome.unwrap_err();
        let (at, position, what) = match (&error, want) {
            (CacheError::NotFinite { layer, position, what, .. }, None)
            | (CacheError::OutOfRange { layer, position, what, .. }, Some(_)) => (*layer, *position, *what),
            _ => panic!("{spec}: {error}"),
        };
        assert_eq!((at, position, what), (layer, 52, which), "{spec}");
        let most = want.map_or(String::new(), |most: &str| format!("{:e}", most.parse::<f32>().unwrap()));
        let message = error.to_string();
        assert!(message.contains(spec) && message.contains(&most), "{message}");
        drop(pass);
        assert_eq!(cache.to_bytes(), before, "{spec}");
    }
}

#[test]
fn a_pass_goes_on_after_a_pause() {
    let stream = Stream::new(&shape(), 240, 7);
    let pool = ThreadPool::new(2);
    for spec in SPECS {
        let (mut paused, mut straight) = (cache(&stream.shape, spec), cache(&stream.shape, spec));
        stream.run(&mut straight, &pool, 0, 240, 40);
        let mut workspace = AttentionWorkspace::new();
        for _ in 0..6 {
            let mut pause = paused.begin(40, &mut workspace).unwrap().pause();
            for layer in 0..2 {
                let mut pass = paused.resume(pause).unwrap();
                attend(&stream, &mut pass, layer, &pool, &mut workspace).unwrap();
                pause = pass.pause();
            }
            paused.resume(pause).unwrap().finish(&pool, &mut workspace).unwrap();
        }
        assert_eq!(paused.to_bytes(), straight.to_bytes(), "{spec}");
    }
    let mut cache = cache(&stream.shape, "full");
    let mut workspace = AttentionWorkspace::new();
    let late = cache.begin(1, &mut workspace).unwrap().pause();
    stream.run(&mut cache, &pool, 0, 20, 20);
    assert!(cache.resume(late).is_err_and(|error| error.to_string().contains("begin another one")));
}

#[test]
fn keys_and_values_are_stored_without_attention() {
    let stream = Stream::new(&shape(), 200, 5);
    let pool = ThreadPool::new(2);
    let mut workspace = AttentionWorkspace::new();
    for spec in ["full+f32", "full+q4h", "full+k=kivi4+v=q4"] {
        let (mut stored, mut attended) = (cache(&stream.shape, spec), cache(&stream.shape, spec));
        stream.run(&mut attended, &pool, 0, 200, 50);
        for _ in 0..4 {
            let mut pass = stored.begin(50, &mut workspace).unwrap();
            for layer in 0..2 {
                let [k, v] = [&stream.k, &stream.v].map(|all| stream.rows(&all[layer], pass.position(), 50));
                pass.store(layer, k, v).unwrap();
            }
            pass.finish(&pool, &mut workspace).unwrap();
        }
        assert_eq!(stored.slots(1, 0), attended.slots(1, 0), "{spec}");
    }
    let mut evicting = cache(&stream.shape, "h2o@96tok");
    let mut pass = evicting.begin(1, &mut workspace).unwrap();
    let refused = pass.store(0, stream.rows(&stream.k[0], 0, 1), stream.rows(&stream.v[0], 0, 1));
    assert!(refused.is_err_and(|error| error.to_string().contains("leave the cap out")));
}
