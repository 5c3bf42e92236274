//! The page in a real browser, over a real server.

mod common;

use common::*;
use serde_json::{Value, json};
use sketchkv_engine::Source;
use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

const CHECKS: &str = concat!(include_str!("../../eval/tests/contrast.js"), include_str!("page/checks.js"));

/// Chromium, spoken to through two pipes by the DevTools protocol: messages in JSON, each ended by a zero.
struct Browser {
    process: Child,
    to: ChildStdin,
    from: ChildStdout,
    unread: Vec<u8>,
    next: u64,
    /// What pages said of themselves: errors, and that they are loaded.
    said: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// `None` (which fails in CI) where there is no browser.
    fn start() -> Option<Self> {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let answers = |name: &&str| {
            let version =
                Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            version.is_ok_and(|status| status.success())
        };
        let Some(name) = names.into_iter().find(answers) else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "there is no Chromium");
            eprintln!("skipped: there is no Chromium");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        // The protocol takes the file descriptors 3 and 4; those of a child that can be had are 0 and 1.
        let mut process = Command::new("sh")
            .args([
                "-c",
                r#"exec "$0" "$@" 3<&0 4>&1 1>&2"#,
                name,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
            ])
            .args(["--remote-debugging-pipe", "--no-first-run"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (to, from) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Some(Browser { process, to, from, unread: vec![], next: 0, said: vec![], _profile: profile })
    }

    fn read(&mut self) -> Value {
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == 0) {
                let message: Vec<u8> = self.unread.drain(..=end).collect();
                return serde_json::from_slice(&message[..end]).unwrap();
            }
            let mut more = [0; 1 << 16];
            let count = self.from.read(&mut more).unwrap();
            assert!(count > 0, "the browser is gone");
            self.unread.extend_from_slice(&more[..count]);
        }
    }

    fn call(&mut self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": parameters});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut heard = self.read();
            if heard["id"] == self.next {
                assert!(heard["error"].is_null(), "{method}: {heard}");
                return heard["result"].take();
            }
            self.said.push(heard);
        }
    }

    /// Waits until the page is loaded.
    fn loaded(&mut self) {
        let started = Instant::now();
        let is_load = |said: &Value| said["method"] == "Page.loadEventFired";
        while !self.said.iter().any(is_load) {
            assert!(started.elapsed() < Duration::from_secs(60), "the page does not load");
            let heard = self.read();
            self.said.push(heard);
        }
        self.said.retain(|said| !is_load(said));
    }

    /// Runs the checks on a page, in a browser context of its own; gives what they say.
    fn check(&mut self, url: &str, scheme: &str, width: u32) -> String {
        self.said.clear();
        let context = self.call(None, "Target.createBrowserContext", json!({}))["browserContextId"].take();
        let target = json!({"url": "about:blank", "browserContextId": context});
        let target = self.call(None, "Target.createTarget", target)["targetId"].take();
        let attached = self.call(None, "Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        let session = attached["sessionId"].as_str().unwrap().to_owned();
        let session = Some(session.as_str());
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            self.call(session, domain, json!({}));
        }
        let size = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call(session, "Emulation.setDeviceMetricsOverride", size);
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call(session, "Emulation.setEmulatedMedia", media);
        self.call(session, "Page.navigate", json!({"url": url}));
        self.loaded();
        let evaluate = json!({"expression": CHECKS, "awaitPromise": true, "returnByValue": true});
        let mut verdict = self.call(session, "Runtime.evaluate", evaluate.clone());
        while verdict["result"]["value"] == "reload" {
            self.call(session, "Page.reload", json!({}));
            self.loaded();
            verdict = self.call(session, "Runtime.evaluate", evaluate.clone());
        }
        // The checks ask for what is refused, which the browser logs.
        let is_fault = |said: &&Value| match said["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Runtime.consoleAPICalled") => true,
            Some("Log.entryAdded") => said["params"]["entry"]["source"] != "network",
            _ => false,
        };
        let faults: Vec<&Value> = self.said.iter().filter(is_fault).collect();
        assert!(faults.is_empty(), "{faults:?}");
        verdict["result"]["value"].as_str().map_or_else(|| verdict.to_string(), str::to_owned)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_page_talks_on_every_screen() {
    let Some(mut browser) = Browser::start() else { return };
    let auto = || sketchkv_server::Settings { kv: "auto".parse().unwrap(), ..settings() };
    let base = Server::start(auto());
    assert_eq!(browser.check(&base.url("/"), "light", 1280), "passed", "a base model");
    let Ok(source) = Source::find("smollm2-135m") else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "smollm2-135m is missing");
        return;
    };
    let chat = Server::of(move || source.load(&options()).unwrap(), auto());
    for (scheme, width) in [("light", 1280), ("dark", 360)] {
        assert_eq!(browser.check(&chat.url("/"), scheme, width), "passed", "{scheme}, {width} px");
    }
}
