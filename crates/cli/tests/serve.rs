//! `serve` as a process: its settings, its signals, and what it leaves behind when it is killed or the disk is full.
#![cfg(unix)]

mod support;

use serde_json::{Deserializer, Value, json};
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};
use support::{finish, sketchkv};

struct Server {
    process: Child,
    said: Value,
}

impl Server {
    /// Starts it by a shell, after `before`.
    fn start(before: &str, arguments: &[&str]) -> Self {
        let program = assert_cmd::cargo::cargo_bin!("sketchkv");
        let mut process = Command::new("sh")
            .args(["-c", &format!("{before}\nexec \"$0\" serve --json --log quiet \"$@\"")])
            .arg(program)
            .args(arguments)
            .env("SKETCHKV_API_KEY", "")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut documents = Deserializer::from_reader(process.stdout.take().unwrap()).into_iter();
        let said = documents.next().expect("it says where it listens").unwrap();
        Server { process, said }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.said["url"].as_str().unwrap())
    }

    fn ask(&self, body: &Value) -> Option<Value> {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut response = agent.post(self.url("/v1/completions")).send(body.to_string()).ok()?;
        serde_json::from_str(&response.body_mut().read_to_string().ok()?).ok()
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    fn end(mut self, signal: &str) -> Option<i32> {
        self.signal(signal);
        self.process.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn turn(text: &str, tokens: usize) -> Value {
    json!({"prompt": text, "max_tokens": tokens, "temperature": 0, "session": "talk"})
}

fn text(answer: &Value) -> &str {
    answer["choices"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

fn cached(answer: &Value) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

fn files(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_file_of_settings_is_the_command_line_and_a_signal_ends_it_well() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("settings.toml");
    fs::write(&settings, "port = 0\nkv = \"full+q8\"\nkv-memory = \"64MiB\"\napi-key = \"one\"\n").unwrap();
    let settings = settings.to_str().unwrap();
    let server = Server::start("", &["--config", settings, "--kv-memory", "32MiB"]);
    assert_eq!(
        (server.said["kv"].as_str(), server.said["kv_memory"].as_u64()),
        (Some("full+q8"), Some(32 << 20))
    );
    let refused = server.ask(&json!({"prompt": "a"})).unwrap();
    assert_eq!(refused["error"]["type"], "authentication_error");
    assert_eq!(server.end("-TERM"), Some(0));
    for (line, word) in [("prot = 0", "prot"), ("port = \"x\"", "port"), ("port =", "settings.toml")] {
        fs::write(folder.path().join("settings.toml"), line).unwrap();
        let refused = finish(sketchkv().args(["serve", "--config", settings]));
        assert!(refused.code == 2 && refused.error().contains(word), "{line}: {}", refused.stderr);
    }
    let cases: [(&[&str], &str); 6] = [
        (&["--kv-memory", "lots"], "512MiB"),
        (&["--kv-memory", "1KiB"], "--kv-memory"),
        (&["--kv", "nonsense"], "nonsense"),
        (&["--context", "999999"], "context"),
        (&["--parallel", "0"], "--parallel"),
        (&["--model", "nowhere"], "nowhere"),
    ];
    for (arguments, word) in cases {
        let refused = finish(sketchkv().args(["serve", "--port", "0"]).args(arguments));
        assert!(refused.code != 0 && refused.error().contains(word), "{arguments:?}: {}", refused.stderr);
    }
}

#[test]
fn killed_in_mid_write_it_leaves_the_older_state_whole() {
    let folder = tempfile::tempdir().unwrap();
    let sessions = folder.path().to_str().unwrap();
    let arguments = ["--port", "0", "--sessions", sessions, "--kv", "full+f16"];
    let mut said = "It was a truth".to_owned();
    let mut gone_on = 0;
    for round in 0..8 {
        let server = Server::start("", &arguments);
        let answer = server.ask(&turn(&said, 30)).unwrap();
        // What the last server had finished is there, or what it had finished before.
        assert!(answer["error"].is_null(), "round {round}: {answer}");
        gone_on += u64::from(cached(&answer) > 0);
        said.push_str(text(&answer));
        said.push_str(" Then");
        // Killed while the next one is under way or being written, each time a little later.
        let answered = thread::scope(|scope| {
            let asking = scope.spawn(|| server.ask(&turn(&said, 60)));
            thread::sleep(Duration::from_millis(10 + 17 * round));
            server.signal("-KILL");
            asking.join().unwrap()
        });
        // A fast one had come to its end.
        if let Some(answer) = answered {
            said.push_str(text(&answer));
            said.push_str(" And");
        }
    }
    assert!(gone_on >= 4, "{gone_on} of 8 went on");
    let server = Server::start("", &arguments);
    server.ask(&turn(&said, 2)).unwrap();
    assert_eq!(server.end("-TERM"), Some(0));
    assert_eq!(files(folder.path()), ["talk.session"], "nothing else is left behind");
}

#[test]
fn on_a_full_disk_it_says_so_and_the_older_state_stays() {
    let folder = tempfile::tempdir().unwrap();
    let sessions = folder.path().to_str().unwrap();
    // Files of more than 400 KiB cannot be written: as on a full disk, writing fails on the way.
    let server = Server::start(
        "trap '' XFSZ; ulimit -f 800",
        &["--port", "0", "--sessions", sessions, "--kv", "full+f16"],
    );
    let first = server.ask(&turn("It was a truth", 20)).unwrap();
    assert!(first["usage"]["session"]["file_bytes"].as_u64().is_some_and(|bytes| bytes > 1000), "{first}");
    let file = folder.path().join("talk.session");
    let before = fs::read(&file).unwrap();
    let mut said = format!("It was a truth{} Then", text(&first));
    let second = server.ask(&turn(&said, 200)).unwrap();
    assert!(
        second["usage"]["session"]["error"].as_str().is_some_and(|error| error.contains("talk")),
        "{second}"
    );
    assert_eq!(fs::read(&file).unwrap(), before, "the older state is whole");
    assert_eq!(files(folder.path()), ["talk.session"]);
    // In memory it goes on all the same.
    said.push_str(text(&second));
    said.push_str(" And");
    // A request that is refused loses nothing of it.
    let mut refused = turn(&said, 2);
    refused["kv"] = "full+q8".into();
    assert_eq!(server.ask(&refused).unwrap()["error"]["param"], "kv");
    let third = server.ask(&turn(&said, 2)).unwrap();
    assert!(cached(&third) > 200, "{third}");
}
