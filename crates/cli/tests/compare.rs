//! `compare`: the document that programs read and the table that people read.

mod support;

use serde_json::Value;
use std::time::{Duration, Instant};
use support::{finish, sketchkv, smollm2};

#[test]
fn json_has_the_agreed_fields() {
    let arguments =
        ["compare", "--context", "128", "--documents", "2", "--kv", "full", "--kv", "window@25%", "--json"];
    let done = finish(sketchkv().args(arguments));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let json = done.json();
    let has = |value: &Value, fields: &[&str]| {
        for field in fields {
            assert!(value.get(field).is_some_and(|value| !value.is_null()), "{field} is missing: {value}");
        }
    };
    has(&json, &["model", "text", "context", "scored_tokens", "seed", "machine", "rows"]);
    assert_eq!((json["context"].as_u64(), json["scored_tokens"].as_u64()), (Some(128), Some(128)));
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let fields = [
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
    ];
    rows.iter().for_each(|row| has(row, &fields));
    let number = |row: &Value, field: &str| row[field].as_f64().unwrap();
    let (full, window) = (&rows[0], &rows[1]);
    // An f16 cache tells the f32 reference almost exactly; a window of a quarter does not.
    assert!(number(full, "kl_mean") < 1e-5 && number(full, "same_top") > 0.98, "{full}");
    assert!(number(window, "kl_mean") > 0.05 && number(window, "same_top") < 0.9, "{window}");
    assert!(number(window, "kv_percent") <= 25.0 && number(full, "kv_percent") >= 100.0);
    assert_eq!(full["ledger"]["total"], full["kv_bytes"]);
    assert!((number(window, "asked_percent") - 25.0).abs() < 0.1 && full["asked_percent"].is_null());
    assert_eq!(json["warnings"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_cache_that_fails_is_a_row_and_the_exit_code_is_1() {
    let arguments = ["compare", "--context", "96", "--documents", "1"];
    let caches = ["--kv", "full", "--kv", "window@1KiB", "--kv", "h2o@1%"];
    let done = finish(sketchkv().args(arguments).args(caches));
    assert_eq!(done.code, 1, "{}", done.stderr);
    let row = |spec: &str| {
        let row = done.stdout.lines().find(|line| line.starts_with(&format!("| {spec} ")));
        row.unwrap_or_else(|| panic!("{spec} is missing:\n{}", done.stdout))
    };
    assert!(row("full").contains("100.0%") && row("window@1KiB").contains(" failed "), "{}", done.stdout);
    // Beside it a share that the model cannot keep to, marked and with the floor named.
    assert!(row("h2o@1%").contains("1% missed"), "{}", done.stdout);
    assert!(done.stderr.contains("failed: `window@1KiB`: a cap of 1024 bytes is below"), "{}", done.stderr);
    assert!(done.stderr.contains("warning: `h2o@1%` needs at least "), "{}", done.stderr);
    let json = finish(sketchkv().args(arguments).args(caches).arg("--json")).json();
    assert!(json["rows"][1]["error"].as_str().unwrap().contains("below the minimum of"));
    assert_eq!(json["rows"][2]["spec"], "h2o@1%");
    let (took, asked) = (&json["rows"][2]["kv_bytes"], &json["rows"][2]["asked_bytes"]);
    assert!(took.as_u64() > asked.as_u64(), "{}", json["rows"][2]);
    assert_eq!(json["warnings"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_seed_reproduces_everything_but_the_times() {
    let scores = || {
        let arguments =
            ["compare", "--context", "96", "--documents", "1", "--kv", "random@30%", "--seed", "3", "--json"];
        let row = finish(sketchkv().args(arguments)).json()["rows"][0].clone();
        ["ppl", "kl_mean", "same_top", "kv_bytes"].map(|field| row[field].clone())
    };
    assert_eq!(scores(), scores());
}

#[test]
fn quick_is_quick_and_shows_the_controls() {
    let start = Instant::now();
    let done = finish(sketchkv().args(["compare", "--quick"]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    // A minute on an idle machine with optimised code; tests share theirs.
    assert!(start.elapsed() < Duration::from_secs(180), "{:?}", start.elapsed());
    let header = done.stdout.lines().next().unwrap();
    for column in ["spec", "KV", "of full", "asked", "decode tok/s", "ppl", "change", "mean KL", "same top"] {
        assert!(header.contains(column), "{header}");
    }
    for spec in ["full", "full+q8", "full+q4h", "window@25%", "random@25%"] {
        let row = done.stdout.lines().find(|line| line.starts_with(&format!("| {spec} ")));
        assert!(row.is_some_and(|row| row.contains('%')), "{spec} is missing:\n{}", done.stdout);
    }
    assert!(done.stderr.contains("tiny-gpt2") && done.stderr.contains("seed 0"), "{}", done.stderr);
}

#[test]
fn text_of_the_users_own_and_a_real_model() {
    let Some(model) = smollm2::path() else { return };
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("own.txt");
    std::fs::write(&text, "The lighthouse keeper counted the ships that passed in the night. ".repeat(60))
        .unwrap();
    let (model, text) = (model.to_str().unwrap(), text.to_str().unwrap());
    let arguments =
        ["compare", "--model", model, "--text", text, "--context", "192", "--documents", "1", "--json"];
    let done = finish(sketchkv().args(arguments).args(["--kv", "full+q8", "--kv", "h2o@25%"]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let json = done.json();
    assert_eq!(json["text"], "own.txt");
    let kl = |row: usize| json["rows"][row]["kl_mean"].as_f64().unwrap();
    assert!(kl(0) < 0.01 && kl(1) > kl(0), "{} {}", kl(0), kl(1));
}
