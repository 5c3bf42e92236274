//! The comparison on the embedded model, end to end, against transformers on the same tokens.
//!
//! `scripts/golden/eval_scores.py` made the golden file.

mod common;

use common::tiny_gpt2;
use serde_json::Value;
use sketchkv_cache::Cache;
use sketchkv_eval::{CompareOptions, Comparison, Row, Schedule, Silent, compare, tasks::TextSample};
use sketchkv_model::{Model, WeightFormat};

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/scores.json")).unwrap()
}

fn run(model: &Model, golden: &Value, specs: &[&str], stream: usize) -> Comparison {
    let tokens = golden["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
    let text = TextSample { name: "persuasion".into(), documents: vec![tokens] };
    let options = CompareOptions {
        specs: specs.iter().map(|s| s.parse().unwrap()).collect(),
        schedule: Schedule { prefill: golden["prefill"].as_u64().unwrap() as usize, stream, timed: 16 },
        seed: 0,
    };
    compare(model, &text, &options, &mut Silent).unwrap()
}

fn rows(comparison: &Comparison) -> Vec<&Row> {
    comparison.measured().collect()
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
        let row = rows(&comparison)[0];
        assert_near(row.ppl, &golden["full"]["ppl"], 1e-4, 0.0, "ppl");
        assert_near(comparison.reference_ppl, &golden["full"]["ppl"], 1e-4, 0.0, "reference ppl");
        assert!(row.kl_mean < 1e-6, "{}", row.kl_mean);
        assert_eq!((comparison.scored_tokens, comparison.context), (192, 384));
    }
}

#[test]
fn divergences_of_a_window_are_those_of_transformers_under_its_mask() {
    let (model, golden) = (tiny_gpt2(WeightFormat::F32), golden());
    let slots = ["32", "64", "128"];
    let specs = slots.map(|slots| format!("window(sinks=4)+f32@{slots}tok"));
    let comparison = run(&model, &golden, &specs.each_ref().map(String::as_str), 1);
    for (row, slots) in rows(&comparison).into_iter().zip(slots) {
        let theirs = &golden["windows"][slots];
        let ours = &row.divergence;
        for (value, name) in [
            (row.ppl, "ppl"),
            (row.kl_mean, "kl_mean"),
            (ours.kl.error, "kl_error"),
            (ours.kl_at.median, "kl_median"),
            (ours.kl_at.p99, "kl_p99"),
            (ours.kl_at.max, "kl_max"),
            (ours.delta_p.mean, "delta_p_mean"),
            (ours.delta_p_rms.mean, "delta_p_rms"),
            (row.same_top, "same_top"),
            (ours.ln_ppl_ratio.mean, "ln_ppl_ratio"),
            (ours.ln_ppl_ratio.error, "ln_ppl_ratio_error"),
        ] {
            assert_near(value, &theirs[name], 2e-3, 1e-6, &format!("{name} at {slots} slots"));
        }
    }
}

/// `random` keeps other tokens than the model looks at: every score that claims to see damage must see it.
#[test]
fn keeping_the_wrong_tokens_is_seen_by_every_score() {
    let model = tiny_gpt2(WeightFormat::Native);
    let mut golden = golden();
    // A passage that comes twice: on plain prose this model hardly looks back.
    let tokens = golden["tokens"].as_array().unwrap()[..192].to_vec();
    golden["tokens"] = [tokens.clone(), tokens].concat().into();
    let comparison = run(&model, &golden, &["full", "random@32tok"], 1);
    let [full, wrong] = rows(&comparison)[..] else { panic!("two rows") };
    assert!(wrong.kl_mean > 1.0 && wrong.kl_mean > 100.0 * full.kl_mean, "{wrong:?}");
    assert!(wrong.ppl_change > 5.0 && full.ppl_change.abs() < 0.01, "{wrong:?}");
    assert!(wrong.same_top < 0.6 && full.same_top > 0.98, "{wrong:?}");
    assert!(wrong.divergence.delta_p.mean < -0.2 && wrong.divergence.delta_p_rms.mean > 0.3, "{wrong:?}");
    assert!(wrong.kl_interval.unwrap()[0] > full.kl_interval.unwrap()[1] && !wrong.tie, "{wrong:?}");
    assert!(wrong.footprint.kv_bytes < full.footprint.kv_bytes / 3, "{wrong:?}");
}

/// Rows whose caps bind at different places are scored from the last of these on, all of them.
#[test]
fn only_tokens_after_every_cap_binds_are_scored() {
    let (model, golden) = (tiny_gpt2(WeightFormat::Native), golden());
    let early = run(&model, &golden, &["window@64tok"], 1);
    assert_eq!((early.scored_from, early.scored_tokens), (192, 192));
    assert_eq!(rows(&early)[0].binds_at, Some(192));
    let both = run(&model, &golden, &["window@64tok", "window@256tok", "full", "window@1000tok"], 1);
    let rows = rows(&both);
    let binds = rows[1].binds_at.unwrap();
    assert!((256..=264).contains(&binds), "{binds}");
    assert_eq!((both.scored_from, both.scored_tokens), (binds, 384 - binds));
    assert_eq!((rows[2].binds_at, rows[3].binds_at), (None, None));
    assert!(rows.iter().all(|row| row.divergence.tokens == both.scored_tokens));
}

#[test]
fn rows_say_what_they_measured() {
    let (model, golden) = (tiny_gpt2(WeightFormat::Native), golden());
    let comparison = run(&model, &golden, &["full"], 1);
    let row = rows(&comparison)[0];
    // f16 keys and values of 4 layers and 4 heads of 64.
    let uncompressed = 384 * 4 * 4 * 64 * 2 * 2;
    assert!(row.footprint.kv_bytes >= uncompressed * 383 / 384, "{:?}", row.footprint);
    assert_eq!(row.footprint.kv_bytes, row.ledger["total"]);
    assert!(row.prefill_tps > 0.0 && row.decode_tps > 0.0 && row.latency.unwrap().steps == 16);
    assert!(row.ppl_change.abs() < 0.01 && row.same_top > 0.97, "{row:?}");
    let json = serde_json::to_value(&comparison).unwrap();
    for field in ["model", "text", "context", "scored_tokens", "seed", "machine", "rows", "warnings"] {
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

#[test]
fn a_share_below_the_floor_is_marked_and_warned_of() {
    let (model, golden) = (tiny_gpt2(WeightFormat::Native), golden());
    let comparison = run(&model, &golden, &["h2o@1%", "h2o@50%"], 1);
    let rows = rows(&comparison);
    let missed = rows[0].footprint;
    assert!(missed.missed() && missed.kv_percent > 2.0, "{missed:?}");
    assert!((missed.asked_percent.unwrap() - 1.0).abs() < 0.01, "{missed:?}");
    assert!(!rows[1].footprint.missed(), "{:?}", rows[1].footprint);
    let [warning] = &comparison.warnings[..] else { panic!("{:?}", comparison.warnings) };
    assert!(
        warning.contains("`h2o@1%` needs at least") && warning.contains("1 % of 383 tokens"),
        "{warning}"
    );
    // The floor is the least that a fixed cap may be.
    let floor = missed.floor_bytes.unwrap();
    let fixed = |bytes: usize| Cache::new(model.cache_shape(), &format!("h2o@{bytes}B").parse().unwrap(), 0);
    assert!(fixed(floor).is_ok() && fixed(floor - 1).is_err());
}
