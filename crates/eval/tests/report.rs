//! What the page says is what the results file says: the answer first, every number, and in a browser no label on another.

#[path = "common/browser.rs"]
mod browser;
#[path = "common/pictures.rs"]
mod pictures;
#[path = "common/stored.rs"]
mod stored;

use rusqlite::Connection;
use sketchkv_eval::{
    experiments::Scored,
    format,
    report::report,
    results::{Finished, Results},
};
use stored::{row, scored, store, stored};

fn at_speed(tps: f64, mut scored: Scored) -> Scored {
    scored.row.decode_tps = tps;
    scored
}

/// Caches at every budget, and two that lose nothing to notice at one of them.
fn measured() -> Vec<Scored> {
    vec![
        at_speed(100.0, scored("full", 102.0, None, 1e-7)),
        at_speed(110.0, scored("full+q4h", 35.0, None, 0.008)),
        at_speed(90.0, scored("full+k=kivi4+v=q4", 35.1, None, 0.004)),
        at_speed(150.0, scored("h2o@25%", 24.5, Some(25.0), 0.7)),
        at_speed(60.0, scored("foreseen+progressive+adaptive@25%", 24.0, Some(25.0), 0.02)),
        // Would win if bytes asked for counted.
        at_speed(200.0, scored("h2o@12.5%", 23.3, Some(12.5), 0.015)),
        at_speed(120.0, scored("window@12.5%", 12.4, Some(12.5), 1.5)),
    ]
}

/// The text of the card of a budget, in the order of the page.
fn cards(page: &str) -> Vec<&str> {
    let cards = page.split("<section class=\"card\">").skip(1);
    cards.map(|card| card.split_once("</section>").unwrap().0).collect()
}

#[test]
fn the_first_thing_said_is_what_to_use_at_three_budgets() {
    let page = report(&stored(&measured()));
    let cards = cards(&page);
    assert_eq!(cards.len(), 3);
    for (card, parts) in cards.iter().zip([
        [
            "Within 50 % of full <small>1 MiB</small>",
            // Of two whose loss nobody notices, the faster.
            "<code>full+q4h</code>",
            "<strong>716.8 KiB</strong>, 35.0 % of full",
            "KL 0.0080 <small>(0.0064 to 0.0100)</small>",
            "<strong>110 tok/s</strong>, 1.10 × full’s 100",
            "<code>sketchkv run --model models/tiny.gguf --kv 'full+q4h' 'Once upon a time'</code>",
        ],
        [
            "Within 25 % of full <small>512 KiB</small>",
            "<code>foreseen+progressive+adaptive@25%</code>",
            "<strong>491.5 KiB</strong>, 24.0 % of full; asked 512 KiB",
            "<strong>little</strong>: KL 0.0200 <small>(0.0160 to 0.0250)</small>",
            "<strong>60.0 tok/s</strong>, 0.60 × full’s 100",
            "--kv 'foreseen+progressive+adaptive@25%'",
        ],
        [
            "Within 12.5 % of full <small>256 KiB</small>",
            "<code>window@12.5%</code>",
            "12.4 % of full; asked 256 KiB",
            "<strong>much</strong>: KL 1.5000",
            "1.20 × full’s 100",
            "--kv 'window@12.5%'",
        ],
    ]) {
        for part in parts {
            assert!(card.contains(part), "{part}: {card}");
        }
    }
    assert!(page.find("<section class=\"card\">") < page.find("<figure"), "the answer comes first");
}

#[test]
fn where_nothing_fits_the_page_says_how_to_measure_what_would() {
    let page = report(&stored(&measured()[..4]));
    let card = cards(&page)[2];
    assert!(card.contains("The smallest, <code>h2o@25%</code>, took 24.5 %"), "{card}");
    let command = "sketchkv experiment compare --model models/tiny.gguf --budgets 12.5%";
    assert!(card.contains(command) && !card.contains("sketchkv run"), "{card}");
}

