//! What every method and composition must do, derived from the registry.

mod common;

use common::{Stream, cache, shape};
use proptest::prelude::*;
use sketchkv_cache::method::{Call, Choice};
use sketchkv_cache::{Cache, CacheError, CacheShape, Cap, Ledger, Registry, Spec, registry};
use sketchkv_kernels::ThreadPool;

fn names(choice: Choice) -> Vec<&'static str> {
    Registry::builtin().methods().filter(|m| m.choice == choice).map(|m| m.name).collect()
}

/// Every method alone, in the company that it needs.
fn each_alone() -> Vec<String> {
    let mut specs = vec!["full".to_owned()];
    for keep in names(Choice::Keep).into_iter().filter(|&k| k != "full") {
        specs.push(format!("{keep}@25%"));
        specs.push(format!("{keep}+q8@160tok"));
    }
    for refine in names(Choice::Refine) {
        specs.push(format!("h2o+{refine}@30%"));
        specs.push(format!("snapkv+{refine}+q8@128tok"));
        specs.push(format!("foreseen+{refine}+progressive+adaptive@30%"));
    }
    for store in names(Choice::Store) {
        specs.push(format!("full+{store}"));
        specs.push(format!("h2o+k={store}@30%"));
        specs.push(format!("window+v={store}@200KiB"));
    }
    for tail in names(Choice::Tail) {
        specs.push(format!("h2o+{tail}@30%"));
    }
    for read in names(Choice::Read) {
        specs.push(format!("full+{read}"));
        specs.push(format!("h2o+{read}@30%"));
    }
    for budget in names(Choice::Budget) {
        specs.push(format!("h2o+{budget}@30%"));
        specs.push(format!("h2o+{budget}@128tok"));
    }
    specs
}

/// Streams tokens through a cache and checks what must hold after every chunk.
fn conform(spec: &str, chunks: &[usize], seed: u64) {
    let shape = shape();
    let tokens = chunks.iter().sum();
    let stream = Stream::new(&shape, tokens, seed);
    let pool = ThreadPool::new(1);
    let parsed: Spec = spec.parse().unwrap_or_else(|e| panic!("{spec}: {e}"));
    assert_eq!(parsed.to_string().parse::<Spec>().unwrap(), parsed, "the text of a spec reads back");
    let sinks = parsed.keep.method().parameters.iter().any(|p| p.name == "sinks") as usize * 4;
    let mut first = Cache::new(shape.clone(), &parsed, seed).unwrap_or_else(|e| panic!("{spec}: {e}"));
    let mut second = Cache::new(shape.clone(), &parsed, seed).unwrap();
    let two = ThreadPool::new(2);
    let mut at = 0;
    for &chunk in chunks {
        let outputs = stream.run(&mut first, &pool, at, chunk, chunk);
        assert_eq!(
            outputs,
            stream.run(&mut second, &two, at, chunk, chunk),
            "{spec}: threads change results"
        );
        at += chunk;
        assert!(outputs.iter().flatten().all(|x| x.is_finite()), "{spec}: not a number after {at}");
        let ledger = first.ledger();
        if let Some(cap) = first.cap_bytes() {
            assert!(
                ledger.total() <= cap,
                "{spec}: {} of {cap} bytes after {at}: {ledger:?}",
                ledger.total()
            );
        }
        for layer in 0..shape.layers.len() {
            for head in 0..shape.layers[0].kv_heads {
                let kept = first.positions(layer, head);
                for sink in 0..sinks.min(at) {
                    assert!(kept.contains(&sink), "{spec}: sink {sink} gone after {at}");
                }
                assert!(kept.contains(&(at - 1)), "{spec}: the newest token gone after {at}");
            }
        }
    }
    // A share that the stores alone stay below never binds; a number of tokens always does.
    if spec.ends_with("tok") || parsed.cap == Cap::None {
        assert_eq!(first.has_evicted(), parsed.cap != Cap::None, "{spec} after {at}");
    }
}

#[test]
fn every_method_alone() {
    for spec in each_alone() {
        conform(&spec, &[1, 7, 100, 1, 1, 1, 64, 1, 1, 160, 1, 1, 1, 1, 1, 30], 11);
    }
}

