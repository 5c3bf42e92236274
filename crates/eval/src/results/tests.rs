use super::cell::example;
use super::*;
use crate::EvalError;
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::RowAccessor,
};
use serde_json::json;
use std::{fs, path::PathBuf, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results.sqlite");
    (folder, file)
}

fn finish(results: &mut Results, spec: &str, kl: f64) {
    let cell = example(spec);
    assert_eq!(results.claim(&cell, false).unwrap(), Claim::Mine);
    results.finish(&cell, &json!({"kl_mean": kl, "ledger": {"keys": 7}, "curve": [1, 2]}), SECOND).unwrap();
}

#[test]
fn a_cell_that_came_to_an_end_is_found_again_and_a_failed_one_retried_when_asked() {
    let (_folder, file) = folder();
    let mut results = Results::open(&file, "sketchkv experiment compare").unwrap();
    finish(&mut results, "full", 0.5);
    let broken = example("broken");
    assert_eq!(results.claim(&broken, false).unwrap(), Claim::Mine);
    results.fail(&broken, "does not fit", SECOND).unwrap();
    drop(results);

    let mut results = Results::open(&file, "").unwrap();
    let Claim::Finished(found) = results.claim(&example("full"), true).unwrap() else {
        panic!("not finished")
    };
    assert_eq!((found.cell, found.state), (example("full"), State::Done));
    assert_eq!(found.measured["kl_mean"], json!(0.5));
    assert_eq!(found.command, "sketchkv experiment compare");
    assert_eq!(results.counts().unwrap(), [0, 1, 1]);
    let Claim::Finished(found) = results.claim(&broken, false).unwrap() else { panic!("tried again") };
    assert_eq!((found.state, found.error.as_deref()), (State::Failed, Some("does not fit")));
    assert_eq!(results.claim(&broken, true).unwrap(), Claim::Mine);
}

#[test]
fn the_seed_keeps_all_its_bits() {
    let (_folder, file) = folder();
    let mut results = Results::open(&file, "").unwrap();
    let cell = Cell { seed: u64::MAX, ..example("full") };
    results.claim(&cell, false).unwrap();
    results.finish(&cell, &json!({}), SECOND).unwrap();
    assert_eq!(results.finished().unwrap()[0].cell.seed, u64::MAX);
}

#[test]
fn a_file_of_layout_1_is_taken_on() {
    let (_folder, file) = folder();
    finish(&mut Results::open(&file, "").unwrap(), "full", 0.5);
    let older = rusqlite::Connection::open(&file).unwrap();
    older.execute_batch("ALTER TABLE cells DROP COLUMN name; PRAGMA user_version = 1").unwrap();
    drop(older);
    let mut results = Results::open(&file, "").unwrap();
    let cell = Cell { name: Some("fastest".into()), ..example("expected@25%") };
    results.claim(&cell, false).unwrap();
    results.finish(&cell, &json!({}), SECOND).unwrap();
    let mut found: Vec<Cell> =
        results.finished().unwrap().into_iter().map(|finished| finished.cell).collect();
    found.sort_by(|a, b| a.spec.cmp(&b.spec));
    assert_eq!(found, [cell, example("full")]);
}

#[test]
fn only_the_owner_may_finish() {
    let (_folder, file) = folder();
    let mut results = Results::open(&file, "").unwrap();
    let error = results.finish(&example("full"), &json!({}), SECOND).unwrap_err();
    assert!(error.to_string().contains("no longer this process's"), "{error}");
}

