//! `experiment`, `results`, `report` and `advise` from outside: killed and taken up again, split and merged, shown.

use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const SMALL: [&str; 12] = [
    "--quick",
    "--context",
    "128",
    "--lengths",
    "64,128",
    "--depths",
    "64",
    "--samples",
    "1",
    "--budgets",
    "50%,25%",
    "--threads",
];

fn experiment(name: &str, results: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sketchkv"));
    command.args(["experiment", name]).args(SMALL).arg("2").arg("--results").arg(results);
    command
}

fn show(results: &Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_sketchkv"))
        .args(["results", "show", "--json"])
        .arg(results)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_killed_experiment_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results.sqlite");
    let mut child =
        experiment("compare", &results).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    let done = loop {
        thread::sleep(Duration::from_millis(20));
        let done = if results.exists() { try_done(&results) } else { 0 };
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        assert!(began.elapsed() < Duration::from_secs(240), "no cell was finished");
        if done >= 2 {
            break done;
        }
    };
    // SIGKILL on Unix.
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(show(&results)["done"].as_u64().unwrap() >= done);

    let output = experiment("compare", &results).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stderr).unwrap();
    let known: u64 = text.split(" known before").next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(known >= done, "{text}");
    let all = show(&results);
    assert_eq!((all["running"].as_u64(), all["failed"].as_u64()), (Some(0), Some(0)));
}

/// Finished cells, 0 while the file is not ready.
fn try_done(results: &Path) -> u64 {
    let output = Command::new(env!("CARGO_BIN_EXE_sketchkv"))
        .args(["results", "show", "--json"])
        .arg(results)
        .output()
        .unwrap();
    serde_json::from_slice::<Value>(&output.stdout).ok().and_then(|all| all["done"].as_u64()).unwrap_or(0)
}

#[test]
fn a_page_is_made_and_results_are_exported() {
    let folder = tempfile::tempdir().unwrap();
    let (results, page) = (folder.path().join("results.sqlite"), folder.path().join("page.html"));
    let output =
        experiment("baseline", &results).args(["--kv", "full", "--kv", "window@50%"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("window@50%"));
    let sketchkv = || Command::new(env!("CARGO_BIN_EXE_sketchkv"));
    let made =
        sketchkv().args(["report", "--results"]).arg(&results).arg("--out").arg(&page).status().unwrap();
    assert!(made.success());
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains("sketchkv experiment baseline"), "{html}");
    let csv = sketchkv().args(["results", "export", "--format", "csv"]).arg(&results).output().unwrap();
    assert_eq!(String::from_utf8(csv.stdout).unwrap().lines().count(), 5);
}

#[test]
fn mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results.sqlite");
    let with = |arguments: &[&str], code: i32, part: &str| {
        let output = experiment("compare", &results).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
    };
    with(&["--kv", "windwo@25%"], 2, "`window`");
    with(&["--prefill", "128"], 2, "leaves nothing to score");
    with(&["--tasks", "needles"], 2, "niah_single");
    with(&["--shard", "3/2"], 2, "write `2/5`");
    fs::write(&results, "no results at all").unwrap();
    with(&[], 1, "left as it is");
    assert_eq!(fs::read_to_string(&results).unwrap(), "no results at all");
}

#[test]
fn advice_names_a_spec_that_fits_the_budget() {
    let output = Command::new(env!("CARGO_BIN_EXE_sketchkv"))
        .args(["advise", "--budget", "25%", "--context", "256", "--samples", "1", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let advice: Value = serde_json::from_slice(&output.stdout).unwrap();
    let candidates = advice["candidates"].as_array().unwrap();
    let budget = advice["budget_bytes"].as_u64().unwrap();
    assert!(candidates.len() > 2 && candidates.iter().all(|c| c["bytes"].as_u64().unwrap() <= budget));
    assert!(candidates.iter().any(|c| c["spec"] == advice["spec"]));
    assert!(advice["reasons"].as_array().unwrap().len() >= 2);
}
