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
    // As it is named now, and as it was.
    let now = sketchkv().args(["report", "--json"]).arg(&results).arg("-o").arg(&page).output().unwrap();
    let said: Value = serde_json::from_slice(&now.stdout).unwrap();
    assert_eq!((said["page"].as_str(), said["cells"].as_u64()), (page.to_str(), Some(4)));
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains("sketchkv experiment baseline"), "{html}");
    let again = folder.path().join("again.html");
    let before =
        sketchkv().args(["report", "--results"]).arg(&results).arg("--out").arg(&again).output().unwrap();
    assert!(before.status.success() && before.stdout.is_empty());
    assert_eq!(fs::read_to_string(&again).unwrap(), html);

    let all = folder.path().join("all.sqlite");
    let merge = |from: &Path| {
        let mut merge = sketchkv();
        merge.args(["results", "merge", "--json"]).arg(&all).arg(&results).arg(from).output().unwrap()
    };
    let refused = merge(&folder.path().join("none.sqlite"));
    assert!(refused.status.code() == Some(1) && refused.stdout.is_empty() && !all.exists());
    let merged: Value = serde_json::from_slice(&merge(&results).stdout).unwrap();
    let files = merged["files"].as_array().unwrap().iter();
    let counts: Vec<_> = files.map(|file| (file["added"].as_u64(), file["known"].as_u64())).collect();
    assert_eq!(counts, [(Some(4), Some(0)), (Some(0), Some(4))]);
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
fn a_cell_that_fails_is_kept_and_tried_again_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results.sqlite");
    let run = |more: &[&str]| {
        let caches = ["--kv", "window@1KiB", "--kv", "full", "--kv", "h2o@1%"];
        let output = experiment("baseline", &results).args(caches).args(more).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, table, text) = run(&[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("4 measured, 0 known before, 2 failed"), "{text}");
    assert_eq!(text.matches("failed: `window@1KiB`: ").count(), 1, "{text}");
    assert!(text.contains("warning: `h2o@1%` needs"), "{text}");
    assert!(table.lines().any(|line| line.contains("h2o@1%") && line.contains("1% missed")), "{table}");
    let all = show(&results);
    assert_eq!((all["done"].as_u64(), all["failed"].as_u64()), (Some(4), Some(2)));
    assert_eq!(all["failures"][0]["spec"], "window@1KiB");
    assert_eq!(all["experiments"][0]["missed"], 2);
    let (code, json, text) = run(&["--json"]);
    assert_eq!(code, Some(1), "{text}");
    let json: Value = serde_json::from_str(&json).unwrap();
    let failed = json["cells"].as_array().unwrap().iter().find(|cell| cell["state"] == "failed").unwrap();
    assert!(failed["error"].as_str().unwrap().contains("below the minimum of"), "{failed}");
    let first = failed["started_at"].as_i64().unwrap();
    assert_eq!(json["warnings"].as_array().map(Vec::len), Some(1));
    thread::sleep(Duration::from_millis(1100));
    let (_, _, text) = run(&["--retry-failed"]);
    assert!(text.contains("0 measured, 4 known before, 2 failed"), "{text}");
    let cells = run(&["--json"]).1;
    let cells: Value = serde_json::from_str(&cells).unwrap();
    let retried = cells["cells"].as_array().unwrap().iter().find(|cell| cell["state"] == "failed").unwrap();
    assert!(retried["started_at"].as_i64().unwrap() > first, "{retried}");
}

fn command(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sketchkv")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Whether `run` takes a spec.
fn runs(spec: &str) -> bool {
    command(&["run", "The sea", "-n", "2", "--kv", spec]).0 == Some(0)
}

#[test]
fn advice_names_only_what_run_accepts() {
    for budget in ["1KiB", "50KiB", "1tok", "25%"] {
        let (code, json, text) =
            command(&["advise", "--budget", budget, "--context", "192", "--samples", "1", "--json"]);
        if budget == "1KiB" || budget == "1tok" {
            assert_eq!(code, Some(2), "{budget}: {text}");
            let smallest = text.split('`').nth(1).unwrap();
            assert!(text.contains("raise the budget to ") && runs(smallest), "{text}");
            continue;
        }
        assert_eq!(code, Some(0), "{budget}: {text}");
        let advice: Value = serde_json::from_str(&json).unwrap();
        let candidates = advice["candidates"].as_array().unwrap();
        let budget = advice["budget_bytes"].as_u64().unwrap();
        assert!(candidates.iter().any(|candidate| candidate["spec"] == advice["spec"]));
        for candidate in candidates {
            assert!(candidate["bytes"].as_u64().unwrap() <= budget, "{candidate}");
            assert!(runs(candidate["spec"].as_str().unwrap()), "{candidate}");
        }
        assert!(advice["reasons"].as_array().unwrap().len() >= 3);
        assert!(advice["rejected"].as_array().unwrap().iter().all(|failure| failure["error"].is_string()));
    }
}

/// What evicts may be as near, and faster: what it has lost shows when it is asked for.
#[test]
fn advice_evicts_nothing_where_that_can_be_had() {
    let (code, json, text) =
        command(&["advise", "--budget", "95%", "--context", "512", "--samples", "1", "--json"]);
    assert_eq!(code, Some(0), "{text}");
    let advice: Value = serde_json::from_str(&json).unwrap();
    let candidates = advice["candidates"].as_array().unwrap();
    let (whole, capped): (Vec<&Value>, Vec<&Value>) =
        candidates.iter().partition(|candidate| candidate["row"]["binds_at"].is_null());
    assert!(!capped.is_empty(), "{candidates:?}");
    assert!(whole.iter().any(|candidate| candidate["spec"] == advice["spec"]), "{}", advice["spec"]);
}

#[test]
fn advice_reads_well() {
    let (code, text, log) = command(&["advise", "--budget", "25%", "--context", "128", "--samples", "1"]);
    assert_eq!(code, Some(0), "{log}");
    assert!(
        text.starts_with("sketchkv run -m ")
            && text.contains(" -c 128 --kv '")
            && text.contains("tokens a second"),
        "{text}"
    );
    assert!(text.contains("| decode tok/s at 128") && text.contains("| KV of 128 tokens"), "{text}");
    assert!(text.contains("Not to be used here:\n- full: takes "), "{text}");
}
