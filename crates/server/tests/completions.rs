//! `/v1/completions`, beside the engine by itself.

mod common;

use common::*;
use serde_json::json;
use sketchkv_cache::{Cache, Cap, Spec};
use sketchkv_model::{Logits, Sequence, Workspace, logprobs};
use sketchkv_server::Settings;
use std::thread;

#[test]
fn answers_together_are_those_alone() {
    let (server, model) = (Server::start(settings()), model());
    let specs = ["full+f16", "full+q8", "h2o+q8@25%seen", "auto", "auto@160KiB", "expected+q4h@50%seen"];
    let requests: Vec<(String, &str)> =
        (0..18).map(|i| (novel(97 * i, 20 + 17 * i), specs[i % specs.len()])).collect();
    let ask = |prompt: &str, kv: &str| {
        let mut body = greedy(prompt, 24);
        body["kv"] = kv.into();
        server.complete(&body)
    };
    let ask = &ask;
    thread::scope(|scope| {
        let answers: Vec<_> =
            requests.iter().map(|(prompt, kv)| scope.spawn(move || ask(prompt, kv))).collect();
        for ((prompt, kv), answer) in requests.iter().zip(answers) {
            assert_eq!(answer.join().unwrap(), alone(&model, prompt, 24, kv), "{kv}");
        }
    });
    // A cap beside its cache is a part of it.
    let mut body = greedy(&novel(0, 200), 24);
    (body["kv"], body["kv_bytes"]) = ("auto".into(), (160 << 10).into());
    assert_eq!(server.complete(&body), alone(&model, &novel(0, 200), 24, "auto@160KiB"));
    assert_eq!(server.metric("sketchkv_kv_overruns_total"), 0.0);
    assert!(
        server.metric("sketchkv_batch_size_sum") > server.metric("sketchkv_batch_size_count"),
        "none ran together"
    );
}

#[test]
fn guesses_make_an_answer_no_other() {
    let model = model();
    let guessed = |server: &Server| {
        ["right", "wrong"]
            .map(|kind| server.metric(&format!("sketchkv_{kind}_guesses_total")))
            .iter()
            .sum::<f64>()
    };
    // What comes again can be guessed.
    let prompt = format!("{0} {0} {0}", novel(0, 60));
    let off = Server::start(Settings { guesses: false, ..settings() });
    let server = Server::start(settings());
    for kv in ["full+f16", "full+progressive", "h2o+q8@25%seen", "auto@160KiB"] {
        let expected = alone(&model, &prompt, 96, kv);
        let mut body = greedy(&prompt, 96);
        body["kv"] = kv.into();
        for server in [&server, &off] {
            let before = guessed(server);
            let answer = server.ask("/v1/completions", &body);
            assert_eq!(text(&answer), expected, "{kv}");
            let details = &answer["usage"]["completion_tokens_details"];
            let counts = ["accepted_prediction_tokens", "rejected_prediction_tokens"]
                .map(|n| details[n].as_f64().unwrap());
            server.settle();
            assert_eq!(counts[0] + counts[1], guessed(server) - before, "{kv}");
        }
        body["logprobs"] = 1.into();
        let before = guessed(&server);
        assert_eq!(server.complete(&body), expected, "{kv}, with log-probabilities");
        assert_eq!(guessed(&server), before, "a token that was guessed has no logits of its own");
    }
    assert!(guessed(&server) > 0.0 && guessed(&off) == 0.0);
    assert_eq!(server.metric("sketchkv_kv_overruns_total"), 0.0);
    // The states of guesses are within the budget, or there are none.
    let bytes = Cache::new(model.cache_shape(), &"full+f16".parse().unwrap(), 0).unwrap().most_bytes(512);
    let tight = Server::start(Settings { kv_memory: bytes, max_tokens: Some(32), ..settings() });
    assert_eq!(tight.complete(&greedy(&prompt, 32)), alone(&model, &prompt, 32, "full+f16"));
    assert!(tight.settle()["memory"]["used"].as_u64().unwrap() <= bytes as u64);
}