#[test]
fn every_number_of_a_row_is_that_of_the_results_file() {
    let cells = stored(&measured());
    let page = report(&cells);
    for Finished { cell, measured, .. } in &cells {
        let row = row(&page, &cell.spec);
        let number = |name: &str| measured[name].as_f64().unwrap();
        for name in ["kl_mean", "kv_bytes", "same_top", "ppl_change", "decode_tps", "ppl"] {
            assert!(row.contains(&format!("data-value=\"{}\"", number(name))), "{name}: {row}");
        }
        let bytes = |name: &str| format::bytes(number(name) as u64);
        assert!(row.contains(&format!("{} ({:.1} %)", bytes("kv_bytes"), number("kv_percent"))), "{row}");
        if !measured["asked_bytes"].is_null() {
            let asked = format!("{} ({} %)", bytes("asked_bytes"), format::trimmed(number("asked_percent")));
            assert!(row.contains(&asked), "{asked}: {row}");
        }
    }
    // One speed a cache, which the page says how it was measured: no figure beside the table has another.
    let (head, _) = page.split_once("id=\"comparison\"").unwrap().1.split_once("</thead>").unwrap();
    assert_eq!(head.matches("tok/s").count(), 1, "{head}");
    assert!(head.contains("the last 8 single-token steps of each document"), "{head}");
    let frontier = page.split_once("id=\"frontier\"").unwrap().1.split_once("</figure>").unwrap().0;
    assert!(!frontier.contains("tok/s") && !frontier.contains("tokens/s"), "{frontier}");
}

#[test]
fn a_number_that_changes_in_the_results_file_changes_on_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.sqlite");
    let page = |results: &Results| report(&results.finished().unwrap());
    let before = page(&store(&path, &measured()));
    for (name, value, shown) in [
        ("kl_mean", "0.0311", "KL 0.0311"),
        ("kv_bytes", "480000", "468.8 KiB"),
        ("decode_tps", "77", "77.0 tok/s"),
    ] {
        assert!(!before.contains(shown), "{shown}");
        let changed = Connection::open(&path).unwrap().execute(
            "UPDATE cells SET measured = json_set(measured, '$.' || ?1, json(?2)) WHERE spec = ?3",
            [name, value, "foreseen+progressive+adaptive@25%"],
        );
        assert_eq!(changed.unwrap(), 1);
        let after = page(&Results::open_existing(&path).unwrap());
        assert!(cards(&after)[1].contains(shown), "{shown}: {}", cards(&after)[1]);
        let row = row(&after, "foreseen+progressive+adaptive@25%");
        assert!(row.contains(&format!("data-value=\"{value}\"")), "{row}");
    }
}

/// Many caches, alike in bytes and loss, of two models: where labels have least room.
#[test]
fn labels_of_a_crowd_keep_apart_on_every_screen() {
    let mut all = measured();
    for (at, cap) in [50.0, 25.0, 12.5].into_iter().enumerate() {
        for (i, keep) in
            ["random", "window", "snapkv+k=kivi4+v=q4", "expected(horizon=256)", "tova"].iter().enumerate()
        {
            let spec = format!("{keep}+buckets(n={i})@{cap}%");
            let spec = if i < 2 { format!("{keep}@{cap}%") } else { spec };
            if spec != "window@12.5%" {
                let kl = 1.4 + 0.15 * at as f64 - 0.16 * i as f64;
                all.push(scored(&spec, cap - 0.02 * i as f64, Some(cap), kl));
            }
        }
    }
    let mut cells = stored(&all);
    let of_another_model = |cell: &Finished| {
        let mut cell = cell.clone();
        cell.cell.model = "a model of another name".into();
        cell.cell.model_hash = "other".into();
        cell
    };
    cells.extend(cells.iter().map(of_another_model).collect::<Vec<_>>());
    let page = report(&cells);
    // In three sizes, of two models.
    for name in ["full", "full+q4h", "full+k=kivi4+v=q4", "window@50%", "random@25%", "window@12.5%"] {
        assert_eq!(page.matches(&format!(">{name}</text>")).count(), 6, "{name}");
    }
    pictures::look_at("crowd", &page);
}
