//! `run`: text on standard output, one line about it on standard error, or one JSON document.

mod support;

use assert_cmd::Command;
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::Stdio,
};
use support::{finish, sketchkv};

const PROMPT: &str = "She was persuaded to believe the engagement";

fn run(arguments: &[&str]) -> Command {
    let mut command = sketchkv();
    command.arg("run").args(arguments);
    command
}

#[test]
fn text_goes_to_stdout_and_one_line_to_stderr() {
    let done = finish(&mut run(&[PROMPT, "-n", "20", "--temperature", "0"]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.split_whitespace().count() > 5, "{}", done.stdout);
    let line = done.stderr.trim_end();
    assert!(!line.contains('\n'), "{line}");
    assert!(line.starts_with("KV ") && line.contains(" tokens | prefill "), "{line}");
    assert!(line.contains("/s | decode 19 tokens, "), "{line}");
    if cfg!(target_os = "linux") {
        assert!(line.contains("| peak memory "), "{line}");
    }
}

#[test]
fn json_is_one_document_that_agrees_with_the_text() {
    let arguments = [PROMPT, "-n", "20", "--temperature", "0", "--kv", "full+q8"];
    let text = finish(&mut run(&arguments)).stdout;
    let done = finish(run(&arguments).arg("--json"));
    let json = done.json();
    assert_eq!(done.stderr, "");
    assert_eq!(json["text"].as_str().unwrap(), text.strip_suffix('\n').unwrap());
    assert_eq!(json["spec"], "full+q8");
    assert_eq!(json["model"], "tiny-gpt2");
    assert_eq!(json["generated_tokens"], 20);
    assert_eq!(json["finish"], "length");
    assert_eq!(json["ledger"]["total"], json["kv_bytes"]);
    for field in ["prefill_tps", "decode_tps", "kv_percent", "prompt_tokens"] {
        assert!(json[field].as_f64().unwrap() > 0.0, "{field}: {json}");
    }
}

#[test]
fn a_seed_reproduces_a_run_on_any_number_of_threads() {
    let sampled = |seed: &str, threads: &str| {
        finish(&mut run(&[PROMPT, "-n", "40", "--seed", seed, "--threads", threads])).stdout
    };
    assert_eq!(sampled("7", "1"), sampled("7", "2"));
    assert_ne!(sampled("7", "1"), sampled("8", "1"));
}

#[test]
fn a_prompt_comes_from_an_argument_a_file_or_stdin() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompt.txt");
    fs::write(&file, PROMPT).unwrap();
    let options = ["-n", "10", "--temperature", "0"];
    let argument = finish(run(&[PROMPT]).args(options)).stdout;
    assert_eq!(finish(run(&["--file", file.to_str().unwrap()]).args(options)).stdout, argument);
    assert_eq!(finish(run(&[]).args(options).write_stdin(PROMPT)).stdout, argument);
    assert_eq!(finish(run(&["-"]).args(options).write_stdin(PROMPT)).stdout, argument);
}

#[test]
fn a_cap_holds_and_changes_what_is_said() {
    let long = PROMPT.repeat(40);
    let generated = |spec: &str| {
        let json =
            finish(&mut run(&[&long, "-n", "60", "--temperature", "0", "--kv", spec, "--json"])).json();
        (json["kv_bytes"].as_u64().unwrap(), json["text"].as_str().unwrap().to_owned())
    };
    let (full_bytes, full) = generated("full");
    let (capped_bytes, capped) = generated("window@200KiB");
    assert!(capped_bytes <= 200 << 10, "{capped_bytes}");
    assert!(full_bytes > 4 * capped_bytes, "{full_bytes} {capped_bytes}");
    assert_ne!(full, capped);
}

#[test]
fn a_stop_text_ends_the_answer_and_is_not_part_of_it() {
    let options = ["-n", "60", "--temperature", "0", "--json"];
    let free = finish(run(&[PROMPT]).args(options)).json()["text"].as_str().unwrap().to_owned();
    let stop: String = free.chars().skip(20).take(6).collect();
    let stopped = finish(run(&[PROMPT, "--stop", &stop]).args(options)).json();
    assert_eq!(stopped["finish"], "stop");
    assert_eq!(stopped["text"].as_str().unwrap(), &free[..free.find(&stop).unwrap()]);
}

