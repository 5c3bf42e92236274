//! Caps hold at every step, whatever happens to a cache, and can be changed while it is in use.

mod common;

use common::{Random, Stream, cache, shape};
use sketchkv_cache::{AttentionWorkspace, Cache, CacheError, CacheShape, Cap, LayerShape, Spec};
use sketchkv_kernels::ThreadPool;

fn assert_within(cache: &Cache, what: &str) {
    let (bytes, cap) = (cache.ledger().total(), cache.cap_bytes().expect("a cap in bytes"));
    assert!(bytes <= cap, "{what}: {bytes} of {cap} bytes at {}: {:?}", cache.position(), cache.ledger());
}

/// One random walk of growth, truncation, forks and other caps.
fn walk(spec: &str, steps: usize, seed: u64) {
    const TOKENS: usize = 1500;
    let layer = LayerShape::new(4, 2, 64);
    let windowed = LayerShape { window: Some(64), ..layer.clone() };
    let shape = CacheShape {
        layers: vec![layer, windowed],
        ..CacheShape::uniform(2, LayerShape::new(4, 2, 64), 4096)
    };
    let stream = Stream::new(&shape, TOKENS, seed);
    let (pool, mut workspace) = (ThreadPool::new(1), AttentionWorkspace::new());
    let mut random = Random::new(seed);
    let mut below = |n: usize| (random.uniform() * n as f32) as usize;
    let mut cache = cache(&shape, spec);
    let mut kept = cache.fork();
    let caps = [200, 256, 300, 450, 700].map(|kib| kib << 10);
    let (mut at, mut changed) = (0, 0);
    while at < steps {
        match below(100) {
            0 => kept = cache.fork(),
            1 => cache = kept.fork(),
            2 => cache.reset(),
            3 | 4 => {
                // Refused once tokens have gone; else the cache is shorter.
                let position = cache.position() - below(cache.position() + 1).min(70);
                match cache.truncate(position) {
                    Ok(()) => assert_eq!(cache.position(), position),
                    Err(error) => assert!(matches!(error, CacheError::Unsupported(_)), "{error}"),
                }
            }
            5 | 6 => {
                cache.set_cap(Cap::Bytes(caps[below(caps.len())]), &pool, &mut workspace).unwrap();
                changed += 1;
            }
            dice => {
                let most = if dice < 10 { 400 } else { 90 };
                let tokens = if dice < 20 { 1 + below(most) } else { 1 };
                if cache.position() + tokens > TOKENS {
                    cache = kept.fork();
                    if cache.position() + tokens > TOKENS {
                        cache.reset();
                    }
                }
                let first = cache.position();
                stream.run(&mut cache, &pool, first, tokens, tokens);
                at += tokens;
            }
        }
        assert_within(&cache, spec);
        assert_within(&kept, spec);
    }
    assert!(changed > 0, "{spec}: the cap never changed");
}

/// Steps of all walks together; `SKETCHKV_STEPS=1000000` for a release.
fn steps() -> usize {
    std::env::var("SKETCHKV_STEPS").map_or(40_000, |steps| steps.parse().expect("a number of steps"))
}

#[test]
fn no_walk_exceeds_a_cap() {
    let specs = [
        "expected+progressive@256KiB",
        "expected+progressive+adaptive@256KiB",
        "foreseen+progressive+adaptive@256KiB",
        "h2o+graded+adaptive@300KiB",
        "tova+q8@256KiB",
        "snapkv+ada@450KiB",
        "keydiff+kivi4+merge@256KiB",
        "h2o+q4h+buckets(n=16)+topk(prompt=64)@300KiB",
    ];
    for (seed, spec) in specs.into_iter().enumerate() {
        walk(spec, steps() / specs.len(), seed as u64);
    }
}

