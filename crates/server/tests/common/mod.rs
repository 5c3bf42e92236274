//! A real server over the embedded model, on a port of its own.
#![allow(dead_code, reason = "each test binary uses some of it")]

use serde_json::{Value, json};
use sketchkv_cache::Cache;
use sketchkv_engine::{EMBEDDED, GenerateOptions, Generation, Source};
use sketchkv_model::{LoadOptions, Model, Sampler, Sampling, Workspace};
use sketchkv_server::{Settings, serve};
use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::PathBuf,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Tokens of a chunk: small, so that short prompts have several.
pub(crate) const CHUNK: usize = 32;

pub(crate) fn options() -> LoadOptions {
    LoadOptions { threads: 2, ..LoadOptions::default() }
}

pub(crate) fn model() -> Model {
    Source::find(EMBEDDED).unwrap().load(&options()).unwrap()
}

pub(crate) fn settings() -> Settings {
    Settings {
        address: "127.0.0.1:0".parse().unwrap(),
        kv: "full+f16".parse().unwrap(),
        kv_memory: 256 << 20,
        parallel: 16,
        queue: 64,
        context: None,
        max_tokens: None,
        chunk: CHUNK,
        guesses: true,
        timeout: Duration::from_secs(120),
        body: 1 << 20,
        connections: 256,
        keys: vec![],
        cors: vec![],
        sessions: None,
        sessions_limit: 1 << 30,
        grace: Duration::from_secs(5),
    }
}

/// A server that stops when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// An answer: its status, headers and body.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: Value,
}

impl Server {
    pub(crate) fn start(settings: Settings) -> Self {
        Server::of(model, settings)
    }

    pub(crate) fn of(model: impl FnOnce() -> Model + Send + 'static, settings: Settings) -> Self {
        let (ready, address) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let thread = thread::spawn(move || {
            serve(model(), settings, |address| ready.send(address).unwrap(), stopped).unwrap();
        });
        let address = address.recv_timeout(Duration::from_secs(120)).expect("the server begins");
        Server { address, stop: Some(stop), thread: Some(thread) }
    }

    /// Stops it in good order.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_text(path, &body.to_string(), None)
    }

    pub(crate) fn post_text(&self, path: &str, body: &str, key: Option<&str>) -> Reply {
        let mut request = agent().post(self.url(path)).header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        read(request.send(body).unwrap())
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        read(agent().get(self.url(path)).call().unwrap())
    }

    pub(crate) fn text(&self, path: &str) -> String {
        agent().get(self.url(path)).call().unwrap().body_mut().read_to_string().unwrap()
    }

    /// An answer that must be one.
    pub(crate) fn ask(&self, path: &str, body: &Value) -> Value {
        let reply = self.post(path, body);
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.body
    }

    /// The text that a completion adds to `prompt`.
    pub(crate) fn complete(&self, body: &Value) -> String {
        text(&self.ask("/v1/completions", body)).to_owned()
    }

    /// The events of a stream; reading may be given up at any time.
    pub(crate) fn stream(&self, path: &str, body: &Value) -> impl Iterator<Item = Value> + use<> {
        let response = agent().post(self.url(path)).send(body.to_string()).unwrap();
        assert_eq!(response.status(), 200);
        let lines = BufReader::new(response.into_body().into_reader()).lines();
        let data =
            lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("data: ").map(str::to_owned));
        data.take_while(|data| data != "[DONE]").map(|data| serde_json::from_str(&data).unwrap())
    }

    /// What `/metrics` says of one.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.text("/metrics");
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until nothing goes on.
    pub(crate) fn settle(&self) -> Value {
        let started = Instant::now();
        loop {
            let slots = self.get("/slots").body;
            let busy = |slot: &Value| slot["state"] != "idle";
            if !slots["slots"].as_array().unwrap().iter().any(busy) {
                return slots;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "{slots}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.timeout_global(Some(Duration::from_secs(120))).build().into()
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> Reply {
    let mut text = String::new();
    response.body_mut().as_reader().read_to_string(&mut text).unwrap();
    let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Reply { status: response.status().as_u16(), retry_after, body }
}

/// The text of the first choice of a completion.
pub(crate) fn text(answer: &Value) -> &str {
    answer["choices"][0]["text"].as_str().unwrap()
}

/// A greedy request for a text to go on.
pub(crate) fn greedy(prompt: &str, tokens: usize) -> Value {
    json!({"prompt": prompt, "max_tokens": tokens, "temperature": 0})
}

/// What the engine makes of a prompt by itself, greedily.
pub(crate) fn alone(model: &Model, prompt: &str, tokens: usize, kv: &str) -> String {
    let cache = Cache::new(model.cache_shape(), &kv.parse().unwrap(), 0).unwrap();
    let mut generation = Generation::new(cache, Sampler::new(Sampling::greedy()).unwrap());
    let options =
        GenerateOptions { max_tokens: Some(tokens), chunk: Some(CHUNK), ..GenerateOptions::default() };
    generation.feed(model, &model.tokenizer().encode_prompt(prompt).unwrap(), &options).unwrap();
    generation.complete(model, &mut Workspace::new()).unwrap().to_owned()
}

/// Part of a novel, of about so many tokens.
pub(crate) fn novel(from: usize, words: usize) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../data/persuasion.txt");
    let text = std::fs::read_to_string(path).unwrap();
    text.split_whitespace().skip(from).take(words).collect::<Vec<_>>().join(" ")
}