#[test]
fn a_text_has_the_form_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let schema = r#"{"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 99}}, "required": ["n"],
        "additionalProperties": false}"#;
    let of_file =
        finish(&mut run(&[PROMPT, "--json-schema", &file("n.json", schema), "--seed", "3", "--json"])).json();
    let text = of_file["text"].as_str().unwrap();
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    assert!((1..=99).contains(&value["n"].as_i64().unwrap()), "{text}");
    assert_eq!(of_file["finish"], "end");
    let of_argument = finish(&mut run(&[PROMPT, "--json-schema", schema, "--seed", "3", "--json"])).json();
    assert_eq!(of_argument["text"], text);
    let of_regex = finish(&mut run(&[PROMPT, "--regex", "[0-9]{4}-(a|b)"]));
    assert!(of_regex.stdout.len() == 7 && of_regex.stdout[..4].parse::<u32>().is_ok(), "{}", of_regex.stdout);
    let grammar = file("g.lark", "start: \"<\" WORD \">\"\nWORD: /[xyz]{3}/\n");
    let of_grammar = finish(&mut run(&[PROMPT, "--grammar", &grammar]));
    assert!(
        of_grammar.stdout.starts_with('<') && of_grammar.stdout.ends_with(">\n"),
        "{}",
        of_grammar.stdout
    );

    for (arguments, told) in [
        (&["--json-schema", r#"{"not": {}}"#][..], "not"),
        (&["--json-schema", "{"], "the schema is no JSON"),
        (&["--json-schema", &file("broken.json", "[")], "broken.json is no JSON"),
        (&["--regex", "a("], "unclosed group"),
        (&["--grammar", &file("bad.lark", "start: nobody\n")], "nobody"),
        (&["--regex", "a", "--grammar", &grammar], "cannot be used with"),
        (&["--presence-penalty", "-2.5"], "presence penalty must be from -2 to 2"),
        (&["--frequency-penalty", "nan"], "frequency penalty must be from -2 to 2"),
    ] {
        let refused = finish(run(&[PROMPT]).args(arguments));
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(told), "{arguments:?}: {}", refused.stderr);
    }
}

