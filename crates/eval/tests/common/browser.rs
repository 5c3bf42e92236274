//! Chromium, spoken to through two pipes by the DevTools protocol: messages in JSON, each ended by a zero.
#![allow(dead_code, reason = "each test file uses some of it")]

use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

pub(crate) struct Browser {
    process: Child,
    to: ChildStdin,
    from: ChildStdout,
    unread: Vec<u8>,
    next: u64,
    /// What pages said of themselves: errors, and that they are loaded.
    said: Vec<Value>,
    _profile: tempfile::TempDir,
}

/// A page that is open, by its session.
pub(crate) struct Tab(String);

/// What a page is shown on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    /// `light` or `dark`.
    pub(crate) scheme: &'static str,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Browser {
    /// `None` (which fails in CI) where there is no browser.
    pub(crate) fn start() -> Option<Self> {
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

    fn call(&mut self, tab: Option<&Tab>, method: &str, parameters: Value) -> Value {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": parameters});
        if let Some(Tab(session)) = tab {
            message["sessionId"] = session.as_str().into();
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

    /// Opens a page in a browser context of its own.
    pub(crate) fn open(&mut self, url: &str, screen: Screen) -> Tab {
        self.said.clear();
        let context = self.call(None, "Target.createBrowserContext", json!({}))["browserContextId"].take();
        let target = json!({"url": "about:blank", "browserContextId": context});
        let target = self.call(None, "Target.createTarget", target)["targetId"].take();
        let attached = self.call(None, "Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        let tab = Tab(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            self.call(Some(&tab), domain, json!({}));
        }
        let Screen { scheme, width, height } = screen;
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call(Some(&tab), "Emulation.setDeviceMetricsOverride", size);
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call(Some(&tab), "Emulation.setEmulatedMedia", media);
        self.call(Some(&tab), "Page.navigate", json!({"url": url}));
        self.loaded();
        tab
    }

    pub(crate) fn reload(&mut self, tab: &Tab) {
        self.call(Some(tab), "Page.reload", json!({}));
        self.loaded();
    }

    /// Lays the page out as on paper of this width, in pixels.
    pub(crate) fn lay_out_for_print(&mut self, tab: &Tab, width: u32) {
        let size = json!({"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": false});
        self.call(Some(tab), "Emulation.setDeviceMetricsOverride", size);
        self.call(Some(tab), "Emulation.setEmulatedMedia", json!({"media": "print"}));
    }

    /// What an expression, or the promise it is, comes to. It may do what a page may only when someone has clicked, such as open
    /// another tab.
    pub(crate) fn evaluate(&mut self, tab: &Tab, expression: &str) -> Value {
        let evaluate = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true,
        });
        let mut outcome = self.call(Some(tab), "Runtime.evaluate", evaluate);
        assert!(outcome["exceptionDetails"].is_null(), "{outcome}");
        outcome["result"]["value"].take()
    }

    /// A picture of the whole page, as PNG.
    pub(crate) fn picture(&mut self, tab: &Tab) -> Vec<u8> {
        let whole = json!({"format": "png", "captureBeyondViewport": true, "clip": self.extent(tab)});
        let picture = self.call(Some(tab), "Page.captureScreenshot", whole);
        from_base64(picture["data"].as_str().unwrap())
    }

    fn extent(&mut self, tab: &Tab) -> Value {
        let mut metrics = self.call(Some(tab), "Page.getLayoutMetrics", json!({}));
        let mut extent = metrics["cssContentSize"].take();
        extent["scale"] = 1.into();
        extent
    }

    /// The page printed, as PDF.
    pub(crate) fn print(&mut self, tab: &Tab) -> Vec<u8> {
        let options = json!({"printBackground": true, "preferCSSPageSize": true});
        let printed = self.call(Some(tab), "Page.printToPDF", options);
        from_base64(printed["data"].as_str().unwrap())
    }

    /// What pages complained of since the last was opened. What a server refused on purpose is logged, too: that is left out.
    pub(crate) fn faults(&self) -> Vec<&Value> {
        let is_fault = |said: &&Value| match said["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Runtime.consoleAPICalled") => true,
            Some("Log.entryAdded") => said["params"]["entry"]["source"] != "network",
            _ => false,
        };
        self.said.iter().filter(is_fault).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let value = |letter: &u8| LETTERS.iter().position(|other| other == letter).unwrap() as u32;
    let text = text.trim_end_matches('=').as_bytes();
    let whole = |four: &[u8]| {
        let bits = four.iter().fold(0, |bits, letter| bits << 6 | value(letter)) << (6 * (4 - four.len()));
        bits.to_be_bytes()[1..four.len()].to_vec()
    };
    text.chunks(4).flat_map(whole).collect()
}
