//! The comparison on the embedded model, end to end, against transformers on the same tokens.
//!
//! `scripts/golden/eval_scores.py` made the golden file.

mod common;

use common::tiny_gpt2;
use serde_json::Value;
use sketchkv_eval::{CompareOptions, Comparison, NamedSpec, Silent, compare, tasks::TextSample};
use sketchkv_model::{Model, WeightFormat};

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/scores.json")).unwrap()
}

fn run(model: &Model, golden: &Value, specs: &[&str], stream: usize) -> Comparison {
    let tokens = golden["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
    let text = TextSample { name: "persuasion".into(), documents: vec![tokens] };
    let options = CompareOptions {
        specs: specs.iter().map(|s| NamedSpec::from(s.parse::<sketchkv_cache::Spec>().unwrap())).collect(),
        prefill: golden["prefill"].as_u64().unwrap() as usize,
        stream,
        timed: 16,
        seed: 0,
    };
    compare(model, &text, &options, &mut Silent).unwrap()
}

fn assert_near(ours: f64, theirs: &Value, relative: f64, absolute: f64, what: &str) {
    let theirs = theirs.as_f64().unwrap();
    assert!((ours - theirs).abs() <= relative * theirs.abs() + absolute, "{what}: {ours} for {theirs}");
}

#[test]
fn perplexity_of_the_full_cache_is_that_of_transformers() {
    let (model, golden) = (tiny_gpt2(WeightFormat::F32), golden());
    for stream in [1, 16] {
        let comparison = run(&model, &golden, &["full+f32"], stream);
        let row = &comparison.rows[0];
        assert_near(row.ppl, &golden["full"]["ppl"], 1e-4, 0.0, "ppl");
        assert_near(comparison.reference_ppl, &golden["full"]["ppl"], 1e-4, 0.0, "reference ppl");
        assert!(row.kl_mean < 1e-6, "{}", row.kl_mean);
        assert_eq!((comparison.scored_tokens, comparison.context), (192, 384));
    }
}

#[test]
fn rows_say_what_they_measured() {
    let (model, golden) = (tiny_gpt2(WeightFormat::Native), golden());
    let comparison = run(&model, &golden, &["full"], 1);
    let row = &comparison.rows[0];
    // f16 keys and values of 4 layers and 4 heads of 64.
    let uncompressed = 384 * 4 * 4 * 64 * 2 * 2;
    assert!(row.kv_bytes >= uncompressed * 383 / 384, "{}", row.kv_bytes);
    assert_eq!(row.kv_bytes, row.ledger.total);
    assert!(row.prefill_tps > 0.0 && row.decode_tps > 0.0 && row.latency.unwrap().steps == 16);
    assert!(row.ppl_change.abs() < 0.01 && row.same_top > 0.97, "{row:?}");
    let json = serde_json::to_value(&comparison).unwrap();
    for field in ["model", "text", "context", "scored_tokens", "seed", "machine", "rows"] {
        assert!(!json[field].is_null(), "{field}");
    }
    for field in [
        "spec",
        "kv_bytes",
        "kv_percent",
        "ledger",
        "prefill_tps",
        "decode_tps",
        "ppl",
        "ppl_change",
        "kl_mean",
        "same_top",
        "peak_rss_bytes",
    ] {
        assert!(!json["rows"][0][field].is_null(), "{field}");
    }
}