#[test]
fn generation_ends_at_the_context_asked_for() {
    let json = finish(&mut run(&[PROMPT, "--context", "32", "--ignore-end", "--json"])).json();
    let tokens = |field: &str| json[field].as_u64().unwrap();
    assert_eq!(tokens("prompt_tokens") + tokens("generated_tokens"), 32);
    let whole = finish(&mut run(&[PROMPT, "--ignore-end", "--json"])).json();
    assert_eq!(whole["prompt_tokens"].as_u64().unwrap() + whole["generated_tokens"].as_u64().unwrap(), 1024);
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_cleanly() {
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("sketchkv"))
        .args(["run", PROMPT, "--ignore-end", "--threads", "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Once text arrives, the handler is in place.
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut first = [0];
    stdout.read_exact(&mut first).unwrap();
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    let mut stderr = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(stderr.starts_with("KV "), "{stderr}");
    assert!(rest.ends_with(b"\n"));
}

#[cfg(unix)]
#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("sketchkv"))
        .args(["run", PROMPT, "--ignore-end"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_session_goes_on_where_it_was_left() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.kv");
    let spec = "h2o+k=kivi4+v=q4@96tok";
    let part = |prompt: &str, n: &str, more: &[&str]| {
        let arguments = [prompt, "-n", n, "--temperature", "0", "--ignore-end", "--json", "--session"];
        let done = finish(run(&arguments).arg(&file).args(more));
        assert_eq!(done.code, 0, "{}", done.stderr);
        done.json()
    };
    let prompt = PROMPT.repeat(12);
    let whole = [&prompt, "-n", "60", "--temperature", "0", "--ignore-end", "--json", "--kv", spec];
    let whole = finish(&mut run(&whole)).json();
    let first = part(&prompt, "0", &["--kv", spec]);
    assert_eq!((&first["text"], &first["finish"]), (&"".into(), &"length".into()));
    fs::remove_file(&file).unwrap();
    let parts = [part(&prompt, "25", &["--kv", spec]), part("", "35", &[])];
    let text: String = parts.iter().map(|part| part["text"].as_str().unwrap()).collect();
    assert_eq!(text, whole["text"].as_str().unwrap());
    assert_eq!(parts[1]["spec"], spec);
    assert_eq!(parts[1]["kv_bytes"], whole["kv_bytes"]);

    let refused = finish(run(&["on", "--kv", "full", "--session"]).arg(&file));
    assert_eq!(refused.code, 2);
    assert!(refused.error().contains("leave --kv out"), "{}", refused.stderr);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let damaged = finish(run(&["on", "--session"]).arg(&file));
    assert_eq!(damaged.code, 1);
    assert!(damaged.error().contains("its checksum is wrong"), "{}", damaged.stderr);
    assert_eq!(fs::read(&file).unwrap(), bytes, "a damaged session is left alone");
}

/// One command, and two over a session: the same text, whatever chooses and stops it.
#[test]
fn a_text_in_parts_is_the_text_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let options: [&[&str]; 4] = [
        &["--temperature", "0"],
        &["--seed", "3"],
        &["--seed", "3", "--repetition-penalty", "1.4", "--repetition-window", "400"],
        &["--seed", "5", "--stop", "the", "--stop", ", and"],
    ];
    for (i, options) in options.into_iter().enumerate() {
        let file = folder.path().join(i.to_string());
        let spec = ["full", "h2o@25%", "full+q8", "h2o@25%"][i];
        let text = |prompt: &str, more: &[&str]| {
            let done = finish(run(&[prompt, "--ignore-end", "--json"]).args(options).args(more));
            assert_eq!(done.code, 0, "{}", done.stderr);
            (done.json()["text"].as_str().unwrap().to_owned(), done.json()["finish"].clone())
        };
        let (whole, finish) = text(PROMPT, &["-n", "40", "--kv", spec]);
        let session = ["--session", file.to_str().unwrap()];
        let part = |prompt: &str, more: &[&str]| text(prompt, &[&session, more].concat());
        let mut parts = part(PROMPT, &["-n", "20", "--kv", spec]);
        if parts.1 != "stop" {
            let rest = part("", &["-n", "20"]);
            parts = (parts.0 + &rest.0, rest.1);
        }
        assert_eq!(parts, (whole, finish), "{options:?}");
    }
}

#[test]
fn a_session_has_its_seed_until_another_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let begun = folder.path().join("begun");
    let text = |arguments: &[&str], file: &std::path::Path| {
        let done = finish(run(arguments).args(["-n", "16", "--ignore-end", "--json", "--session"]).arg(file));
        assert_eq!(done.code, 0, "{}", done.stderr);
        (done.json()["seed"].as_u64().unwrap(), done.json()["text"].as_str().unwrap().to_owned())
    };
    text(&[PROMPT, "--seed", "3"], &begun);
    let on = |arguments: &[&str]| {
        let file = folder.path().join("on");
        fs::copy(&begun, &file).unwrap();
        text(arguments, &file)
    };
    let own = on(&[""]);
    assert_eq!(own.0, 3);
    assert_eq!(on(&["", "--seed", "3"]), own);
    let other = on(&["", "--seed", "4"]);
    assert_eq!(other.0, 4);
    assert_ne!(other.1, own.1);
    assert_eq!(on(&["", "--seed", "4"]), other);
}

#[test]
fn a_session_holds_what_was_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.kv");
    let run = |prompt: &str, more: &[&str]| {
        let options = ["-n", "60", "--temperature", "0", "--ignore-end", "--json"];
        let done = finish(run(&[prompt]).args(options).args(more));
        assert_eq!(done.code, 0, "{}", done.stderr);
        done.json()
    };
    let shown = |json: &serde_json::Value| json["text"].as_str().unwrap().to_owned();
    let free = shown(&run(PROMPT, &[]));
    let stop: String = free.chars().skip(20).take(9).collect();
    let session = ["--session", file.to_str().unwrap()];
    let stopped = run(PROMPT, &[&session[..], &["--stop", &stop]].concat());
    let before = shown(&stopped);
    assert_eq!(before, &free[..free.find(&stop).unwrap()]);
    // What follows follows what was shown.
    let more = " But Anne";
    let after = run(more, &session);
    let whole = run(&format!("{PROMPT}{before}{more}"), &[]);
    let tokens = |json: &serde_json::Value| json["prompt_tokens"].as_u64().unwrap();
    assert_eq!(shown(&after), shown(&whole));
    assert!(tokens(&after) < tokens(&whole));
}

#[test]
fn a_session_that_cannot_be_had_is_told_before_anything_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    // A model that is not there: what is told first is what is looked at first.
    let refused = |path: &std::path::Path| {
        let done = finish(run(&["text", "--model", "/no/such/model.gguf", "--session"]).arg(path));
        assert_eq!((done.code, done.stdout.as_str()), (1, ""));
        done.error().to_owned()
    };
    assert!(refused(&folder.path().join("no/folder/text.kv")).contains("cannot write the session"));
    let file = folder.path().join("text.kv");
    let mut first = std::process::Command::new(assert_cmd::cargo::cargo_bin!("sketchkv"))
        .args(["run", PROMPT, "--ignore-end", "--threads", "1", "--session"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    first.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    assert!(refused(&file).contains("is in use: another process goes on with it"));
    first.kill().unwrap();
    first.wait().unwrap();
    // Whoever is killed leaves nothing that is in the way.
    assert_eq!(finish(run(&[PROMPT, "-n", "1", "--session"]).arg(&file)).code, 0);
}