#[test]
fn a_first_chunk_of_any_length_keeps_to_its_cap() {
    let pool = ThreadPool::new(2);
    for spec in
        ["window+progressive", "window+k=progressive+v=tq3", "foreseen+progressive+adaptive", "h2o+graded"]
    {
        for (share, first) in [(25, 160), (40, 100), (60, 100)] {
            for tokens in (first..first + 260).step_by(13) {
                let mut cache = cache(&shape(), &format!("{spec}@{share}%"));
                Stream::new(&shape(), tokens, 7).run(&mut cache, &pool, 0, tokens, tokens);
                assert_within(&cache, &format!("{spec}@{share}% of {tokens}"));
            }
        }
    }
}

#[test]
fn a_lower_cap_takes_bits_then_tokens_at_once() {
    let shape = shape();
    let stream = Stream::new(&shape, 1400, 3);
    let (pool, mut workspace) = (ThreadPool::new(1), AttentionWorkspace::new());
    let mut cache = cache(&shape, "expected+progressive@2MiB");
    stream.run(&mut cache, &pool, 0, 1200, 100);
    let before = cache.ledger().total();
    // All of it fits in fewer bits.
    cache.set_cap(Cap::Bytes(before * 2 / 3), &pool, &mut workspace).unwrap();
    assert_within(&cache, "in fewer bits");
    assert!(!cache.has_evicted());
    assert!(cache.ledger().total() < before * 2 / 3);
    // A fifth of it does not.
    cache.set_cap(Cap::Bytes(before / 5), &pool, &mut workspace).unwrap();
    assert_within(&cache, "with fewer tokens");
    assert!(cache.has_evicted());
    assert!(cache.spec().to_string().ends_with(&format!("@{}B", before / 5)), "{}", cache.spec());
    let kept = cache.kept(0);
    assert!(
        cache.positions(0, 0).contains(&0) && cache.positions(0, 0).contains(&1199),
        "sinks and the newest stay"
    );
    // Up, more is kept from now on.
    cache.set_cap(Cap::Bytes(before), &pool, &mut workspace).unwrap();
    assert_eq!(cache.kept(0), kept);
    stream.run(&mut cache, &pool, 1200, 200, 50);
    assert_eq!(cache.kept(0), kept.iter().map(|kept| kept + 200).collect::<Vec<_>>());
}

#[test]
fn a_much_lower_cap_is_used_as_well_as_one_from_the_start() {
    let shape = CacheShape::uniform(6, LayerShape::new(4, 2, 64), 4096);
    let (tokens, pool) = (1500, ThreadPool::new(2));
    let stream = Stream::new(&shape, tokens, 72);
    for part in [8, 16] {
        let cap = shape.f16_bytes(tokens) / part;
        for spec in
            ["foreseen+progressive+adaptive", "foreseen+graded+adaptive", "window+progressive+adaptive"]
        {
            let mut lowered = cache(&shape, spec);
            stream.run(&mut lowered, &pool, 0, tokens, 250);
            lowered.set_cap(Cap::Bytes(cap), &pool, &mut AttentionWorkspace::new()).unwrap();
            let mut streamed = cache(&shape, &format!("{spec}@{cap}B"));
            stream.run(&mut streamed, &pool, 0, tokens, 250);
            for (cache, how) in [(&lowered, "lowered"), (&streamed, "streamed")] {
                assert_within(cache, spec);
                let taken = cache.ledger().total() as f64 / cap as f64;
                // Few heads, and whole pages: some of it is left.
                assert!(taken > 0.7, "{spec}, {how} to a part of {part}: takes {taken} of its cap");
            }
        }
    }
}

#[test]
fn a_cap_that_cannot_be_is_refused_and_changes_nothing() {
    let shape = shape();
    let stream = Stream::new(&shape, 300, 3);
    let (pool, mut workspace) = (ThreadPool::new(1), AttentionWorkspace::new());
    let mut capped = cache(&shape, "h2o@600KiB");
    stream.run(&mut capped, &pool, 0, 300, 100);
    let (spec, kept) = (capped.spec().clone(), capped.kept(0));
    let error = capped.set_cap(Cap::Bytes(1024), &pool, &mut workspace).unwrap_err();
    assert!(matches!(error, CacheError::CapTooSmall { cap: 1024, .. }), "{error}");
    assert_eq!((capped.spec(), capped.kept(0)), (&spec, kept));
    let error = cache(&shape, "full").set_cap(Cap::Bytes(1 << 20), &pool, &mut workspace).unwrap_err();
    assert!(error.to_string().contains("choose a keep"), "{error}");
}

