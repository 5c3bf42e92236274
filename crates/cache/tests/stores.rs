//! What stores give back: over long streams, where slots are taken again and again.

mod common;

use common::{Random, Stream, cache};
use sketchkv_cache::Cache;
use sketchkv_kernels::ThreadPool;

/// Mean squared error of the keys that a cache holds, as a share of their mean square.
fn lost(cache: &Cache, stream: &Stream) -> f64 {
    let (d, kv) = (stream.shape.layers[0].key_dim, stream.shape.layers[0].kv_heads);
    let (mut error, mut square) = (0.0, 0.0);
    for head in 0..kv {
        let slots = cache.slots(0, head);
        for (&position, held) in slots.positions.iter().zip(slots.keys.chunks_exact(d)) {
            let exact = &stream.k[0][(position * kv + head) * d..][..d];
            for (&x, &y) in exact.iter().zip(held) {
                error += f64::from(x - y).powi(2);
                square += f64::from(x).powi(2);
            }
        }
    }
    error / square
}

/// Grids of sealed pages only ever widen, so what they cost must level off: 20,000 tokens, of which one in a thousand
/// has a key far outside what its page has seen.
#[test]
fn grids_do_not_decay_over_twenty_thousand_tokens() {
    const TOKENS: usize = 20_000;
    let mut random = Random::new(5);
    let mut stream = Stream::new(&Stream::real().shape, TOKENS, 17);
    let d = stream.shape.layers[0].key_dim;
    for key in stream.k[0].chunks_exact_mut(d) {
        if random.uniform() < 1e-3 {
            key[(random.uniform() * d as f32) as usize] *= 3.0;
        }
    }
    let pool = ThreadPool::new(1);
    for spec in ["window+k=kivi4+v=q4@320tok", "random+kivi4@320tok", "h2o+k=kivi2+v=q4@320tok"] {
        let mut cache = cache(&stream.shape, spec);
        let mut measured = vec![];
        for thousand in 0..TOKENS / 1000 {
            stream.run(&mut cache, &pool, 1000 * thousand, 1000, 1);
            measured.push(lost(&cache, &stream));
        }
        let fresh = measured[0];
        println!(
            "{spec}: keys lose {:.5} of their square after 1,000 tokens, {:.5} after {TOKENS}",
            fresh, measured[19]
        );
        assert!(fresh > 0.0);
        // Random values swing a little from one measurement to the next: means of the halves are compared, too.
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (early, late) = (mean(&measured[5..10]), mean(&measured[15..]));
        assert!(late < 1.15 * early, "{spec}: {early} grew to {late}");
        assert!(measured[19] < 2.0 * fresh, "{spec}: {measured:?}");
    }
}

/// Until they are sealed, tokens of `progressive` take half the bytes of f16, but where nothing is to go, and where keys have biases: a channel that is far
/// larger than the others would leave these no bits.
#[test]
fn what_waits_is_in_8_bits_unless_keys_are_biased() {
    let mut stream = Stream::new(&Stream::real().shape, 16, 29);
    let d = stream.shape.layers[0].key_dim;
    let pool = ThreadPool::new(1);
    let exact = stream.shape.f16_bytes(16);
    let mut held = |biased: bool, bias: f32| {
        stream.k[0].chunks_exact_mut(d).for_each(|key| key[3] = bias);
        stream.shape.layers.iter_mut().for_each(|layer| layer.biased_keys = biased);
        let mut cache = cache(&stream.shape, "window+progressive@1MiB");
        stream.run(&mut cache, &pool, 0, 16, 1);
        let ledger = cache.ledger();
        // The channel itself is exact enough either way: what the others lose counts.
        stream.k[0].chunks_exact_mut(d).for_each(|key| key[3] = 0.0);
        let without = |slots: sketchkv_cache::Slots| {
            let keys = slots.keys.chunks_exact(d).zip(&slots.positions);
            let errors = keys.flat_map(|(key, position)| {
                let row = position * stream.shape.layers[0].kv_heads * d;
                key.iter()
                    .zip(&stream.k[0][row..])
                    .enumerate()
                    .map(|(channel, (x, y))| if channel == 3 { 0.0 } else { f64::from(x - y).powi(2) })
            });
            errors.sum::<f64>()
        };
        assert_eq!(cache.holding().exact_bits, if biased { 12.0 } else { 8.0 });
        ((ledger.keys + ledger.values + ledger.scales) as f64 / exact as f64, without(cache.slots(0, 0)))
    };
    let ((small, usual), (_, coarse)) = (held(false, 1.0), held(false, 500.0));
    let (large, kept) = held(true, 500.0);
    let mut whole = cache(&stream.shape, "full+progressive");
    stream.run(&mut whole, &pool, 0, 16, 1);
    assert_eq!(whole.holding().exact_bits, 12.0);
    assert!(small < 0.54 && large > 0.74, "{small} {large}");
    assert!(coarse > 1000.0 * usual && kept < usual, "{usual} {coarse} {kept}");
}

