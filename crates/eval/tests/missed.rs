//! A results file in which caches miss their caps: no line of the page may rank or recommend them.

use serde_json::{Value, json};
use sketchkv_eval::{
    Footprint, Row,
    experiments::Scored,
    metrics::{DivergenceTable, TokenScore, Unit},
    report::report,
    results::{Cell, Claim, Finished, Results},
};
use std::{collections::BTreeMap, time::Duration};

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
fn scored(spec: &str, percent: f64, asked: Option<f64>, kl: f64) -> Scored {
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
        kl_interval: None,
        same_top: 0.9,
        tie: false,
        peak_rss_bytes: 0,
        divergence: DivergenceTable::of(&[token; 4]).unwrap(),
    };
    let units = vec![Unit { sum: 64.0 * kl, count: 64 }, Unit { sum: 64.0 * kl * 1.01, count: 64 }];
    Scored { row, reference_ppl: 3.0, scored_tokens: 128, units }
}

fn cell(spec: &str) -> Cell {
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

/// The finished cells of a results file that holds these.
fn stored(all: &[Scored]) -> Vec<Finished> {
    let folder = tempfile::tempdir().unwrap();
    let mut results =
        Results::open(&folder.path().join("results.sqlite"), "sketchkv experiment compare").unwrap();
    for one in all {
        let cell = cell(&one.row.spec);
        assert_eq!(results.claim(&cell, false).unwrap(), Claim::Mine);
        results.finish(&cell, &serde_json::to_value(one).unwrap(), Duration::from_secs(1)).unwrap();
    }
    results.finished().unwrap()
}

/// The summary, where lines recommend, and the rest of the page.
fn parts(page: &str) -> (&str, &str) {
    page.split_once("<section class=\"summary\">").unwrap().1.split_once("</section>").unwrap()
}

/// The row of the table of all caches that `spec` has.
fn row<'a>(page: &'a str, spec: &str) -> &'a str {
    let table = page.split_once("id=\"comparison\"").unwrap().1;
    let rows = table.split("<tr>");
    rows.into_iter().find(|row| row.contains(&format!("<code>{spec}</code>"))).unwrap()
}

#[test]
fn where_every_cache_misses_its_cap_nothing_is_recommended() {
    let all = [
        scored("h2o@6.25%", 23.3, Some(6.25), 0.01),
        scored("window@6.25%", 8.4, Some(6.25), 0.9),
        scored("expected+q4h@25%", 25.6, Some(25.0), 0.001),
        scored("window@25%", 34.0, Some(25.0), 0.8),
        scored("snapkv@64KiB", 4.0, Some(3.125), 1.8),
    ];
    let page = report(&stored(&all));
    let (summary, rest) = parts(&page);
    assert!(!summary.contains("<li>") && !summary.contains("<strong>At "), "{summary}");
    assert!(!summary.contains("<code>h2o") && !summary.contains("<code>expected"), "{summary}");
    assert!(summary.contains("5 of 5 caches took over 2 % more"), "{summary}");
    for (spec, mark) in [
        ("h2o@6.25%", "took 23.3 %, asked 6.25 %"),
        ("window@6.25%", "took 8.4 %, asked 6.25 %"),
        ("expected+q4h@25%", "took 25.6 %, asked 25 %"),
        ("window@25%", "took 34 %, asked 25 %"),
        ("snapkv@64KiB", "took 4 %, asked 3.12 %"),
    ] {
        assert!(row(&page, spec).contains(mark), "{spec}: {}", row(&page, spec));
    }
    // Nor does one stand on the frontier.
    assert!(!rest.contains("<polyline class=\"frontier\""), "{rest}");
}

#[test]
fn a_budget_is_what_was_taken_not_what_was_asked() {
    let all = [
        scored("full", 102.0, None, 1e-7),
        scored("full+q4h", 35.0, None, 0.008),
        // Would win its class by its name.
        scored("h2o@6.25%", 23.3, Some(6.25), 0.02),
        scored("cms@6.25%", 6.2, Some(6.25), 0.5),
        scored("window@6.25%", 6.1, Some(6.25), 1.0),
        // Within 2 % of its cap.
        scored("expected@25%", 25.4, Some(25.0), 0.1),
        scored("window@25%", 24.8, Some(25.0), 0.7),
        scored("random@50%", 49.0, Some(50.0), 0.3),
    ];
    let page = report(&stored(&all));
    let (summary, _) = parts(&page);
    let line = |start: &str| {
        let lines: Vec<&str> = summary.split("<li>").filter(|line| line.contains(start)).collect();
        assert_eq!(lines.len(), 1, "{start}: {summary}");
        lines[0].to_owned()
    };
    assert!(line("At 6.25 % of full (128 KiB)").contains("<code>cms@6.25%</code> took 6.2 % of the bytes"));
    let at_25 = line("At 25 % of full (512 KiB)");
    assert!(at_25.contains("<code>expected@25%</code> took 25.4 %"), "{at_25}");
    assert!(at_25.contains("sliding window that took 24.8 % diverges 7.0 times as much"), "{at_25}");
    // Who keeps everything in fewer bytes is the answer at a larger budget.
    assert!(line("At 50 % of full (1 MiB)").contains("<code>full+q4h</code> took 35.0 %"));
    assert!(!summary.contains("h2o@6.25%"), "{summary}");
    assert!(summary.contains("1 of 8 caches took over 2 % more"), "{summary}");
    assert!(row(&page, "h2o@6.25%").contains("took 23.3 %, asked 6.25 %"));
    assert!(!row(&page, "expected@25%").contains("missed"));
    // The bytes that order the rows are those taken.
    let places = ["window@6.25%", "cms@6.25%", "h2o@6.25%", "window@25%"];
    let table = page.split_once("id=\"comparison\"").unwrap().1;
    let found = places.map(|spec| table.find(&format!("<code>{spec}</code>")).unwrap());
    assert!(found.is_sorted(), "{found:?}");
}

#[test]
fn a_cell_that_does_not_say_what_was_asked_is_left_out() {
    let mut older = stored(&[scored("h2o@6.25%", 23.3, Some(6.25), 0.01)]);
    let Value::Object(measured) = &mut older[0].measured else { panic!("an object") };
    measured.remove("asked_bytes");
    assert!(!report(&older).contains("h2o@6.25%"));
}