/// Bit for bit, in outputs and in state, wherever the cache goes back to.
#[test]
fn guesses_are_taken_in_as_one_token_after_another_is() {
    let shape = shape();
    let stream = Stream::new(&shape, 300, 17);
    let pool = ThreadPool::new(2);
    let presets =
        registry::PRESETS.iter().flat_map(|preset| [format!("{}@30%", preset.name), preset.name.into()]);
    let rivals = ["h2o+adaptive@60KiB", "h2o+adaptive(floor=0.1)+kivi2@96tok", "auto@90KiB", "auto@120KiB"];
    for spec in each_alone().into_iter().chain(presets).chain(rivals.map(String::from)) {
        let mut alone = cache(&shape, &spec);
        stream.run(&mut alone, &pool, 0, 150, 50);
        let mut guessed = alone.fork();
        let (mut at, mut round, mut all) = (150, 0, 0);
        while at < 240 {
            let (count, wanted) = ([2, 5, 8, 3][round % 4], [1, 5, 3, 2, 7][round % 5]);
            let outputs = stream.run(guessed.guess(), &pool, at, count, count);
            let taken = guessed.position() - at;
            let stay = taken.min(wanted);
            assert!(taken >= 1 && taken <= count, "{spec}");
            all += usize::from(taken == count);
            guessed.go_back(at + stay).unwrap_or_else(|e| panic!("{spec}: {e}"));
            let expected = stream.run(&mut alone, &pool, at, stay, 1);
            for (output, expected) in outputs.iter().zip(&expected) {
                assert!(output[..expected.len()] == expected[..], "{spec} at {at}: another output");
            }
            assert!(guessed.to_bytes() == alone.to_bytes(), "{spec} at {at}: another state");
            assert_eq!(guessed.ledger(), alone.ledger(), "{spec} at {at}");
            (at, round) = (at + stay, round + 1);
        }
        // Where heads compete for one cap a pass may be cut short, but not as a rule.
        assert!(
            all == round || spec.contains("adaptive") || spec.contains('@') && all * 4 > round,
            "{spec}: {all} of {round}"
        );
    }
}

#[test]
fn guesses_take_no_more_than_was_said() {
    let shape = shape();
    let stream = Stream::new(&shape, 400, 19);
    let pool = ThreadPool::new(1);
    for spec in each_alone().into_iter().chain(["auto@90KiB", "auto@120KiB"].map(String::from)) {
        let mut cache = cache(&shape, &spec);
        stream.run(&mut cache, &pool, 0, 150, 50);
        let begun = cache.guess_bytes();
        while cache.position() < 380 {
            let (at, count) = (cache.position(), 1 + cache.position() % 11);
            let (each, before) = (cache.guess_bytes(), cache.ledger().total());
            let allocated = allocation_counter::measure(|| {
                stream.run(cache.guess(), &pool, at, count, count);
            });
            let grown = cache.ledger().total() as i64 - before as i64;
            let taken = allocated.bytes_current - grown;
            assert!(
                taken <= (count * each) as i64,
                "{spec} at {at}: {count} guesses took {taken} bytes, {each} each"
            );
        }
        // Of a cache that only grows, all but the newest pages is shared, however long it gets.
        assert!(
            spec != "full+q8" || cache.guess_bytes() < begun * 5 / 4,
            "{} after {begun}",
            cache.guess_bytes()
        );
    }
}

#[test]
fn only_the_last_guesses_can_be_gone_back_into() {
    let shape = shape();
    let stream = Stream::new(&shape, 60, 3);
    let pool = ThreadPool::new(1);
    let mut cache = cache(&shape, "h2o@32tok");
    stream.run(&mut cache, &pool, 0, 30, 30);
    assert!(cache.go_back(29).is_err() && cache.go_back(31).is_err() && cache.go_back(30).is_ok());
    stream.run(cache.guess(), &pool, 30, 4, 4);
    assert!(cache.go_back(30).is_err(), "for what is before its first token there are forks");
    stream.run(cache.guess(), &pool, 34, 4, 4);
    cache.go_back(35).unwrap();
    assert_eq!(cache.position(), 35);
    assert!(cache.go_back(34).is_err(), "the other states are given up");
    stream.run(&mut cache, &pool, 35, 2, 2);
    assert!(cache.go_back(36).is_err(), "these were no guesses");
}

