//! Every option of every command, given what it cannot take: it ends soon, in one line that says what to do.
#![cfg(unix)]

mod support;

use serde_json::Value;
use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File, Permissions},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};
use support::sketchkv;
use tempfile::TempDir;

/// What a command may take on a machine that does other things, too.
const LIMIT: Duration = Duration::from_secs(10);

/// What is given, by name. Files are those of a [`sandbox`].
const BAD: [(&str, &[u8]); 12] = [
    ("empty", b""),
    ("negative", b"-1"),
    ("large", b"999999999"),
    ("largest", b"18446744073709551615"),
    ("huge", b"99999999999999999999999"),
    ("words", b"no such thing"),
    ("missing", b"folder/missing"),
    ("wrong", b"binary"),
    ("pipe", b"pipe"),
    ("folder", b"folder"),
    ("locked", b"locked"),
    ("bytes", b"\xff\xfe"),
];

/// Words, by the argument that they are of.
type Words = [(&'static str, &'static [&'static str])];

/// Words that make each command do little, by the argument that they are of: a tested argument's own are left out.
const USUAL: [(&str, &Words); 24] = [
    (
        "compare",
        &[
            ("quick", &["--quick"]),
            ("context", &["-c64"]),
            ("samples", &["--samples=1"]),
            ("kv", &["--kv=full"]),
        ],
    ),
    ("experiment", &[("experiment", &["speed"]), ("depths", &["--depths=1"]), ("kv", &["--kv=full"])]),
    ("report", &[("results", &["results.sqlite"])]),
    ("results show", &[("file", &["results.sqlite"])]),
    ("results merge", &[("into", &["merged.sqlite"]), ("from", &["results.sqlite"])]),
    ("results export", &[("file", &["results.sqlite"])]),
    ("advise", &[("budget", &["--budget=25%"]), ("context", &["-c64"]), ("samples", &["--samples=1"])]),
    (
        "bench",
        &[
            ("prompt", &["-p1"]),
            ("generate", &["-n1"]),
            ("depth", &["-d0"]),
            ("repetitions", &["-r1"]),
            ("kv", &["--kv=full"]),
        ],
    ),
    ("distortion", &[("tokens", &["--tokens=256"])]),
    ("run", &[("text", &["The sea"]), ("max_tokens", &["-n1"])]),
    ("chat", &[("template", &["--template=form.jinja"]), ("max_tokens", &["-n1"])]),
    ("serve", &[("port", &["--port=0"])]),
    ("pull", &[("model", &["tiny-gpt2"])]),
    ("models", &[]),
    ("models rm", &[("names", &["tiny-gpt2"])]),
    ("info", &[("kv", &["--kv=full"])]),
    ("explain", &[("kv", &["64MiB"])]),
    ("methods", &[]),
    (
        "profile",
        &[("output", &["-oprofile"]), ("samples", &["--samples=1"]), ("measured", &["--measured=512"])],
    ),
    ("train-scorer", &[("output", &["-oprofile"]), ("samples", &["--samples=1"])]),
    ("tokenize", &[("text", &["The sea"])]),
    ("config set", &[("key", &["model"]), ("value", &["tiny-gpt2"])]),
    ("config unset", &[("key", &["model"])]),
    ("help", &[]),
];

/// What an argument needs beside it, or cannot have: words to add, and of which arguments to leave out the usual ones.
const COMPANY: [(&str, &str, &[&str], &[&str]); 7] = [
    ("run", "file", &[], &["text"]),
    ("run", "input", &["--output=answers.jsonl"], &["text"]),
    ("run", "output", &["--input=prompts.jsonl"], &["text"]),
    ("run", "system", &["--chat", "--template=form.jinja"], &[]),
    ("run", "template", &["--chat"], &[]),
    ("tokenize", "file", &[], &["text"]),
    ("experiment", "grid", &["grid"], &["experiment"]),
];

/// What is text, so that a number or the name of a file is in order as well, and only these are tried: the rest is the same.
const TEXTS: [(&str, &str); 10] = [
    ("run", "text"),
    ("run", "system"),
    ("run", "stop"),
    ("run", "regex"),
    ("chat", "system"),
    ("chat", "stop"),
    ("serve", "api_key"),
    ("serve", "cors_origin"),
    ("tokenize", "text"),
    ("config set", "value"),
];
const OF_TEXTS: [&str; 4] = ["empty", "negative", "words", "bytes"];

/// What is in order after all: command (any if empty), argument, what is given, and why.
const FINE: [(&str, &str, &[&str], &str); 30] = [
    ("run", "text", &["negative", "words"], "any text can be gone on with"),
    ("run", "system", &["negative", "words"], "any text instructs"),
    ("chat", "system", &["empty", "negative", "words"], "any text instructs, and none does not"),
    ("", "stop", &["empty", "negative", "words"], "any text may end an answer, and none never comes"),
    ("run", "regex", &["empty", "negative", "words"], "any text without operators is a regex"),
    ("tokenize", "text", &["empty", "negative", "words"], "any text has tokens, perhaps none"),
    ("serve", "api_key", &["negative", "words"], "a key is any text"),
    ("config set", "value", &["negative", "words"], "a model may come later"),
    ("", "session", &NAMES, "a new file may be called anything"),
    ("", "output", &NAMES, "a new file may be called anything"),
    ("report", "output", &["wrong"], "a page is written anew, whatever was there"),
    ("results export", "output", &["wrong"], "an export is written anew, whatever was there"),
    (
        "results merge",
        "into",
        &["large", "largest", "huge", "words", "missing", "bytes"],
        "a new file may be called anything",
    ),
    ("experiment", "results", &NAMES, "a new file may be called anything"),
    ("man", "folder", &NAMES_AND_FOLDERS, "a folder is made"),
    ("serve", "sessions", &NAMES_AND_FOLDERS, "a folder is made"),
    ("", "seed", &["large", "largest"], "a seed is any number"),
    ("", "seeds", &["large", "largest"], "a seed is any number"),
    ("", "temperature", &["large", "largest", "huge"], "all tokens become alike"),
    ("", "repetition_penalty", &["large", "largest", "huge"], "nothing is ever said twice"),
    ("", "repetition_window", &["large", "largest"], "the whole text"),
    ("", "top_k", &["large", "largest"], "all tokens there are"),
    ("", "max_tokens", &["large", "largest"], "what the context has room for"),
    ("advise", "max_kl", &["large", "largest", "huge"], "any loss will do"),
    ("", "presence_penalty", &["negative"], "it makes tokens likelier, down to -2"),
    ("", "frequency_penalty", &["negative"], "it makes tokens likelier, down to -2"),
    ("bench", "prompt", &["large"], "what the context has no room for is left out, and that is said"),
    ("bench", "generate", &["large"], "what the context has no room for is left out, and that is said"),
    ("explain", "context", &["large"], "bytes are counted, and nothing runs"),
    ("info", "context", &["large"], "bytes are counted, and nothing runs"),
];
const NAMES: [&str; 7] = ["negative", "large", "largest", "huge", "words", "missing", "bytes"];
const NAMES_AND_FOLDERS: [&str; 8] =
    ["negative", "large", "largest", "huge", "words", "missing", "bytes", "folder"];

/// What would take seconds each to learn nothing new, of a name or a number that is in order: only these are tried.
const SLOW: [(&str, &str, &[&str]); 9] = [
    ("profile", "output", &["empty", "folder", "pipe"]),
    ("train-scorer", "output", &["empty", "folder", "pipe", "missing"]),
    ("profile", "context", &NO_NUMBERS),
    ("profile", "measured", &NO_NUMBERS),
    ("train-scorer", "context", &NO_NUMBERS),
    ("compare", "seed", &NO_NUMBERS),
    ("advise", "seed", &NO_NUMBERS),
    ("distortion", "seed", &NO_NUMBERS),
    ("advise", "min_speed", &["empty", "negative", "large", "words"]),
];
const NO_NUMBERS: [&str; 5] = ["empty", "negative", "huge", "words", "bytes"];

/// A folder with a file of every kind that is none, and those that commands need. The pipe of `usual` is the same in all of
/// its folders: two commands at once would be at its two ends.
fn sandbox(usual: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    fs::create_dir(place("folder")).unwrap();
    fs::write(place("binary"), [0xff, 0xfe, 0, 1, 2, 3, 0x80]).unwrap();
    fs::write(place("form.jinja"), "{{ messages[0].content }}").unwrap();
    fs::write(place("prompts.jsonl"), "{\"prompt\": \"The sea\"}\n").unwrap();
    fs::write(place("locked"), "some text").unwrap();
    fs::set_permissions(place("locked"), Permissions::from_mode(0o000)).unwrap();
    fs::hard_link(usual.join("pipe"), place("pipe")).unwrap();
    fs::copy(usual.join("results.sqlite"), place("results.sqlite")).unwrap();
    folder
}

/// A command line, and what came of it.
struct Tried {
    line: String,
    code: Option<i32>,
    stderr: String,
    took: Duration,
}

fn attempt(words: &[OsString], folder: &Path) -> Tried {
    let (out, err) = (folder.join("stdout"), folder.join("stderr"));
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("sketchkv"));
    command.env_clear().args(words).current_dir(folder).stdin(Stdio::null());
    command.env("HOME", folder).env("SKETCHKV_CONFIG", folder.join("config.toml"));
    command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let start = Instant::now();
    let mut process = command.spawn().unwrap();
    let said = || String::from_utf8_lossy(&fs::read(&err).unwrap()).into_owned();
    let code = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break status.code();
        }
        let serves = words[0] == "serve" && said().contains(" at http://");
        if serves || start.elapsed() > LIMIT {
            process.kill().unwrap();
            process.wait().unwrap();
            break serves.then_some(0);
        }
        thread::sleep(Duration::from_millis(3));
    };
    let line = words.iter().map(|word| word.display().to_string()).collect::<Vec<_>>().join(" ");
    Tried { line, code, stderr: said(), took: start.elapsed() }
}

