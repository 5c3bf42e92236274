//! Sessions: gone on with, over restarts and accidents.

mod common;

use common::*;
use serde_json::{Value, json};
use sketchkv_model::Model;
use sketchkv_server::Settings;
use std::{fs, path::Path};

fn with_sessions(folder: &Path) -> Settings {
    Settings { sessions: Some(folder.to_owned()), ..settings() }
}

/// A turn of a session: what was said so far and more.
fn turn(server: &Server, session: &str, kv: &str, text: &str) -> Value {
    let mut body = greedy(text, 20);
    body["session"] = session.into();
    body["kv"] = kv.into();
    server.ask("/v1/completions", &body)
}

fn cached(answer: &Value) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
}

#[test]
fn a_session_goes_on_over_a_restart_as_if_there_had_been_none() {
    for kv in ["full+f16", "h2o+q8@25%seen", "auto@160KiB"] {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut texts = [novel(0, 150), novel(0, 150)];
        let mut stays = Server::start(with_sessions(one.path()));
        let mut restarts = Server::start(with_sessions(two.path()));
        for round in 0..3 {
            for (server, text) in [&stays, &restarts].into_iter().zip(&mut texts) {
                let answer = turn(server, "talk", kv, text);
                assert_eq!(answer["usage"]["session"]["name"], "talk");
                assert!(answer["usage"]["session"]["file_bytes"].as_u64().unwrap() > 1000);
                if round > 0 {
                    let new = answer["usage"]["prompt_tokens"].as_u64().unwrap() - cached(&answer);
                    assert!(new < 20, "{new} tokens are new of {answer}");
                }
                text.push_str(common::text(&answer));
                text.push_str(" And so it went.");
            }
            restarts.stop();
            restarts = Server::start(with_sessions(two.path()));
        }
        assert_eq!(texts[0], texts[1], "{kv}");
        stays = {
            stays.stop();
            Server::start(with_sessions(one.path()))
        };
        assert_eq!(stays.get("/slots").body["sessions"], json!(["talk"]));
        // Another text begins it anew.
        assert_eq!(cached(&turn(&stays, "talk", kv, "Once")), 0);
    }
}

#[test]
fn a_session_that_cannot_be_gone_on_with_says_so_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(with_sessions(folder.path()));
    let prompt = novel(0, 50);
    let text = format!("{prompt}{}", text(&turn(&server, "talk", "full+f16", &prompt)));
    let mut body = greedy(&format!("{text} more"), 4);
    body["session"] = "talk".into();
    body["kv"] = "full+q8".into();
    let reply = server.post("/v1/completions", &body);
    assert_eq!((reply.status, reply.body["error"]["param"].as_str()), (400, Some("kv")), "{}", reply.body);
    // Without a cache of its own it takes the session's.
    body.as_object_mut().unwrap().remove("kv");
    assert!(cached(&server.ask("/v1/completions", &body)) > 0);
    let file = folder.path().join("talk.session");
    let whole = fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    server.stop();
    fs::write(&file, &damaged).unwrap();
    let server = Server::start(with_sessions(folder.path()));
    let reply = server.post("/v1/completions", &body);
    assert_eq!(reply.status, 409, "{}", reply.body);
    assert_eq!(fs::read(&file).unwrap(), damaged);
    // Erased, it can begin anew.
    server.ask("/slots/talk?action=erase", &json!({}));
    assert!(!file.exists());
    assert_eq!(cached(&server.ask("/v1/completions", &body)), 0);
    let restored = server.ask("/slots/talk?action=restore", &json!({}));
    assert!(restored["tokens"].as_u64().unwrap() > 50);
    assert_eq!(server.post("/slots/other?action=restore", &json!({})).status, 404);
    assert!(!folder.path().join("other.session").exists());
}

#[test]
fn two_servers_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) =
        (Server::start(with_sessions(folder.path())), Server::start(with_sessions(folder.path())));
    let mut text = novel(0, 60);
    for round in 0..4 {
        let server = if round % 2 == 0 { &one } else { &two };
        let answer = turn(server, "talk", "full+q8", &text);
        assert!(round == 0 || cached(&answer) > 60, "round {round}: {answer}");
        text.push_str(common::text(&answer));
        text.push_str(" Then");
    }
}

#[test]
fn a_folder_has_its_limit_and_a_name_its_letters() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Settings { sessions_limit: 600_000, ..with_sessions(folder.path()) });
    for i in 0..6 {
        turn(&server, &format!("talk-{i}"), "full+f16", &novel(i * 10, 40));
        let total: u64 =
            fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(total <= 600_000, "{total}");
    }
    let names = server.get("/slots").body["sessions"].clone();
    let names: Vec<&str> = names.as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    assert!(names.contains(&"talk-5") && !names.contains(&"talk-0"), "{names:?}");
    for name in ["", ".", "..", ".hidden", "a/b", "a b", "é", &"x".repeat(200)] {
        let mut body = greedy("It was", 1);
        body["session"] = name.into();
        assert_eq!(server.post("/v1/completions", &body).status, 400, "{name:?}");
    }
}

#[test]
fn a_session_that_cannot_be_written_is_said_and_goes_on_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(with_sessions(folder.path()));
    let prompt = novel(0, 40);
    // In the place of the new file there is a folder that cannot be taken away.
    let part = folder.path().join(".talk.session.part");
    let answer = turn(&server, "talk", "full+f16", &prompt);
    let text = format!("{prompt}{} more", text(&answer));
    fs::create_dir_all(part.join("full")).unwrap();
    let mut body = greedy(&text, 4);
    body["session"] = "talk".into();
    let reply = server.post("/v1/completions", &body);
    assert_eq!(reply.status, 500, "{}", reply.body);
    fs::remove_dir_all(&part).unwrap();
    assert!(cached(&server.ask("/v1/completions", &body)) > 40, "nothing was lost");
}

#[test]
fn a_model_whose_file_is_gone_saves_its_sessions_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("llama.gguf");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/llama.gguf");
    let load = || {
        let file = file.clone();
        fs::copy(&golden, &file).unwrap();
        move || Model::load(&file, &options()).unwrap()
    };
    let server = Server::of(load(), with_sessions(folder.path()));
    fs::remove_file(&file).unwrap();
    let first = turn(&server, "one", "full+f16", "Once");
    assert!(first["usage"]["session"]["file_bytes"].as_u64().is_some(), "{first}");
    server.stop();
    // The same weights, read from a file again, go on with it.
    let server = Server::of(load(), with_sessions(folder.path()));
    let said = format!("Once{} more", text(&first));
    assert!(cached(&turn(&server, "one", "full+f16", &said)) > 0);
}
