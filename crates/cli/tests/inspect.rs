//! The commands that tell about models, methods and the command itself.

mod support;

use serde_json::Value;
use std::{collections::BTreeSet, fs};
use support::{finish, sketchkv, smollm2};

fn stdout(arguments: &[&str]) -> String {
    let done = finish(sketchkv().args(arguments));
    assert_eq!(done.code, 0, "{arguments:?}: {}", done.stderr);
    done.stdout
}

fn json(arguments: &[&str]) -> serde_json::Value {
    finish(sketchkv().args(arguments).arg("--json")).json()
}

#[test]
fn info_of_the_embedded_model() {
    let text = stdout(&["info"]);
    for fact in ["gpt2", "4 query, 4 KV, of 64", "1,024 tokens", "4,470,272", "F16"] {
        assert!(text.contains(fact), "{fact} is missing:\n{text}");
    }
    let info =
        json(&["info", "--kv", "full", "--kv", "full+f32", "--kv", "window@100KiB", "--context", "640"]);
    assert_eq!((info["layers"].as_u64(), info["weight_bytes"].as_u64()), (Some(4), Some(2 * 4_470_272)));
    assert_eq!(info["tensors"].as_array().unwrap().len(), 52);
    let bytes = |row: usize| info["kv"][row]["kv_bytes"].as_u64().unwrap();
    // 4 layers of 4 heads of 64 numbers, keys and values, of two and four bytes, and little else.
    let values = 640 * 4 * 4 * 64 * 2;
    assert!(bytes(0) >= 2 * values && bytes(0) < 2 * values * 105 / 100, "{}", bytes(0));
    assert!(bytes(1) >= 4 * values && bytes(1) < 4 * values * 105 / 100, "{}", bytes(1));
    assert!(bytes(2) <= 100 << 10);
}

#[test]
fn info_of_a_real_model() {
    let Some(path) = smollm2::path() else { return };
    let info = json(&["info", path.to_str().unwrap(), "--context", "64"]);
    assert_eq!(info["architecture"], "llama");
    let dimensions = ["layers", "hidden", "heads", "kv_heads", "head_dim", "context", "vocabulary"];
    let found = dimensions.map(|name| info[name].as_u64().unwrap());
    assert_eq!(found, [30, 576, 9, 3, 64, 8192, 49152]);
    assert_eq!(info["parameters"], 134_515_008);
    assert!(stdout(&["info", path.to_str().unwrap(), "--tensors"]).contains("blk.29.ffn_down.weight"));
}

/// What of a file is not used, and what only flags decide, is told by whatever runs the model.
#[test]
fn remarks_on_a_file_reach_the_user() {
    let folder = tempfile::TempDir::new().unwrap();
    let golden = "../model/tests/golden/mistral-window";
    for entry in fs::read_dir(golden).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let config = fs::read_to_string(folder.path().join("config.json")).unwrap();
    fs::write(folder.path().join("config.json"), config.replacen('{', "{\"attention_sinks\": 4,", 1))
        .unwrap();
    fs::write(folder.path().join("generation_config.json"), "{\"temperature\": 0.6}").unwrap();
    let model = folder.path().to_str().unwrap();
    for arguments in [
        vec!["info", model],
        vec!["run", "-m", model, "-n", "1", "a"],
        vec!["bench", "-m", model, "-p", "4", "-n", "0", "-d", "0", "-r", "1", "--kv", "full"],
        vec!["explain", "full", "-m", model],
    ] {
        let done = finish(sketchkv().args(&arguments));
        assert_eq!(done.code, 0, "{arguments:?}: {}", done.stderr);
        for note in [
            "note: the file has keys that were not used: `attention_sinks`",
            "note: generation_config.json suggests temperature 0.6",
        ] {
            assert_eq!(done.stderr.matches(note).count(), 1, "{arguments:?}: {}", done.stderr);
        }
    }
    // Its window is all that it ever holds.
    let info = json(&["info", model, "--kv", "full+f32", "-c", "200"]);
    assert_eq!(
        (info["sliding_window"].as_u64(), info["f16_kv_bytes_per_token"].as_u64()),
        (Some(24), Some(0))
    );
    let whole = 200 * 2 * 2 * (16 + 16) * 4;
    assert!(info["kv"][0]["kv_bytes"].as_u64().unwrap() < whole / 2, "{info}");
}

#[test]
fn tokens_and_back() {
    let text = "Naïve café, 東京 🙂\n\tif (x) { y(); }";
    let tokens = json(&["tokenize", text]);
    assert_eq!(tokens["text"], text);
    let list = tokens["tokens"].as_array().unwrap();
    assert_eq!(list.len() as u64, tokens["count"].as_u64().unwrap());
    let ids: Vec<_> = list.iter().map(|token| token["id"].to_string()).collect();
    assert_eq!(stdout(&["tokenize", "--decode", &ids.join(" ")]), format!("{text}\n"));
    assert_eq!(stdout(&["tokenize", text]).lines().count(), list.len());
    for wrong in ["4096", "-1", "word"] {
        let failed = finish(sketchkv().args(["tokenize", "--decode", "--", wrong]));
        assert_eq!(failed.code, 2, "{wrong}");
    }
}