#[test]
fn a_shared_prefix_is_computed_once_and_changes_nothing() {
    let (server, model) = (Server::start(settings()), model());
    let system = novel(0, 120);
    for kv in ["full+f16", "full+q8", "h2o+q8@25%seen", "auto@160KiB"] {
        let mut cached = vec![];
        for question in ["", " and then he said", " but never would she", " and then he said"] {
            let prompt = format!("{system}{question}");
            let mut body = greedy(&prompt, 16);
            body["kv"] = kv.into();
            let answer = server.ask("/v1/completions", &body);
            assert_eq!(text(&answer), alone(&model, &prompt, 16, kv), "{kv}: {question}");
            let usage = &answer["usage"];
            let tokens = usage["prompt_tokens"].as_u64().unwrap() as usize;
            assert_eq!(tokens, model.tokenizer().encode_prompt(&prompt).unwrap().len());
            cached.push(usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() as usize);
        }
        let whole = (model.tokenizer().encode_prompt(&system).unwrap().len() - 1) / CHUNK * CHUNK;
        assert_eq!(cached[0], 0, "{kv}");
        assert!(cached[1..].iter().all(|&cached| cached >= whole && whole > 2 * CHUNK), "{kv}: {cached:?}");
    }
    assert!(server.metric("sketchkv_prefix_hits_total") >= 12.0);
    // Another cap is another state.
    let mut body = greedy(&system, 1);
    body["kv"] = "h2o+q8@50%".into();
    assert_eq!(server.ask("/v1/completions", &body)["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
}

#[test]
fn a_share_is_one_of_the_servers_context() {
    let (server, model) = (Server::start(Settings { context: Some(512), ..settings() }), model());
    for kv in ["h2o+q8@25%", "auto@12.5%"] {
        let mut body = greedy("The sea", 4);
        body["kv"] = kv.into();
        let answer = server.ask("/v1/completions", &body);
        let spec: Spec = answer["usage"]["kv"]["spec"].as_str().unwrap().parse().unwrap();
        let share = if kv.starts_with("h2o") { 4 } else { 8 };
        assert_eq!(spec.cap, Cap::Bytes(model.cache_shape().f16_bytes(512) / share), "{kv}");
    }
}

#[test]
fn an_echo_has_the_log_probabilities_of_the_model() {
    let (server, model) = (Server::start(settings()), model());
    let prompt = novel(40, 60);
    let tokens = model.tokenizer().encode_prompt(&prompt).unwrap();
    assert!(tokens.len() > 2 * CHUNK);
    let mut cache = Cache::new(model.cache_shape(), &"full+f16".parse().unwrap(), 0).unwrap();
    let mut workspace = Workspace::new();
    let mut rows = vec![];
    for chunk in tokens.chunks(CHUNK) {
        let sequence = Sequence { tokens: chunk, cache: &mut cache };
        rows.extend_from_slice(model.forward(&mut [sequence], &mut workspace, Logits::All).of(0).unwrap());
    }
    let vocabulary = model.config().vocabulary;
    for as_tokens in [false, true] {
        let mut body =
            json!({"prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": true, "logprobs": 2});
        if as_tokens {
            body["prompt"] = json!(tokens);
        }
        let answer = server.ask("/v1/completions", &body);
        let said = &answer["choices"][0]["logprobs"];
        assert_eq!(said["tokens"].as_array().unwrap().len(), tokens.len() + 1);
        assert!(said["token_logprobs"][0].is_null() && said["top_logprobs"][0].is_null());
        for (i, row) in rows.chunks(vocabulary).enumerate() {
            let next = tokens.get(i + 1).copied();
            let expected =
                next.map_or_else(|| logprobs(row, 0, 1).top[0].1, |next| logprobs(row, next, 0).logprob);
            let got = said["token_logprobs"][i + 1].as_f64().unwrap() as f32;
            assert!((got - expected).abs() < 1e-4, "{i}: {got} {expected}");
            assert!(said["top_logprobs"][i + 1].as_object().unwrap().len() <= 2);
        }
        assert!(text(&answer).starts_with(prompt.trim_start()), "{answer}");
        let offsets: Vec<u64> =
            said["text_offset"].as_array().unwrap().iter().map(|o| o.as_u64().unwrap()).collect();
        assert!(offsets.is_sorted() && offsets[0] == 0);
    }
}

#[test]
fn several_answers_and_several_prompts_have_their_places() {
    let server = Server::start(settings());
    let prompt = novel(10, 50);
    let ask = |n: usize, seed: i64| json!({"prompt": prompt, "max_tokens": 12, "temperature": 1.5, "top_k": 0, "top_p": 1, "min_p": 0, "seed": seed, "n": n});
    let answer = server.ask("/v1/completions", &ask(4, 7));
    let texts: Vec<&str> =
        answer["choices"].as_array().unwrap().iter().map(|c| c["text"].as_str().unwrap()).collect();
    assert_eq!(texts.len(), 4);
    // Each is what it is alone, by a seed of its own.
    for (i, text) in texts.iter().enumerate() {
        assert_eq!(
            server.complete(&ask(1, 7 ^ (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as i64)),
            *text
        );
    }
    assert!(texts[0] != texts[1] && texts[1] != texts[2]);
    let prompts = [novel(0, 12), novel(50, 40), novel(200, 3)];
    let answer =
        server.ask("/v1/completions", &json!({"prompt": prompts, "max_tokens": 8, "temperature": 0}));
    for (i, prompt) in prompts.iter().enumerate() {
        assert_eq!(answer["choices"][i]["index"], i);
        assert_eq!(answer["choices"][i]["text"], server.complete(&greedy(prompt, 8)));
    }
    server.settle();
    let memory = &server.get("/slots").body["memory"];
    assert_eq!(
        memory["used"],
        server.metric("sketchkv_kv_prefix_bytes") as u64,
        "what was granted is given back"
    );
}

#[test]
fn a_stream_is_the_answer_in_pieces() {
    // Without guesses, so that tokens come one by one.
    let server = Server::start(Settings { guesses: false, ..settings() });
    let prompt = novel(5, 70);
    let mut body = greedy(&prompt, 40);
    let whole = server.complete(&body);
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true, "include_kv": true});
    let events: Vec<_> = server.stream("/v1/completions", &body).collect();
    let pieces: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(pieces, whole);
    assert!(events.len() > 20, "{} events", events.len());
    let last = events.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 40);
    let kv = &last["usage"]["kv"];
    let ledger: u64 = kv["ledger"].as_object().unwrap().values().map(|bytes| bytes.as_u64().unwrap()).sum();
    assert_eq!(kv["bytes"].as_u64().unwrap(), ledger);
    assert!(kv["kept"].as_f64().unwrap() > 70.0);
    let finish = |event: &serde_json::Value| event["choices"][0]["finish_reason"].as_str().map(str::to_owned);
    assert_eq!(events.iter().find_map(finish).as_deref(), Some("length"));
    // A stop text ends it, and is not part of it.
    let word = whole.split_whitespace().nth(3).unwrap();
    body["stop"] = json!([word]);
    let stopped: Vec<_> = server.stream("/v1/completions", &body).collect();
    let pieces: String = stopped.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(pieces, whole[..whole.find(word).unwrap()]);
    assert_eq!(stopped.iter().find_map(finish).as_deref(), Some("stop"));
}