#[test]
fn the_ledger_is_what_the_allocator_saw() {
    let shape = shape();
    let stream = Stream::new(&shape, 700, 5);
    let pool = ThreadPool::new(1);
    for spec in each_alone() {
        // A first run, long enough to evict, brings in whatever is made once for all caches.
        stream.run(&mut cache(&shape, &spec), &pool, 0, 300, 100);
        let mut ledger = Ledger::default();
        let mut made = None;
        let allocated = allocation_counter::measure(|| {
            let mut cache = cache(&shape, &spec);
            for (first, tokens, chunk) in [(0, 300, 100), (300, 400, 1)] {
                stream.run(&mut cache, &pool, first, tokens, chunk);
            }
            ledger = cache.ledger();
            made = Some(cache);
        });
        let seen = allocated.bytes_current as f64 + size_of::<Cache>() as f64;
        let off = (ledger.total() as f64 / seen - 1.0).abs();
        assert!(off < 0.01, "{spec}: ledger {}, allocator {seen}: {ledger:?}", ledger.total());
    }
}

/// With its own parameters, what a sketch or an index needs is small beside the keys and values it stands for: those kept
/// where it chooses among them, those evicted where it remembers them.
#[test]
fn sketches_and_indexes_are_small() {
    const TOKENS: usize = 4096;
    let shape = CacheShape { layers: vec![shape().layers.remove(0)], ..shape() };
    let stream = Stream::new(&shape, TOKENS, 3);
    let pool = ThreadPool::new(2);
    let keeps = names(Choice::Keep).into_iter().filter(|&k| k != "full").map(|keep| format!("{keep}@25%"));
    let reads = names(Choice::Read).into_iter().map(|read| format!("full+{read}"));
    let tails = names(Choice::Tail).into_iter().map(|tail| format!("window+{tail}@25%"));
    for spec in keeps.chain(reads).chain(tails) {
        let mut cache = cache(&shape, &spec);
        stream.run(&mut cache, &pool, 0, TOKENS, 512);
        let ledger = cache.ledger();
        let kept = ledger.keys + ledger.values;
        let evicted = shape.f16_bytes(TOKENS) - kept;
        let share = (ledger.sketches + ledger.codes) as f64 / ledger.total() as f64;
        assert!(share <= 0.05, "{spec}: {share:.3} of all bytes: {ledger:?}");
        let share = ledger.tail as f64 / evicted.max(1) as f64;
        assert!(share <= 0.05, "{spec}: {share:.3} of the bytes evicted: {ledger:?}");
    }
}

#[test]
fn a_cap_beyond_the_sequence_changes_nothing() {
    let shape = shape();
    let stream = Stream::new(&shape, 200, 9);
    let pool = ThreadPool::new(1);
    for keep in names(Choice::Keep).into_iter().filter(|&k| k != "full") {
        for store in ["f32", "q8", "kivi4"] {
            let want = stream.run(&mut cache(&shape, &format!("full+{store}")), &pool, 0, 200, 25);
            let got = stream.run(&mut cache(&shape, &format!("{keep}+{store}@64MiB")), &pool, 0, 200, 25);
            assert_eq!(got, want, "{keep}+{store}");
        }
    }
}

#[test]
fn a_fork_goes_its_own_way() {
    let shape = shape();
    let stream = Stream::new(&shape, 300, 2);
    let pool = ThreadPool::new(1);
    for spec in each_alone() {
        let mut whole = cache(&shape, &spec);
        stream.run(&mut whole, &pool, 0, 200, 40);
        let mut fork = whole.fork();
        let other = Stream::new(&shape, 300, 77);
        other.run(&mut fork, &pool, 200, 60, 20);
        let mut straight = cache(&shape, &spec);
        stream.run(&mut straight, &pool, 0, 200, 40);
        let got = stream.run(&mut whole, &pool, 200, 100, 10);
        assert_eq!(got, stream.run(&mut straight, &pool, 200, 100, 10), "{spec}: a fork changed its origin");
    }
}

