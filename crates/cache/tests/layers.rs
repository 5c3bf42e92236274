//! Layers that differ: in heads, widths, scale, softcap and sliding window.

mod common;

use common::{Stream, cache, largest_difference};
use sketchkv_cache::method::Choice;
use sketchkv_cache::{CacheError, CacheShape, LayerShape, OutputProjection, Registry, registry};
use sketchkv_kernels::ThreadPool;

const WINDOW: usize = 48;

/// A sliding layer, a global one of other widths and heads, a sliding one with softcap, and one whose values are narrower
/// than its keys.
fn mixed() -> CacheShape {
    let layers = vec![
        LayerShape { window: Some(WINDOW), ..LayerShape::new(4, 1, 80) },
        LayerShape { scale: 0.05, ..LayerShape::new(6, 3, 128) },
        LayerShape { window: Some(WINDOW), softcap: Some(2.0), ..LayerShape::new(4, 4, 64) },
        LayerShape { value_dim: 40, softcap: Some(5.0), ..LayerShape::new(8, 2, 256) },
    ];
    let grams = |layers: &[LayerShape]| -> Vec<Vec<f32>> {
        layers.iter().map(|layer| common::output_grams(layer.kv_heads, layer.value_dim)).collect()
    };
    let owned = layers.clone();
    CacheShape {
        layers,
        context: 4096,
        output: Some(OutputProjection::new(move || grams(&owned))),
        scorer: None,
    }
}

/// Every layer's output equals its formula, step by step, in chunks shorter and longer than the window.
#[test]
fn every_layer_attends_as_its_shape_says() {
    let shape = mixed();
    let tokens = 260;
    let stream = Stream::new(&shape, tokens, 21);
    let pool = ThreadPool::new(2);
    for (spec, tolerance) in [("full+f32", 2e-5), ("full+f16", 2e-2), ("full+q8", 8e-2)] {
        for chunk in [1, 7, 32, 100, 260] {
            let mut cache = cache(&shape, spec);
            let outputs = stream.run(&mut cache, &pool, 0, tokens, chunk);
            for (layer, (shape, outputs)) in shape.layers.iter().zip(&outputs).enumerate() {
                for token in (0..tokens).step_by(13).chain([tokens - 1]) {
                    let first = shape.window.map_or(0, |window| (token + 1).saturating_sub(window));
                    let seen: Vec<usize> = (first..=token).collect();
                    for head in 0..shape.heads {
                        let want = stream.attention(layer, head, token, &seen);
                        let at = (token * shape.heads + head) * shape.value_dim;
                        let off = largest_difference(&outputs[at..][..shape.value_dim], &want);
                        assert!(
                            off < tolerance,
                            "{spec}, chunk {chunk}, layer {layer}, token {token}: {off}"
                        );
                    }
                }
            }
        }
    }
}

/// A sliding layer holds the tokens that the next one can see and no more, with a cap or without.
#[test]
fn a_sliding_layer_holds_its_window() {
    let shape = mixed();
    let stream = Stream::new(&shape, 700, 2);
    let pool = ThreadPool::new(1);
    let window: Vec<usize> = (700 - (WINDOW - 1)..700).collect();
    let mut full = cache(&shape, "full");
    for chunk in [(0, 300, 300), (300, 100, 1), (400, 300, 70)] {
        stream.run(&mut full, &pool, chunk.0, chunk.1, chunk.2);
    }
    for layer in [0, 2] {
        assert_eq!(full.positions(layer, 0), window);
        assert_eq!(full.kept(layer), vec![WINDOW - 1; shape.layers[layer].kv_heads]);
    }
    for layer in [1, 3] {
        assert_eq!(full.kept(layer), vec![700; shape.layers[layer].kv_heads]);
    }
    assert!(!full.has_evicted());
    assert!(
        matches!(full.truncate(650), Err(CacheError::Unsupported(why)) if why.contains("sliding window"))
    );

    // Under a cap that leaves the global layers half of what they see, windows are whole.
    let f16 = shape.f16_bytes(700);
    let sliding: usize =
        [0, 2].map(|l: usize| (WINDOW - 1) * shape.layers[l].f16_bytes_per_token()).iter().sum();
    assert_eq!(
        f16,
        sliding + 700 * (shape.layers[1].f16_bytes_per_token() + shape.layers[3].f16_bytes_per_token())
    );
    let mut half = cache(&shape, "window@60%");
    stream.run(&mut half, &pool, 0, 700, 20);
    assert_eq!(half.positions(0, 0), window);
    assert!(half.has_evicted() && half.kept(1)[0] < 500, "{:?}", half.kept(1));
    let (taken, cap) = (half.ledger().total(), half.cap_bytes().unwrap());
    assert!(taken <= cap && taken * 100 > cap * 93, "{taken} of {cap}");
}

/// What every method promises holds where layers differ.
#[test]
fn every_method_keeps_its_word_on_mixed_layers() {
    let shape = mixed();
    let stream = Stream::new(&shape, 420, 17);
    let registry = Registry::builtin();
    let named = |choice| registry.methods().filter(move |m| m.choice == choice).map(|m| m.name);
    let keeps = named(Choice::Keep).filter(|&keep| keep != "full").map(|keep| format!("{keep}@40%"));
    let stores = named(Choice::Store).map(|store| format!("h2o+{store}@30%"));
    let tails = named(Choice::Tail).map(|tail| format!("window+{tail}@40%"));
    let reads = named(Choice::Read).map(|read| format!("full+{read}(k=64)").replace("all(k=64)", "all"));
    let refines = named(Choice::Refine).map(|refine| format!("snapkv+{refine}@40%"));
    let budgets = named(Choice::Budget).flat_map(|budget| {
        [
            "h2o+BUDGET@40%",
            "snapkv+critical+BUDGET@40%",
            "foreseen+progressive+BUDGET@30%",
            "h2o+BUDGET@96tok",
        ]
        .map(|spec| spec.replace("BUDGET", budget))
    });
    let presets =
        registry::PRESETS.iter().flat_map(|preset| [preset.name.into(), format!("{}@40%", preset.name)]);
    let others = keeps.chain(stores).chain(tails).chain(reads).chain(refines);
    for spec in others.chain(budgets).chain(presets).chain(["tova@96tok".to_owned()]) {
        let (mut first, mut second) = (cache(&shape, &spec), cache(&shape, &spec));
        let (one, two) = (ThreadPool::new(1), ThreadPool::new(2));
        let mut at = 0;
        for chunk in [1, 30, 100, 1, 1, 64, 1, 120, 1, 1, 100] {
            let outputs = stream.run(&mut first, &one, at, chunk, chunk);
            assert_eq!(
                outputs,
                stream.run(&mut second, &two, at, chunk, chunk),
                "{spec}: threads change results"
            );
            at += chunk;
            assert!(outputs.iter().flatten().all(|x| x.is_finite()), "{spec} after {at}");
            let (taken, cap) = (first.ledger().total(), first.cap_bytes());
            assert!(cap.is_none_or(|cap| taken <= cap), "{spec}: {taken} of {cap:?} after {at}");
            for layer in [0, 2] {
                let oldest = first.positions(layer, 0)[0];
                assert!(oldest + WINDOW > at, "{spec}: position {oldest} after {at} in a window of {WINDOW}");
            }
        }
        let loaded = sketchkv_cache::Cache::from_bytes(&first.to_bytes(), shape.clone()).unwrap();
        assert_eq!(loaded.to_bytes(), first.to_bytes(), "{spec}");
    }
}
