//! `bench`: the forms of its results, its tests and its manners.

mod support;

use serde_json::Value;
use std::process::Stdio;
use support::{finish, sketchkv};

const SHORT: [&str; 9] = ["bench", "-t", "2", "-p", "16", "-n", "4", "-d", "0,40"];

#[test]
fn json_has_the_agreed_fields_and_the_parts_add_up() {
    let done = finish(sketchkv().args(SHORT).args([
        "-r",
        "3",
        "--kv",
        "full",
        "--kv",
        "h2o@50%",
        "--profile",
        "--json",
    ]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let json = done.json();
    assert!(json["bandwidth_bytes_per_s"].as_f64().unwrap() > 1e8, "{json}");
    let rows = json["rows"].as_array().unwrap();
    let tests: Vec<(&str, &str)> =
        rows.iter().map(|row| (row["test"].as_str().unwrap(), row["spec"].as_str().unwrap())).collect();
    let both = |test| [(test, "full"), (test, "h2o@50%")];
    assert_eq!(tests, ["pp16", "tg4", "pp16 @ d40", "tg4 @ d40"].map(both).concat());
    let mut seen = 0f64;
    for row in rows {
        let samples: Vec<f64> =
            row["samples_ts"].as_array().unwrap().iter().map(|rate| rate.as_f64().unwrap()).collect();
        let mean = samples.iter().sum::<f64>() / 3.0;
        assert_eq!(samples.len(), 3);
        assert!(samples.iter().all(|&rate| rate > 0.0), "{row}");
        assert!((row["avg_ts"].as_f64().unwrap() / mean - 1.0).abs() < 1e-9, "{row}");
        assert!(row["stddev_ts"].as_f64().unwrap() >= 0.0 && row["kv_bytes"].as_u64().unwrap() > 0);
        let generated = row["n_gen"].as_u64().unwrap() > 0;
        assert_eq!(row.get("profile").is_some(), generated, "{row}");
        // What the machine gives at best, beside what was reached.
        let number = |name: &str| row[name].as_f64();
        assert_eq!(number("peak_multiply_adds_per_s").is_some(), !generated, "{row}");
        assert!(number("peak_multiply_adds_per_s") >= number("multiply_adds_per_s"), "{row}");
        if generated {
            assert!(row["profile"]["bandwidth_bytes_per_s"].as_f64().unwrap() > 1e8, "{row}");
            let parts = row["profile"]["parts"].as_array().unwrap();
            let share = |name: &str| {
                let part = parts.iter().find(|part| part["part"] == name);
                part.unwrap_or_else(|| panic!("no {name} in {row}"))["share"].as_f64().unwrap()
            };
            let named = ["products", "attention", "store", "sampling", "rest"];
            assert!(named.iter().all(|name| share(name) > 0.0), "{row}");
            let total: f64 = parts.iter().map(|part| part["share"].as_f64().unwrap()).sum();
            assert!(total <= 1.001, "{total}: {row}");
            seen = seen.max(total);
        }
    }
    // The clocks see all but what lies between them, and there another process may take its turn, once or twice.
    assert!(seen >= 0.6, "{seen}: {json}");
    let kv = |index: usize| rows[index]["kv_bytes"].as_u64().unwrap();
    assert!(kv(4) > kv(0), "a deeper cache takes more");
}

#[test]
fn sequences_generate_together() {
    let done =
        finish(sketchkv().args(SHORT).args(["-r", "2", "--kv", "full", "--sequences", "1,8", "--json"]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let json = done.json();
    let rows = json["rows"].as_array().unwrap();
    let tests: Vec<_> =
        rows.iter().map(|row| (row["test"].as_str().unwrap(), row["n_seq"].as_u64().unwrap())).collect();
    let each = ["", " @ d40"];
    let names = each.map(|at| [format!("pp16{at}"), format!("tg4{at}"), format!("tg4 x8{at}")]).concat();
    assert_eq!(tests, names.iter().map(String::as_str).zip([1, 1, 8, 1, 1, 8]).collect::<Vec<_>>());
    for at in [0, 3] {
        assert_eq!(rows[at + 2]["kv_bytes"], rows[at + 1]["kv_bytes"], "of the cache of one sequence");
    }
}

#[test]
fn csv_and_jsonl_have_a_line_a_row() {
    let lines = |form: &str| {
        let done = finish(sketchkv().args(SHORT).args([
            "-r",
            "1",
            "--kv",
            "h2o(decay=0.9,recent=8)@50%",
            "-o",
            form,
        ]));
        assert_eq!(done.code, 0, "{}", done.stderr);
        done.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let csv = lines("csv");
    assert_eq!(csv.len(), 5, "{csv:?}");
    assert!(csv[0].starts_with("test,n_prompt,n_gen,n_depth,spec,avg_ts"), "{}", csv[0]);
    assert!(csv[4].starts_with("tg4 @ d40,0,4,40,\"h2o(decay=0.9,recent=8)@50%\","), "{}", csv[4]);
    let jsonl = lines("jsonl");
    assert_eq!(jsonl.len(), 4);
    let row: Value = serde_json::from_str(&jsonl[3]).unwrap();
    assert_eq!((row["test"].as_str(), row["threads"].as_u64()), (Some("tg4 @ d40"), Some(2)));
}

#[test]
fn what_does_not_fit_is_left_out_or_refused() {
    let done =
        finish(sketchkv().args(["bench", "-p", "0", "-n", "2", "-d", "0,5000", "-r", "1", "--kv", "full"]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stderr.contains("left out") && done.stderr.contains("tg2 @ d5000"), "{}", done.stderr);
    assert!(done.stdout.contains("tg2 ") && !done.stdout.contains("d5000"), "{}", done.stdout);
    let done = finish(sketchkv().args(["bench", "-p", "0", "-n", "2", "-d", "5000"]));
    assert!(done.code == 2 && done.error().contains("context"), "{}", done.stderr);
    let done = finish(sketchkv().args(["bench", "-p", "0", "-n", "0"]));
    assert!(done.code == 2 && done.error().contains("nothing to measure"), "{}", done.stderr);
    let done = finish(sketchkv().args(["bench", "--stream", "5000", "--kv", "full"]));
    assert!(done.code == 2 && done.error().contains("cap"), "{}", done.stderr);
}

#[test]
fn paced_answers_line_by_line() {
    use std::io::{BufRead, BufReader, Write};
    let program = assert_cmd::cargo::cargo_bin!("sketchkv");
    let arguments = ["bench", "--paced", "-p", "0", "-n", "3", "-d", "0,20", "-r", "2", "--kv", "full"];
    let mut child = std::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut to, mut from) =
        (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
    // Two repetitions, the way to the next depth, two repetitions there.
    for test in ["tg3", "tg3", "pp20", "tg3 @ d20", "tg3 @ d20"] {
        writeln!(to).unwrap();
        let sample: Value = serde_json::from_str(&from.next().unwrap().unwrap()).unwrap();
        assert_eq!(sample["test"], test);
        assert!(sample["seconds"].as_f64().unwrap() > 0.0, "{sample}");
    }
    assert!(from.next().is_none() && child.wait().unwrap().success());
}

#[test]
fn a_refused_cache_is_left_out_and_a_missed_share_is_told() {
    let caches = ["--kv", "window@1KiB", "--kv", "h2o@1%", "--kv", "full"];
    let short = ["bench", "-p", "16", "-n", "0", "-d", "64", "-r", "1"];
    let done = finish(sketchkv().args(short).args(caches).arg("--json"));
    assert_eq!(done.code, 1, "{}", done.stderr);
    let json = done.json();
    let specs: Vec<&str> =
        json["rows"].as_array().unwrap().iter().map(|row| row["spec"].as_str().unwrap()).collect();
    assert_eq!(specs, ["h2o@1%", "full"]);
    assert_eq!(json["failed"][0]["spec"], "window@1KiB");
    assert!(json["failed"][0]["error"].as_str().unwrap().contains("below the minimum of"));
    let warning = json["warnings"][0].as_str().unwrap();
    assert!(warning.contains("`h2o@1%` needs at least"), "{warning}");
    assert!(done.stderr.contains(&format!("warning: {warning}")), "{}", done.stderr);
    assert!(done.stderr.contains("failed: `window@1KiB`: "), "{}", done.stderr);
    let table = finish(sketchkv().args(short).args(["--kv", "h2o@1%"]));
    assert!(table.code == 0 && table.stdout.contains("1% missed"), "{}", table.stdout);
}