#[test]
fn a_saved_cache_goes_on_bit_for_bit() {
    let shape = shape();
    let stream = Stream::new(&shape, 300, 6);
    let pool = ThreadPool::new(1);
    for spec in each_alone() {
        let mut whole = cache(&shape, &spec);
        stream.run(&mut whole, &pool, 0, 217, 40);
        let mut loaded =
            Cache::from_bytes(&whole.to_bytes(), shape.clone()).unwrap_or_else(|e| panic!("{spec}: {e}"));
        assert_eq!(loaded.ledger(), whole.ledger(), "{spec}");
        let want = stream.run(&mut whole, &pool, 217, 83, 1);
        assert_eq!(stream.run(&mut loaded, &pool, 217, 83, 1), want, "{spec}");
        assert_eq!(loaded.to_bytes(), whole.to_bytes(), "{spec}");
    }
}

#[test]
fn truncating_and_resetting_forget() {
    let shape = shape();
    let stream = Stream::new(&shape, 300, 4);
    let pool = ThreadPool::new(1);
    for spec in ["full", "full+q8", "full+q4h", "window+q8@64MiB", "h2o@64MiB", "h2o@100tok"] {
        let mut cut = cache(&shape, spec);
        stream.run(&mut cut, &pool, 0, 250, 50);
        match cut.truncate(120) {
            Ok(()) => {
                let mut straight = cache(&shape, spec);
                stream.run(&mut straight, &pool, 0, 120, 40);
                let want = stream.run(&mut straight, &pool, 120, 30, 1);
                assert_eq!(cut.position(), 120);
                let got = stream.run(&mut cut, &pool, 120, 30, 1);
                assert_eq!(cut.positions(0, 1), straight.positions(0, 1), "{spec}");
                if spec == "full+q4h" {
                    // Tokens that were coded before the cut stay coded.
                    let far = got.iter().flatten().zip(want.iter().flatten());
                    let far = far.fold(0.0f32, |far, (x, y)| far.max((x - y).abs()));
                    assert!(far > 0.0 && far < 0.2, "{spec}: {far}");
                } else {
                    assert_eq!(got, want, "{spec}");
                    assert_eq!(cut.ledger(), straight.ledger(), "{spec}");
                }
            }
            Err(CacheError::Unsupported(why)) => assert!(spec.starts_with("h2o"), "{why}"),
            Err(other) => panic!("{other}"),
        }
        cut.reset();
        let want = stream.run(&mut cache(&shape, spec), &pool, 0, 200, 50);
        assert_eq!(stream.run(&mut cut, &pool, 0, 200, 50), want, "{spec}: reset left something");
    }
}

#[test]
fn ada_gives_heads_different_numbers_of_slots() {
    let shape = shape();
    let mut stream = Stream::new(&shape, 600, 8);
    // Queries of the first KV head look at everything alike; those of the second at few keys.
    let d = shape.layers[0].key_dim;
    for (i, q) in stream.q[0].iter_mut().enumerate() {
        *q *= if i / d % shape.layers[0].heads < 3 { 0.01 } else { 3.0 };
    }
    let mut cache = cache(&shape, "h2o(decay=1)+ada@128tok");
    stream.run(&mut cache, &ThreadPool::new(1), 0, 600, 1);
    let kept = cache.kept(0);
    assert_eq!(kept.iter().sum::<usize>(), 2 * 128, "{kept:?}");
    assert!(kept[0].abs_diff(kept[1]) > 16, "{kept:?}");
}

#[test]
fn bad_specs_say_what_to_do() {
    for (spec, says) in [
        ("h20@25%", "`h2o`"),
        ("full@25%", "evicts nothing"),
        ("h2o(dcay=1)@25%", "decay"),
        ("h2o(decay=2)@25%", "from 0 to 1"),
        ("h2o@25", "@25%"),
        ("h2o@0%", "@25%"),
        ("h2o+window@25%", "chosen twice"),
        ("full+k=q8+q4", "chosen twice"),
        ("h2o(decay=0.99,decay=0.1)@25%", "`decay` is given twice"),
        ("h2o(sinks=2, sinks=2)@25%", "`sinks` is given twice"),
        ("h2o@25%@50%", "more than one `@`"),
        ("k=h2o", "no store"),
        ("h2o(decay=0.5@25%", "not closed"),
        ("", "missing"),
        ("h2o++q8@25%", "missing"),
    ] {
        let error = spec.parse::<Spec>().expect_err(spec).to_string();
        assert!(error.contains(says), "{spec}: {error}");
        assert!(!error.contains('\n'));
    }
    let tiny = Cache::new(shape(), &"h2o@1KiB".parse().unwrap(), 1).err().unwrap();
    let CacheError::CapTooSmall { minimum, .. } = tiny else { panic!("{tiny}") };
    let spec: Spec = format!("h2o@{minimum}B").parse().unwrap();
    assert!(Cache::new(shape(), &spec, 1).is_ok());
    assert!(Cache::new(shape(), &format!("h2o@{}B", minimum - 1).parse().unwrap(), 1).is_err());
}