#[test]
fn what_is_no_results_file_is_left_alone() {
    let (folder, file) = folder();
    fs::write(&file, "dear diary, this is no database at all").unwrap();
    let error = Results::open(&file, "").err().unwrap().to_string();
    assert!(error.contains("left as it is"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "dear diary, this is no database at all");

    let foreign = folder.path().join("foreign.sqlite");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE mine (x)").unwrap();
    let before = fs::read(&foreign).unwrap();
    let error = Results::open(&foreign, "").err().unwrap().to_string();
    assert!(error.contains("another program"), "{error}");
    assert_eq!(fs::read(&foreign).unwrap(), before);
}

#[test]
fn a_damaged_file_is_reported_and_not_overwritten() {
    let (_folder, file) = folder();
    let mut results = Results::open(&file, "").unwrap();
    (0..200).for_each(|i| finish(&mut results, &format!("window@{i}tok"), 0.1));
    drop(results);
    let mut bytes = fs::read(&file).unwrap();
    // Every page but the first, which holds the header.
    bytes[4096..].fill(0xA5);
    fs::write(&file, &bytes).unwrap();
    let error = Results::open(&file, "").err().unwrap().to_string();
    assert!(error.contains("damaged") && error.contains("left as it is"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
    let cut = bytes[..5000].to_vec();
    fs::write(&file, &cut).unwrap();
    assert!(Results::open(&file, "").is_err());
    assert_eq!(fs::read(&file).unwrap(), cut);
}

#[test]
fn a_full_disk_stops_with_a_message_and_keeps_what_is_done() {
    let (_folder, file) = folder();
    let mut results = Results::open(&file, "").unwrap();
    finish(&mut results, "full", 0.0);
    results.limit_pages(12);
    let error = (0..1000)
        .find_map(|i| {
            let cell = example(&format!("window@{i}tok"));
            let claimed = results.claim(&cell, false).map(|_| ());
            claimed.and_then(|()| results.finish(&cell, &json!({"kl_mean": 1.0}), SECOND)).err()
        })
        .expect("the file may not grow");
    assert!(error.to_string().contains("the disk is full; all finished cells are kept"), "{error}");
    drop(results);
    let results = Results::open(&file, "").unwrap();
    let done = results.finished().unwrap();
    assert!(done.len() > 1 && done.iter().all(|cell| cell.state == State::Done), "{}", done.len());
}

#[test]
fn shards_merge_into_one() {
    let (folder, file) = folder();
    let other = folder.path().join("other.sqlite");
    let mut one = Results::open(&file, "").unwrap();
    let mut two = Results::open(&other, "").unwrap();
    finish(&mut one, "full", 0.0);
    finish(&mut two, "full", 0.0);
    finish(&mut two, "window@25%", 0.2);
    two.claim(&example("unfinished"), false).unwrap();
    for spec in ["broken", "full"] {
        let broken = Cell { seed: 9, ..example(spec) };
        two.claim(&broken, false).unwrap();
        two.fail(&broken, "not finite", SECOND).unwrap();
    }
    // What is done here is not undone by a failure elsewhere.
    let done = Cell { seed: 9, ..example("full") };
    one.claim(&done, false).unwrap();
    one.finish(&done, &json!({}), SECOND).unwrap();
    let failed = example("h2o@25%");
    one.claim(&failed, false).unwrap();
    one.fail(&failed, "killed", SECOND).unwrap();
    finish(&mut two, "h2o@25%", 0.1);
    drop(two);
    assert_eq!(one.merge(&other).unwrap(), Merged { added: 3, known: 2 });
    assert_eq!(one.merge(&other).unwrap(), Merged { added: 0, known: 5 });
    assert_eq!(one.counts().unwrap(), [0, 4, 1]);
    let missing = one.merge(&folder.path().join("none.sqlite")).unwrap_err();
    assert!(matches!(missing, EvalError::Results { .. }), "{missing}");
}

#[test]
fn two_writers_share_a_file() {
    let (_folder, file) = folder();
    drop(Results::open(&file, "").unwrap());
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let file = &file;
            scope.spawn(move || {
                let mut results = Results::open(file, "").unwrap();
                (0..50).for_each(|i| finish(&mut results, &format!("window@{}tok", 100 * writer + i), 0.1));
            });
        }
    });
    assert_eq!(Results::open(&file, "").unwrap().counts().unwrap(), [0, 100, 0]);
}

fn exported(format: Format) -> Vec<u8> {
    let (_folder, file) = folder();
    let mut results = Results::open(&file, "run, \"again\"").unwrap();
    finish(&mut results, "full", 0.0);
    finish(&mut results, "window@25%", 0.25);
    let mut out = Vec::new();
    results.export(format, &mut out).unwrap();
    out
}

#[test]
fn json_has_everything() {
    let cells: Vec<Finished> = serde_json::from_slice(&exported(Format::Json)).unwrap();
    let window = cells.iter().find(|cell| cell.cell.spec == "window@25%").unwrap();
    assert_eq!(window.measured, json!({"kl_mean": 0.25, "ledger": {"keys": 7}, "curve": [1, 2]}));
    assert_eq!((window.duration_s, window.version.as_str()), (1.0, env!("CARGO_PKG_VERSION")));
}

#[test]
fn csv_quotes_what_needs_it() {
    let csv = String::from_utf8(exported(Format::Csv)).unwrap();
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert_eq!(lines.len(), 4, "{csv}");
    assert!(
        lines[0].starts_with("key,experiment,model,") && lines[0].contains("measured.ledger.keys"),
        "{csv}"
    );
    assert!(csv.contains("\"novel, \"\"quoted\"\"\"") && csv.contains("\"run, \"\"again\"\"\""), "{csv}");
}

#[test]
fn parquet_reads_back() {
    let reader = SerializedFileReader::new(bytes::Bytes::from(exported(Format::Parquet))).unwrap();
    let schema = reader.metadata().file_metadata().schema_descr();
    let at = |name: &str| (0..schema.num_columns()).find(|&i| schema.column(i).name() == name).unwrap();
    let (spec, kl) = (at("spec"), at("measured.kl_mean"));
    let mut rows: Vec<(String, f64)> = reader
        .get_row_iter(None)
        .unwrap()
        .map(|row| {
            row.map(|row| (row.get_string(spec).unwrap().clone(), row.get_double(kl).unwrap())).unwrap()
        })
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(rows, [("full".to_owned(), 0.0), ("window@25%".to_owned(), 0.25)]);
}
