//! A share of a short text that is below what a cache needs: told on standard error and in `--json`, with the floor.

mod support;

use serde_json::Value;
use support::{Finished, finish, sketchkv};

fn warnings(done: &Finished) -> Vec<String> {
    assert_eq!(done.code, 0, "{}", done.stderr);
    let json = done.json();
    let list = json["warnings"].as_array().unwrap_or_else(|| panic!("no warnings in {json}"));
    let list: Vec<String> = list.iter().map(|warning| warning.as_str().unwrap().to_owned()).collect();
    for warning in &list {
        assert!(done.stderr.contains(&format!("warning: {warning}\n")), "{warning}: {}", done.stderr);
    }
    list
}

fn check(warning: &str, json: &Value) {
    let floor = json["floor_bytes"].as_u64().unwrap();
    assert!(
        (warning.starts_with("`window@1%` needs at least ") || warning.starts_with("`window@1%seen` needs"))
            && warning.contains(" tokens on"),
        "{warning}"
    );
    // The floor that is named is the least that works as a fixed cap.
    let run = |cap: u64| {
        let spec = format!("window@{cap}B");
        finish(sketchkv().args(["run", "The sea", "-n", "1", "--kv", &spec])).code
    };
    assert_eq!((run(floor), run(floor - 1)), (0, 2));
}

#[test]
fn run_and_info_name_the_floor() {
    // Of what was seen, a share grows with the text.
    let run = finish(sketchkv().args(["run", "The sea", "-n", "8", "--kv", "window@1%seen", "--json"]));
    let [warning] = &warnings(&run)[..] else { panic!("{}", run.stderr) };
    check(warning, &run.json());
    let info =
        finish(sketchkv().args(["info", "--kv", "window@1%", "--kv", "window@50%", "-c", "256", "--json"]));
    let [warning] = &warnings(&info)[..] else { panic!("{}", info.stderr) };
    check(warning, &info.json()["kv"][0]);
    let text = finish(sketchkv().args(["run", "The sea", "-n", "8", "--kv", "window@1%seen"]));
    assert!(
        text.stderr.contains(" tokens (took ") && text.stderr.contains(", asked 1 %)"),
        "{}",
        text.stderr
    );
    // Of what is to come it is bytes, and no less than the cache works with.
    let text = finish(sketchkv().args(["run", "The sea", "-n", "8", "--kv", "window@1%"]));
    assert!(text.stderr.contains("less than this cache works with: it gets "), "{}", text.stderr);
    assert_eq!((text.code, text.stderr.contains("took")), (0, false), "{}", text.stderr);
    let long =
        finish(sketchkv().args(["run", "The sea", "-n", "8", "-c", "1000", "--kv", "window@50%", "--json"]));
    assert_eq!(long.json()["spec"], "window@2000KiB", "{}", long.stderr);
}

#[test]
fn who_keeps_to_the_cap_is_not_warned() {
    for spec in ["full", "window@64tok", "window@1MiB"] {
        let run = finish(sketchkv().args(["run", "The sea", "-n", "4", "--kv", spec, "--json"]));
        assert_eq!(warnings(&run), Vec::<String>::new(), "{spec}");
        assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    }
}

/// What a model makes of values is no matter for bytes: `info` counts them without loading weights.
#[test]
fn info_counts_caches_that_weigh_values() {
    for spec in ["h2o+critical@25%", "snapkv+critical+ada@50%", "expected+critical+pyramid@50%"] {
        let info = finish(sketchkv().args(["info", "-c", "256", "--kv", spec, "--json"]));
        assert_eq!(info.code, 0, "{spec}: {}", info.stderr);
        assert!(info.json()["kv"][0]["kv_bytes"].as_u64().unwrap() > 0);
    }
}
