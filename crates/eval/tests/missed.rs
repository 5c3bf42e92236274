//! A results file in which caches miss their caps: no line of the page may rank or recommend them.

#[path = "common/stored.rs"]
mod stored;

use serde_json::Value;
use sketchkv_eval::report::report;
use stored::{row, scored, stored};

/// The summary, where lines recommend, and the rest of the page.
fn parts(page: &str) -> (&str, &str) {
    page.split_once("<section class=\"summary\">").unwrap().1.split_once("</section>").unwrap()
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
    assert!(
        !page.contains("<section class=\"card\">") && !page.contains("sketchkv run"),
        "a card recommends"
    );
    // Nor does one stand on the frontier, where each is marked.
    let figure = rest.split_once("id=\"frontier\"").unwrap().1.split_once("</svg>").unwrap().0;
    assert_eq!(figure.matches("<g class=\"missed").count(), 5, "{figure}");
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
    assert!(!page.contains("--kv 'h2o@6.25%'"));
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