/// What is wrong with how bad input was answered.
fn fault(tried: &Tried, names: &[String]) -> Option<&'static str> {
    let stderr = &tried.stderr;
    if stderr.contains("panicked") {
        return Some("a panic");
    }
    match tried.code {
        Some(1 | 2) => {}
        Some(0) => return Some("it is taken"),
        Some(_) => return Some("another exit code"),
        None => return Some("it does not end"),
    }
    // What clap says after an error, and what may be said before it.
    let beside =
        ["Usage: ", "  tip: ", "  [possible values: ", "  <", "For more information", "warning: ", "note: "];
    let beside = |line: &str| line.trim().is_empty() || beside.iter().any(|start| line.starts_with(start));
    let errors: Vec<&str> = stderr.lines().filter(|line| !beside(line)).collect();
    match &errors[..] {
        [error] if error.starts_with("error: ") => {
            let named = names.iter().any(|name| !name.is_empty() && stderr.contains(name));
            (!named).then_some("it names neither the option nor what was given")
        }
        _ => Some("not one line of error"),
    }
}

/// Something bad given to one argument.
struct Try {
    command: String,
    argument: Value,
    kind: &'static str,
    value: OsString,
    words: Vec<OsString>,
}

impl Try {
    fn id(&self) -> &str {
        self.argument["name"].as_str().unwrap()
    }

