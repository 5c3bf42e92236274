//! A results file made by hand.
#![allow(dead_code, reason = "each test file uses some of it")]

use serde_json::json;
use sketchkv_eval::{
    Footprint, Row,
    experiments::Scored,
    metrics::{DivergenceTable, TokenScore, Unit},
    results::{Cell, Claim, Finished, Results},
};
use std::{collections::BTreeMap, path::Path, time::Duration};

const TOKENS: usize = 512;
const FULL: usize = 2 << 20;

fn footprint(percent: f64, asked: Option<f64>) -> Footprint {
    let bytes = |percent: f64| (percent / 100.0 * FULL as f64).round() as usize;
    Footprint {
        kv_tokens: TOKENS,
        kv_bytes: bytes(percent),
        kv_percent: percent,
        asked_bytes: asked.map(bytes),
        asked_percent: asked,
        floor_bytes: asked.map(|_| bytes(percent)),
    }
}

/// What was scored of a cache that took `percent` of the bytes and has this mean KL.
pub(crate) fn scored(spec: &str, percent: f64, asked: Option<f64>, kl: f64) -> Scored {
    let token = TokenScore { kl, delta_p: 0.0, same_top: true, nll: 1.0, nll_reference: 1.0 };
    let row = Row {
        name: None,
        spec: spec.to_owned(),
        footprint: footprint(percent, asked),
        binds_at: asked.map(|_| 64),
        ledger: BTreeMap::from([("total".to_owned(), footprint(percent, asked).kv_bytes)]),
        prefill_tps: 100.0,
        decode_tps: 50.0,
        latency: None,
        ppl: 3.0,
        ppl_change: 0.1,
        kl_mean: kl,
        kl_interval: Some([0.8 * kl, 1.25 * kl]),
        same_top: 0.9,
        tie: false,
        peak_rss_bytes: 0,
        divergence: DivergenceTable::of(&[token; 4]).unwrap(),
    };
    let units = vec![Unit { sum: 64.0 * kl, count: 64 }, Unit { sum: 64.0 * kl * 1.01, count: 64 }];
    Scored { row, reference_ppl: 3.0, scored_tokens: 128, units }
}

pub(crate) fn cell(spec: &str) -> Cell {
    let settings = json!({"work": "score", "samples": 2, "prefill": 256, "stream": 1, "timed": 8});
    Cell {
        experiment: "compare".into(),
        model: "tiny".into(),
        model_hash: "abc".into(),
        name: None,
        spec: spec.into(),
        context: TOKENS,
        text: "novel".into(),
        text_hash: "def".into(),
        seed: 0,
        settings: settings.as_object().unwrap().clone(),
    }
}

/// A results file that holds these.
pub(crate) fn store(path: &Path, all: &[Scored]) -> Results {
    let mut results = Results::open(path, "sketchkv experiment compare --model models/tiny.gguf").unwrap();
    for one in all {
        let cell = cell(&one.row.spec);
        assert_eq!(results.claim(&cell, false).unwrap(), Claim::Mine);
        results.finish(&cell, &serde_json::to_value(one).unwrap(), Duration::from_secs(1)).unwrap();
    }
    results
}

/// The finished cells of a results file that holds these.
pub(crate) fn stored(all: &[Scored]) -> Vec<Finished> {
    let folder = tempfile::tempdir().unwrap();
    store(&folder.path().join("results.sqlite"), all).finished().unwrap()
}

/// The row of the table of all caches that `spec` has.
pub(crate) fn row<'a>(page: &'a str, spec: &str) -> &'a str {
    let table = page.split_once("id=\"comparison\"").unwrap().1;
    let rows = table.split("<tr>");
    rows.into_iter().find(|row| row.contains(&format!("<code>{spec}</code>"))).unwrap()
}
