//! What a server refuses, and what it keeps within.

mod common;

use common::*;
use serde_json::{Value, json};
use std::{thread, time::Duration};

#[test]
fn mistakes_are_told_apart_in_one_line() {
    let server = Server::start(settings());
    let long = novel(0, 3000);
    let cases: Vec<(&str, Value, u16, &str)> = vec![
        ("/v1/completions", json!({"prompt": "a", "model": "gpt-4"}), 404, "gpt-4"),
        ("/v1/completions", json!({"prompt": "a", "n": 0}), 400, "n "),
        ("/v1/completions", json!({"prompt": "a", "n": 1000}), 400, "n "),
        ("/v1/completions", json!({"prompt": ""}), 400, "empty"),
        ("/v1/completions", json!({}), 400, "prompt"),
        ("/v1/completions", json!({"prompt": "a", "kv": "nonsense"}), 400, "nonsense"),
        ("/v1/completions", json!({"prompt": "a", "kv": "h2o", "kv_bytes": 1}), 400, "minimum"),
        ("/v1/completions", json!({"prompt": "a", "kv": "h2o@25%", "kv_bytes": 9999999}), 400, "kv_bytes"),
        ("/v1/completions", json!({"prompt": "a", "kv": "full+f16", "kv_bytes": 100000}), 400, "full"),
        ("/v1/completions", json!({"prompt": "a", "temperature": -1}), 400, "temperature"),
        ("/v1/completions", json!({"prompt": "a", "top_p": 0}), 400, "top-p"),
        ("/v1/completions", json!({"prompt": "a", "presence_penalty": 3}), 400, "presence"),
        ("/v1/completions", json!({"prompt": "a", "logit_bias": {"99999999": 1}}), 400, "99999999"),
        ("/v1/completions", json!({"prompt": "a", "nonsense": 1}), 400, "nonsense"),
        ("/v1/completions", json!({"prompt": "a", "suffix": "b"}), 400, "suffix"),
        ("/v1/completions", json!({"prompt": "a", "logprobs": 1000}), 400, "logprobs"),
        ("/v1/completions", json!({"prompt": "a", "regex": "("}), 400, ""),
        ("/v1/completions", json!({"prompt": "a", "regex": "a", "grammar": "start: \"a\""}), 400, "one of"),
        ("/v1/completions", json!({"prompt": "a", "stream_options": {}}), 400, "stream"),
        ("/v1/completions", json!({"prompt": "a", "session": "../x"}), 400, "session"),
        ("/v1/completions", json!({"prompt": "a", "session": "x"}), 400, "--sessions"),
        ("/v1/completions", json!({"prompt": long}), 400, "1024"),
        ("/v1/completions", json!({"prompt": [4294967295u32]}), 400, "4294967295"),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "a"}]}), 400, "template"),
        ("/v1/chat/completions", json!({"messages": []}), 400, "messages"),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            400,
            "",
        ),
        ("/v1/responses", json!({"input": "a", "previous_response_id": "x"}), 400, "session"),
        ("/v1/embeddings", json!({"input": "a"}), 501, "embed"),
        ("/detokenize", json!({"tokens": [99999999]}), 400, "99999999"),
        ("/slots/x?action=dance", json!({}), 400, ""),
        ("/nothing", json!({}), 404, "/openapi.json"),
    ];
    for (path, body, status, word) in cases {
        let reply = server.post(path, &body);
        let message = reply.body["error"]["message"]
            .as_str()
            .unwrap_or_else(|| panic!("{path} {body}: {}", reply.body));
        assert_eq!(reply.status, status, "{path} {body}: {message}");
        assert!(
            message.contains(word) && !message.contains('\n'),
            "{path} {body}: {message:?} lacks {word:?}"
        );
    }
    for (body, word) in
        [("", "EOF"), ("{", "EOF"), ("[]", "struct"), ("{\"prompt\": 1}", "prompt"), ("\u{0}", "expected")]
    {
        let reply = server.post_text("/v1/completions", body, None);
        let message = reply.body["error"]["message"].as_str().unwrap();
        assert!(reply.status == 400 && message.contains(word), "{body:?}: {message}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(server.post_text("/v1/chat/completions", &deep, None).status, 400);
    let large = format!("{{\"prompt\": \"{}\"}}", "a".repeat(2 << 20));
    assert_eq!(server.post_text("/v1/completions", &large, None).status, 413);
    assert_eq!(server.get("/v1/completions").status, 405);
    // And it goes on.
    server.complete(&greedy("It was", 2));
}

#[test]
fn keys_open_the_api_and_the_page_is_open() {
    let server =
        Server::start(sketchkv_server::Settings { keys: vec!["one".into(), "two".into()], ..settings() });
    let body = greedy("It was", 1).to_string();
    let status = |key| server.post_text("/v1/completions", &body, key).status;
    assert_eq!(
        (status(None), status(Some("on")), status(Some("one")), status(Some("two"))),
        (401, 401, 200, 200)
    );
    assert_eq!((server.get("/metrics").status, server.get("/slots").status), (401, 401));
    assert_eq!(
        (server.get("/health").status, server.get("/").status, server.get("/app.js").status),
        (200, 200, 200)
    );
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let server = Server::start(sketchkv_server::Settings { parallel: 1, queue: 2, ..settings() });
    let replies: Vec<_> = thread::scope(|scope| {
        let ask = || {
            let mut body = greedy(&novel(0, 300), 300);
            body["ignore_eos"] = true.into();
            server.post("/v1/completions", &body)
        };
        let asks: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        asks.into_iter().map(|ask| ask.join().unwrap()).collect()
    });
    let (good, full): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert!(good.len() >= 3 && !full.is_empty(), "{} answered", good.len());
    assert!(good.iter().all(|reply| text(&reply.body) == text(&good[0].body)));
    for reply in full {
        assert_eq!(reply.status, 429);
        assert!(reply.retry_after.as_ref().is_some_and(|seconds| seconds.parse::<u64>().unwrap() > 0));
    }
    assert!(server.metric("sketchkv_requests_refused_total") > 0.0);
}

#[test]
fn the_pool_is_never_exceeded_and_caps_are_lowered_before_anyone_waits_for_ever() {
    let model = model();
    let full = model.cache_shape().f16_bytes(1000);
    // Room for one uncompressed text and a half.
    let kv_memory = full * 3 / 2;
    let server =
        Server::start(sketchkv_server::Settings { kv: "auto".parse().unwrap(), kv_memory, ..settings() });
    thread::scope(|scope| {
        let server = &server;
        let asks: Vec<_> = (0..6)
            .map(|i| {
                scope.spawn(move || {
                    let mut body = greedy(&novel(300 * i, 250), 400);
                    body["ignore_eos"] = true.into();
                    let answer = server.ask("/v1/completions", &body);
                    assert_eq!(answer["usage"]["completion_tokens"], 400);
                })
            })
            .collect();
        let mut together = 0;
        while asks.iter().any(|ask| !ask.is_finished()) {
            let slots = server.get("/slots").body;
            let rows = slots["slots"].as_array().unwrap();
            let bytes: u64 = rows.iter().filter_map(|slot| slot["kv"]["bytes"].as_u64()).sum();
            let used = slots["memory"]["used"].as_u64().unwrap();
            assert!(
                bytes <= used && used <= kv_memory as u64,
                "{bytes} taken, {used} granted of {kv_memory}"
            );
            together = together.max(rows.iter().filter(|slot| slot["state"] == "answer").count());
            thread::sleep(Duration::from_millis(10));
        }
        assert!(together >= 2, "{together} at a time");
    });
    assert!(server.metric("sketchkv_caps_lowered_total") > 0.0, "nobody made room");
    assert_eq!(server.metric("sketchkv_kv_overruns_total"), 0.0);
    // What cannot be made smaller and will never fit is refused, with the numbers.
    let kv_memory = full / 2;
    let server = Server::start(sketchkv_server::Settings { kv_memory, ..settings() });
    let reply = server.post("/v1/completions", &greedy(&novel(0, 400), 400));
    let message = reply.body["error"]["message"].as_str().unwrap();
    assert!(reply.status == 400 && message.contains(&kv_memory.to_string()), "{message}");
}

#[test]
fn who_leaves_frees_his_bytes() {
    let server = Server::start(settings());
    for round in 0..20 {
        let mut body = greedy(&novel(round, 40), 900);
        body["ignore_eos"] = true.into();
        body["stream"] = true.into();
        assert!(server.stream("/v1/completions", &body).nth(2).is_some());
    }
    let slots = server.settle();
    assert_eq!(slots["memory"]["used"].as_f64(), Some(server.metric("sketchkv_kv_prefix_bytes")));
}

#[test]
fn a_slow_reader_stalls_nobody_and_gets_everything() {
    let server = Server::start(settings());
    let mut body = greedy(&novel(0, 20), 900);
    body["ignore_eos"] = true.into();
    let whole = server.complete(&body);
    body["stream"] = true.into();
    let mut slow = server.stream("/v1/completions", &body);
    let mut text = slow.next().unwrap()["choices"][0]["text"].as_str().unwrap().to_owned();
    // Others are served while it sleeps.
    server.complete(&greedy(&novel(50, 20), 20));
    thread::sleep(Duration::from_millis(500));
    for event in slow {
        text.push_str(event["choices"][0]["text"].as_str().unwrap_or_default());
    }
    assert_eq!(text, whole);
}

#[test]
fn a_server_that_stops_lets_answers_end() {
    let server = Server::start(settings());
    let mut body = greedy(&novel(0, 20), 200);
    body["stream"] = true.into();
    body["ignore_eos"] = true.into();
    let mut stream = server.stream("/v1/completions", &body);
    stream.next().unwrap();
    let rest = thread::spawn(move || {
        stream.filter_map(|event| event["choices"][0]["finish_reason"].as_str().map(str::to_owned)).last()
    });
    server.stop();
    assert_eq!(rest.join().unwrap().as_deref(), Some("length"));
}