    /// How a message may name the argument or what was given.
    fn names(&self) -> Vec<String> {
        let value = self.value.to_string_lossy().into_owned();
        let values = if value.is_empty() { vec!["``", "\"\"", "empty"] } else { vec![&*value] };
        let shown = self.argument["shown"][0].as_str().unwrap_or_default();
        let spoken = [shown.to_owned(), self.id().replace('_', "-"), self.id().replace('_', " ")];
        values.into_iter().map(str::to_owned).chain(spoken).collect()
    }
}

/// Everything bad for every argument of a command; what is `locked` alone where that keeps us out.
fn tries(command: &Value, locked: bool) -> Vec<Try> {
    let path: Vec<&str> = command["command"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let name = path.join(" ");
    let usual = USUAL.iter().find(|(command, _)| *command == name).map_or(&[][..], |(_, words)| words);
    let mut tries = Vec::new();
    for argument in command["arguments"].as_array().unwrap().iter().filter(|a| a["takes_value"] == true) {
        let id = argument["name"].as_str().unwrap();
        let is = |(command, argument): (&str, &str)| command == name && argument == id;
        let company = COMPANY.iter().find(|(command, argument, ..)| is((command, argument)));
        let (more, without) = company.map_or((&[][..], &[][..]), |(_, _, more, without)| (*more, *without));
        // Where its own words stand, since positions count; at the end if it has none.
        let place = usual.iter().position(|(of, _)| *of == id).unwrap_or(usual.len());
        let kept = |entries: &Words| -> Vec<OsString> {
            let kept = entries.iter().filter(|(of, _)| *of != id && !without.contains(of));
            kept.flat_map(|(_, words)| *words).map(OsString::from).collect()
        };
        let line = |word: &[OsString]| -> Vec<OsString> {
            let path: Vec<OsString> = path.iter().map(OsString::from).collect();
            let more: Vec<OsString> = more.iter().map(OsString::from).collect();
            [&path[..], &kept(&usual[..place]), word, &kept(&usual[place..]), &more].concat()
        };
        let mut add = |kind, value: &OsStr, words| {
            let (command, argument, value) = (name.clone(), argument.clone(), value.to_owned());
            tries.push(Try { command, argument, kind, value, words });
        };
        let flag = argument["long"].as_str().map(|long| format!("--{long}"));
        match &flag {
            Some(flag) => add("nothing", OsStr::new(""), [line(&[]), vec![flag.into()]].concat()),
            None if argument["required"] == true => add("nothing", OsStr::new(""), line(&[])),
            None => {}
        }
        let text = TEXTS.iter().any(|text| is(*text));
        let slow = SLOW.iter().find(|(command, argument, _)| is((command, argument)));
        let some = slow.map(|(.., kinds)| *kinds).or(text.then_some(&OF_TEXTS));
        for (kind, value) in BAD {
            if some.is_some_and(|some| !some.contains(&kind)) || kind == "locked" && !locked {
                continue;
            }
            let value = OsStr::from_bytes(value);
            let mut word = OsString::from(flag.as_ref().map_or(String::new(), |flag| format!("{flag}=")));
            word.push(value);
            add(kind, value, line(&[word]));
        }
    }
    tries
}

#[test]
fn bad_input_of_every_option_is_one_line_that_says_what_to_do() {
    let usual = tempfile::tempdir().unwrap();
    let results = usual.path().join("results.sqlite");
    let experiment = ["experiment", "speed", "--depths=1", "--kv=full", "--results"];
    let made = support::finish(sketchkv().args(experiment).arg(&results));
    assert_eq!(made.code, 0, "{}", made.stderr);
    let own = || {
        let own = tempfile::tempdir().unwrap();
        assert!(Command::new("mkfifo").arg(own.path().join("pipe")).status().unwrap().success());
        fs::copy(&results, own.path().join("results.sqlite")).unwrap();
        own
    };
    let locked = File::open(sandbox(own().path()).path().join("locked")).is_err();
    let table = support::finish(sketchkv().args(["reference", "--json"])).json();
    let tries: Vec<Try> =
        table.as_array().unwrap().iter().flat_map(|command| tries(command, locked)).collect();
    let (next, faults, used) =
        (Mutex::new(tries.iter()), Mutex::new(Vec::new()), Mutex::new(BTreeSet::new()));
    let work = || {
        let usual = own();
        loop {
            let Some(one) = next.lock().unwrap().next() else { break };
            let folder = sandbox(usual.path());
            let tried = attempt(&one.words, folder.path());
            let fine = FINE.iter().position(|(command, argument, kinds, _)| {
                (command.is_empty() || *command == one.command)
                    && *argument == one.id()
                    && kinds.contains(&one.kind)
            });
            match (fine, fault(&tried, &one.names())) {
                (Some(index), Some("it is taken")) => drop(used.lock().unwrap().insert(index)),
                (_, None) => {}
                (_, Some(fault)) => {
                    let Tried { line, code, stderr, took } = tried;
                    let stderr = stderr.trim().replace('\n', "\n    ");
                    let of = format!("{} {} {}", one.command, one.id(), one.kind);
                    let fault = format!("{fault} [{of}] {took:.1?} {code:?}: sketchkv {line}\n    {stderr}");
                    faults.lock().unwrap().push(fault);
                }
            }
        }
    };
    thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(work))));
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), tries.len(), faults.join("\n"));
    let used = used.into_inner().unwrap();
    let unused: Vec<_> =
        (0..FINE.len()).filter(|index| !used.contains(index)).map(|index| FINE[index]).collect();
    assert!(unused.is_empty(), "these are refused, and need no exception: {unused:?}");
}