/// A spec has public fields: what no parser has seen is looked at before a cache runs it.
#[test]
fn a_spec_that_contradicts_itself_makes_no_cache() {
    let evicting: Spec = "h2o+critical+buckets+adaptive@64tok".parse().unwrap();
    let full = Spec::default();
    for (spec, says) in [
        (Spec { cap: Cap::Tokens(64), ..full.clone() }, "a cap with `full`"),
        (Spec { tail: evicting.tail.clone(), ..full.clone() }, "no tail"),
        (Spec { refine: evicting.refine.clone(), ..full.clone() }, "no importance"),
        (Spec { budget: evicting.budget.clone(), ..full.clone() }, "no budget"),
    ] {
        match Cache::new(shape(), &spec, 1) {
            Err(CacheError::Spec(error)) => assert!(error.contains(says), "{error}"),
            other => panic!("{spec}: {:?}", other.err()),
        }
    }
    assert!(Cache::new(shape(), &full, 1).is_ok() && Cache::new(shape(), &evicting, 1).is_ok());
}

#[test]
fn heads_of_all_layers_compete() {
    let shape = shape();
    let mut stream = Stream::new(&shape, 600, 8);
    // Queries of the first layer look at everything alike; those of the second at few keys.
    stream.q[0].iter_mut().for_each(|q| *q *= 0.01);
    stream.q[1].iter_mut().for_each(|q| *q *= 3.0);
    let pool = ThreadPool::new(1);
    let kept = |spec: &str| {
        let mut cache = cache(&shape, spec);
        stream.run(&mut cache, &pool, 0, 600, 50);
        [0, 1].map(|layer| cache.kept(layer).iter().sum::<usize>())
    };
    let [flat, steep] = kept("h2o(decay=1)+adaptive@128tok");
    assert_eq!(flat + steep, 4 * 128);
    assert!(flat > steep + 32, "{flat} and {steep}");
    // Nobody falls below the floor.
    let [_, steep] = kept("h2o(decay=1,recent=8)+adaptive(floor=0.75)@128tok");
    assert!(steep >= 2 * 96, "{steep}");
}

#[test]
fn a_forecast_is_what_comes() {
    let shape = shape();
    let stream = Stream::new(&shape, 1400, 3);
    for spec in
        ["full", "full+graded", "window@200KiB", "expected+progressive@350KiB", "h2o+q8@256tok", "h2o@25%"]
    {
        let mut cache = cache(&shape, spec);
        let foreseen = cache.forecast(1400);
        stream.run(&mut cache, &ThreadPool::new(1), 0, 1400, 100);
        let (kept, bytes) = (cache.kept(0)[0] as f64, cache.ledger().total() as f64);
        assert!((kept - foreseen.kept).abs() <= 64.0, "{spec}: {kept} are kept, foreseen were {foreseen:?}");
        let off = foreseen.bytes as f64 / bytes - 1.0;
        assert!(off > -0.02 && off < 0.1, "{spec}: {bytes} bytes, foreseen were {foreseen:?}");
    }
    let many = cache(&shape, "full+progressive").forecast(1400);
    assert_eq!((many.key_bits, many.value_bits, many.exact), (8.0, 8.0, 64.0));
    let few = cache(&shape, "expected+progressive@350KiB").forecast(1400);
    assert!(few.key_bits < 5.0 && few.key_bits >= 3.0, "{few:?}");
}