#[test]
fn special_tokens_are_parsed_unless_literal() {
    let count = |literal: bool| {
        let mut arguments = vec!["tokenize", "a<|endoftext|>b"];
        arguments.extend(literal.then_some("--literal"));
        json(&arguments)["count"].as_u64().unwrap()
    };
    assert_eq!(count(false), 3);
    assert!(count(true) > 3);
}

#[test]
fn methods_are_listed_and_explained() {
    let listed = json(&["methods"]);
    let methods = listed["methods"].as_array().unwrap();
    let field = |method: &Value, name: &str| method[name].as_str().unwrap().to_owned();
    let unique: BTreeSet<_> = methods.iter().map(|m| (field(m, "choice"), field(m, "name"))).collect();
    assert_eq!(unique.len(), methods.len(), "names are unique within a choice");
    let names: BTreeSet<_> = methods.iter().map(|method| field(method, "name")).collect();
    let overview = stdout(&["methods"]);
    for name in names {
        assert!(overview.contains(&format!("| {name}")), "{name}");
        let explained = stdout(&["methods", name.as_str()]);
        assert!(explained.starts_with(&format!("{name} (")), "{explained}");
        let named = json(&["methods", name.as_str()]);
        // A name of a keep and a tail, or of a preset, stands for several.
        let methods = named["methods"].as_array().cloned().unwrap_or_else(|| vec![named]);
        for parameter in methods.iter().flat_map(|method| method["parameters"].as_array().unwrap()) {
            assert!(explained.contains(parameter["help"].as_str().unwrap()), "{name}: {parameter}");
        }
    }
    let unknown = finish(sketchkv().args(["methods", "h20"]));
    assert_eq!(unknown.code, 2);
    assert!(unknown.error().contains("h2o"));
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = stdout(&["completions", shell]);
        for word in ["compare", "tokenize", "temperature", "beyond-context"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn a_manual_page_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    stdout(&["man", folder.path().to_str().unwrap()]);
    let mut pages: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    let commands =
        ["chat", "compare", "completions", "info", "man", "methods", "models", "pull", "run", "tokenize"];
    let mut wanted: Vec<_> = commands.iter().map(|command| format!("sketchkv-{command}.1")).collect();
    wanted.push("sketchkv.1".into());
    assert!(wanted.iter().all(|page| pages.contains(page)), "{pages:?}");
    let page = fs::read_to_string(folder.path().join("sketchkv-run.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("temperature"), "{page}");
    assert!(stdout(&["man"]).contains("sketchkv"));
}

#[test]
fn explain_counts_what_a_cap_means() {
    let explained = json(&["explain", "foreseen+graded+adaptive@500KiB"]);
    let row = &explained["rows"][0];
    let number = |name: &str| row[name].as_f64().unwrap();
    assert_eq!((row["tokens"].as_u64(), number("key_bits"), number("value_bits")), (Some(1024), 3.0, 3.0));
    assert!(number("kept") > 256.0 && number("kept") < 1024.0, "{row}");
    assert!(number("kv_bytes") <= (500 << 10) as f64 && number("kv_bytes") > (400 << 10) as f64, "{row}");
    // As many as `info` finds by filling a cache.
    let explained = json(&["explain", "full+q8", "-c", "640"]);
    let info = json(&["info", "--kv", "full+q8", "--context", "640"]);
    let (counted, filled) = (&explained["rows"][0]["kv_bytes"], &info["kv"][0]["kv_bytes"]);
    let off = counted.as_f64().unwrap() / filled.as_f64().unwrap() - 1.0;
    assert!(off.abs() < 0.02, "{counted} counted, {filled} filled");
    let text = stdout(&["explain", "64MiB"]);
    assert!(text.contains("progressive") && text.contains("1,024"), "{text}");
    // A share below the floor is said to be.
    let done = finish(sketchkv().args(["explain", "h2o@1%"]));
    assert!(done.code == 0 && done.stderr.contains("floor"), "{}", done.stderr);
    let failed = finish(sketchkv().args(["explain", "h2o@1KiB"]));
    assert!(failed.code == 2 && failed.stderr.contains("minimum"), "{}", failed.stderr);
}

#[test]
fn help_knows_topics_and_commands() {
    let all = stdout(&["help"]);
    assert!(all.contains("  compare ") && all.contains("Topics:\n  specs "), "{all}");
    let specs = stdout(&["help", "SPECS"]);
    assert!(specs.starts_with("`--kv` takes a spec") && specs.contains("| `@25%seen` |"), "{specs}");
    assert_eq!(stdout(&["help", "models", "rm"]), stdout(&["models", "rm", "--help"]));
    let unknown = finish(sketchkv().args(["help", "spec"]));
    assert_eq!(unknown.code, 2);
    assert!(
        unknown.error().contains("no command or topic is called \"spec\"")
            && unknown.error().contains("specs, ")
    );
}