/// The newest tokens draw the most attention, and coarse codes cost them the most: they stay in f16 until the next ones
/// come, under a cap too, and whatever was evicted among them.
#[test]
fn the_newest_tokens_wait_in_f16() {
    let mut stream = Stream::new(&Stream::real().shape, 1500, 23);
    stream.v.clone_from(&stream.k);
    let (d, kv) = (stream.shape.layers[0].key_dim, stream.shape.layers[0].kv_heads);
    let pool = ThreadPool::new(1);
    for spec in [
        "window+k=kivi4+v=q4@12%",
        "window+q4h@12%",
        "expected+tq3+pyramid@12%",
        "window+k=kivi2+v=tq2@64KiB",
        "expected+kivi4@12%",
        "tova(recent=16)+k=kivi4+v=tq4+ada@12%",
        "h2o(recent=16)+k=kivi4+v=q4+topk@16%",
    ] {
        let mut cache = cache(&stream.shape, spec);
        for (at, chunk) in [(0, 700), (700, 1), (701, 64), (765, 700), (1465, 1), (1466, 1), (1467, 33)] {
            stream.run(&mut cache, &pool, at, chunk, if chunk > 100 { 1 } else { chunk });
            let seen = at + chunk;
            assert!(cache.has_evicted(), "{spec}");
            let (mut newest, mut older): (f32, f32) = (0.0, 0.0);
            for head in 0..kv {
                let slots = cache.slots(0, head);
                let held = slots.keys.chunks_exact(d).zip(slots.values.chunks_exact(d));
                for (&position, (key, value)) in slots.positions.iter().zip(held) {
                    let exact = &stream.k[0][(position * kv + head) * d..][..d];
                    let worst = if position + 16 >= seen { &mut newest } else { &mut older };
                    for (&x, (&k, &v)) in exact.iter().zip(key.iter().zip(value)) {
                        *worst = worst.max((x - k).abs()).max((x - v).abs());
                    }
                }
            }
            assert!(newest < 0.01 && older > 0.05, "{spec} after {seen}: {newest} and {older}");
        }
    }
}

/// Bytes buy bits as long as they can: pages go down, no token does, and what is lost grows with the text. Only when all
/// pages have the fewest bits are tokens evicted. The cap holds all the while, however the tokens come.
#[test]
fn pages_lose_bits_before_tokens_go() {
    const TOKENS: usize = 1536;
    let stream = Stream::new(&Stream::real().shape, TOKENS, 31);
    let bytes = stream.shape.f16_bytes(TOKENS);
    let pool = ThreadPool::new(1);
    for chunk in [1, 96, 256] {
        let run = |cache: &mut Cache, to: usize| {
            while cache.position() < to {
                stream.run(cache, &pool, cache.position(), chunk, chunk);
                let (total, cap) = (cache.ledger().total(), cache.cap_bytes().unwrap());
                assert!(total <= cap, "{total} of {cap} bytes after {}", cache.position());
            }
        };
        let mut third = cache(&stream.shape, &format!("{}B", bytes * 7 / 20));
        assert_eq!(third.spec().preset, Some("auto"));
        let mut losses = vec![];
        for part in 1..=4 {
            run(&mut third, TOKENS / 4 * part);
            losses.push(lost(&third, &stream));
        }
        assert!(!third.has_evicted());
        assert!(losses.is_sorted() && losses[0] < 1e-4 && losses[3] > 10.0 * losses[0], "{losses:?}");
        let mut graded = cache(&stream.shape, "full+graded(bits=3)");
        stream.run(&mut graded, &pool, 0, TOKENS, chunk);
        assert!(losses[3] < lost(&graded, &stream), "{losses:?}");
        let mut eighth = cache(&stream.shape, &format!("{}B", bytes / 6));
        run(&mut eighth, TOKENS);
        assert!(eighth.has_evicted());
        // A fork goes down by itself.
        let mut origin = cache(&stream.shape, &format!("{}B", bytes * 7 / 20));
        run(&mut origin, TOKENS / 2 / 256 * 256);
        let (before, mut fork) = (lost(&origin, &stream), origin.fork());
        run(&mut fork, TOKENS);
        assert!(lost(&fork, &stream) > before && lost(&origin, &stream) == before);
        // What is new after a cut has the bits that there is room for.
        let mut cut = cache(&stream.shape, &format!("window+progressive@{}B", bytes * 7 / 20));
        run(&mut cut, TOKENS);
        let all = lost(&cut, &stream);
        cut.truncate(TOKENS / 4).unwrap();
        run(&mut cut, TOKENS / 2);
        assert!(lost(&cut, &stream) < all);
        fork.reset();
        run(&mut fork, TOKENS / 4);
        assert_eq!(lost(&fork, &stream), losses[0], "a reset left something");
    }
}
