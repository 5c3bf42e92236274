//! What stores lose, beside what theory allows.

mod common;

use sketchkv_eval::{Silent, distortion};
use sketchkv_model::WeightFormat;

#[test]
fn stores_lose_what_theory_allows() {
    let model = common::tiny_gpt2(WeightFormat::Native);
    let text = include_str!("../../../data/persuasion.txt");
    let tokens = model.tokenizer().encode_literal(&text[..8000]).unwrap();
    let measured = distortion(&model, &tokens[..1024], 3, &mut Silent).unwrap();
    let row = |name: &str| measured.stores.iter().find(|row| row.store == name).unwrap();

    assert_eq!((row("f32").gaussian, row("f32").keys, row("f32").values), (0.0, 0.0, 0.0));
    for row in &measured.stores[1..] {
        assert!(row.gaussian > row.least, "{row:?} is better than any code can be");
    }
    // TurboQuant's theorem: at most √3·π/2 times 4^-b of the square, on any vectors at all.
    for (name, bits) in [("tq4", 4), ("tq3", 3), ("tq2", 2)] {
        let bound = 3f64.sqrt() * std::f64::consts::PI / 2.0 * 4f64.powi(-bits);
        let row = row(name);
        for error in [row.gaussian, row.keys, row.values] {
            assert!(error < bound, "{row:?}: {bound}");
        }
    }
    // A uniform grid over a block of 32, whose scale is that of its largest value: step a/8, error step²/12; the mean
    // square of the largest of 32 normal values is about 4.6.
    let q4 = 4.6 / 64.0 / 12.0;
    for name in ["q4", "q4h"] {
        assert!((row(name).gaussian / q4 - 1.0).abs() < 0.25, "{:?}: {q4}", row(name));
    }
    // Turned keys are Gaussian to a store, whatever they were.
    assert!((row("q4h").keys / row("q4h").gaussian - 1.0).abs() < 0.15, "{:?}", row("q4h"));
    // Keys have channels of their own size, which is what grids per channel are for.
    assert!(row("kivi4").keys < 0.7 * row("q4").keys, "{:?} {:?}", row("kivi4"), row("q4"));

    for row in &measured.countsketch {
        assert!(row.cosine > row.theory && row.cosine < 1.7 * row.theory, "{row:?}");
    }
}

#[test]
fn a_text_too_short_is_refused() {
    let model = common::tiny_gpt2(WeightFormat::Native);
    let error = distortion(&model, &[1; 200], 0, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("256 tokens"), "{error}");
}