#[test]
fn answers_keep_to_what_they_have_to_be() {
    let server = Server::start(settings());
    let mut body = json!({"prompt": "The number is ", "max_tokens": 200, "temperature": 1, "seed": 3});
    body["regex"] = "[0-9]{3}-[a-f]{2}".into();
    let answer = server.complete(&body);
    let bytes = answer.as_bytes();
    assert!(answer.len() == 6 && bytes[3] == b'-' && bytes[..3].iter().all(u8::is_ascii_digit), "{answer:?}");
    body.as_object_mut().unwrap().remove("regex");
    let schema = json!({"type": "object", "properties": {"b": {"type": "boolean"}, "a": {"enum": ["x", "y"]}},
        "required": ["b", "a"], "additionalProperties": false});
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "s", "schema": schema}});
    for seed in 0..4 {
        body["seed"] = seed.into();
        let answer = server.complete(&body);
        let value: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert!(value["b"].is_boolean() && (value["a"] == "x" || value["a"] == "y"), "{answer}");
        assert!(answer.find("\"b\"") < answer.find("\"a\""), "the keys keep the schema's order: {answer}");
    }
    let id = server.ask("/tokenize", &json!({"content": "\n"}))["tokens"][0].to_string();
    let biased = json!({"prompt": "It was a", "max_tokens": 3, "temperature": 0, "logit_bias": {id: 100}});
    assert_eq!(server.complete(&biased), "\n\n\n", "the bias of 100 forces the token");
}