#[test]
fn the_registry_is_sound() {
    let mut seen = std::collections::HashSet::new();
    for method in Registry::builtin().methods() {
        assert!(seen.insert((method.choice, method.name)), "{} twice", method.name);
        assert!(!method.summary.is_empty() && !method.formula.is_empty() && !method.state.is_empty());
        // Every default is a value, or this panics; and what is not the default reads back.
        assert_eq!(Call::new(method).to_string(), method.name);
    }
}

#[test]
fn presets_conform() {
    for preset in registry::PRESETS {
        for (written, stands_for) in [
            (preset.name.to_owned(), preset.spec.to_owned()),
            (format!("{}@40%", preset.name), format!("{}@40%", preset.capped)),
        ] {
            let spec: Spec = written.parse().unwrap();
            assert_eq!(spec.preset, Some(preset.name));
            assert_eq!(spec, stands_for.parse().unwrap());
            // What it prints as is the composition, which reads back as the same cache.
            assert_eq!(spec, spec.to_string().parse().unwrap());
            conform(&spec.to_string(), &[100, 1, 30, 1, 200], 3);
        }
        let error = format!("{}+q8@25%", preset.name).parse::<Spec>();
        assert!(preset.name == "topk" || error.unwrap_err().to_string().contains("is a preset"));
    }
}

fn composition() -> impl Strategy<Value = String> {
    let keeps: Vec<_> = names(Choice::Keep).into_iter().filter(|&k| k != "full").collect();
    let pick = |names: Vec<&'static str>| prop::sample::select(names);
    (
        pick(keeps),
        pick(names(Choice::Refine)),
        pick(names(Choice::Store)),
        pick(names(Choice::Store)),
        pick(names(Choice::Tail)),
        pick(names(Choice::Read)),
        pick(names(Choice::Budget)),
        pick(vec!["@40%", "@96tok", "@400KiB", "@150tok"]),
    )
        .prop_map(|(keep, refine, k, v, tail, read, budget, cap)| {
            let spec = |refine| format!("{keep}+{refine}+k={k}+v={v}+{tail}+{read}+{budget}{cap}");
            match Cache::new(shape(), &spec(refine).parse().unwrap(), 0) {
                // What does not make sense together is refused with the reason, and goes without that refinement.
                Err(CacheError::Unsupported(reason)) => {
                    assert!(reason.contains(refine), "{reason}");
                    spec("plain")
                }
                _ => spec(refine),
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn compositions_conform(
        spec in composition(),
        mut chunks in prop::collection::vec(prop_oneof![Just(1usize), 1usize..40, 40usize..200], 6..14),
        seed in 0u64..1000,
    ) {
        chunks.push(300);
        conform(&spec, &chunks, seed);
    }
}

/// What random compositions have found.
#[test]
fn what_once_failed_conforms() {
    for (spec, chunks, seed) in [
        // A head of few tokens took its whole part in fine codes, though the other one had more than its own.
        ("hashevict+k=progressive+v=bf16+race+ada@400KiB", vec![1, 121, 6, 18, 100, 1, 300], 978),
        // A page takes less than its strips one by one, and little else was there.
        ("window+k=tq4+v=progressive+buckets@40%", vec![22, 125, 17, 1, 123, 28, 300], 320),
        ("cms+k=tq4+v=progressive+pyramid@400KiB", vec![129, 1, 1, 1, 1, 9, 21, 1, 300], 371),
    ] {
        conform(spec, &chunks, seed);
    }
}