#[test]
fn windows_come_no_better_off_than_the_others() {
    let layer = LayerShape::new(4, 1, 64);
    let windowed = LayerShape { window: Some(512), ..layer.clone() };
    let layers = (0..6).map(|index| if index == 2 { layer.clone() } else { windowed.clone() }).collect();
    let shape = CacheShape { layers, ..CacheShape::uniform(6, layer, 4096) };
    let stream = Stream::new(&shape, 4096, 3);
    let full = shape.f16_bytes(4096);
    let cases = [
        ("foreseen+progressive", 2, 512),
        ("foreseen+progressive", 4, 256),
        ("foreseen+progressive", 8, 128),
        ("expected+progressive+adaptive", 4, 256),
        ("h2o", 4, 256),
        ("h2o+ada+q8", 4, 256),
        ("window+graded", 6, 256),
    ];
    for (spec, part, chunk) in cases {
        let spec = format!("{spec}@{}B", full / part);
        let mut cache = cache(&shape, &spec);
        for first in (0..4096).step_by(chunk) {
            stream.run(&mut cache, &ThreadPool::new(2), first, chunk, chunk);
            assert_within(&cache, &format!("{spec} after {}", first + chunk));
        }
        let kept = |layer: usize| cache.kept(layer)[0] as f64;
        let (window, other) = (kept(0) / 512.0, kept(2) / 4096.0);
        assert!(window < 2.0 * other + 0.2, "{spec}: {window} of a window is kept, {other} of the others");
    }
}

#[test]
fn a_cache_never_takes_more_than_it_says() {
    let uniform = CacheShape::uniform(3, LayerShape::new(4, 2, 64), 4096);
    let layer = LayerShape::new(4, 2, 64);
    let windowed = LayerShape { window: Some(64), ..layer.clone() };
    let mixed = CacheShape { layers: vec![windowed, layer], ..uniform.clone() };
    let specs = [
        "full",
        "full+q8",
        "full+q4h",
        "full+kivi4",
        "full+tq4",
        "full+graded",
        "auto",
        "auto@25%",
        "auto@50%",
        "auto@200KiB",
        "h2o+q8@25%",
        "expected+q4h@50%",
        "window@25%",
        "snapkv+kivi4@25%",
        "h2o+ada@25%",
        "foreseen+progressive+adaptive@30%",
        "full+q8+topk(k=64)",
        "h2o+merge@25%",
        "window+buckets@25%",
        "h2o@100tok",
    ];
    let pool = ThreadPool::new(1);
    for shape in [uniform, mixed] {
        for spec in specs {
            let Ok(parsed) = spec.parse() else { panic!("{spec}") };
            let Ok(mut cache) = Cache::new(shape.clone(), &parsed, 0) else { continue };
            let stream = Stream::new(&shape, 500, 7);
            for (first, tokens) in
                (0..300).step_by(32).map(|first| (first, 32)).chain((320..500).map(|at| (at, 1)))
            {
                stream.run(&mut cache, &pool, first, tokens, tokens);
                let (taken, said) = (cache.ledger().total(), cache.most_bytes(first + tokens));
                assert!(
                    taken <= said,
                    "{spec}: {taken} of {said} at {}: {:?}",
                    first + tokens,
                    cache.ledger()
                );
            }
        }
    }
}

/// What is kept free on the way is a small part of a cap: slots for the tokens until the next choice, and for strips that open.
#[test]
fn a_cap_is_used() {
    let shape = CacheShape::uniform(6, LayerShape::new(14, 2, 64), 4096);
    let (tokens, pool) = (2048, ThreadPool::new(2));
    let stream = Stream::new(&shape, tokens, 5);
    for (cap, least) in [(750 << 10, 0.93), (1500 << 10, 0.95)] {
        let mut cache = cache(&shape, &format!("foreseen+progressive+adaptive@{cap}B"));
        for first in (0..tokens).step_by(256) {
            stream.run(&mut cache, &pool, first, 256, 256);
            let used = cache.ledger().total() as f64 / cap as f64;
            // Of fewer tokens all have 8 bits.
            assert!(first < 768 || used > least, "{used} of {cap} bytes after {first} tokens and 256 more");
        }
    }
}
