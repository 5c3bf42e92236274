//! `pull` against a local server that speaks the protocol of the hub.

mod support;

use assert_cmd::Command;
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};
use support::{
    finish,
    hub::{COMMIT, Hub, HubFile},
    sketchkv,
};
use tempfile::TempDir;

/// Bytes that no two places have in common.
fn content(length: usize) -> Vec<u8> {
    (0..length as u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).take(length).collect()
}

fn folder_model(weights: HubFile) -> Vec<(&'static str, HubFile)> {
    vec![
        ("config.json", HubFile::small(b"{\"model_type\":\"gpt2\"}")),
        ("tokenizer.json", HubFile::small(b"{}")),
        ("README.md", HubFile::small(b"not needed")),
        ("onnx/model.onnx", HubFile::large(b"not needed either")),
        ("model.safetensors", weights),
    ]
}

fn pull(hub: &Hub, models: &TempDir, model: &str) -> Command {
    let mut command = sketchkv();
    command.env("HF_ENDPOINT", &hub.endpoint).env("SKETCHKV_MODELS", models.path()).args(["pull", model]);
    command
}

/// The files of a folder that are not hidden, and those that are.
fn files(folder: &Path) -> (Vec<String>, Vec<String>) {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.into_iter().partition(|name| !name.starts_with('.'))
}

fn model_folder(models: &TempDir) -> PathBuf {
    models.path().join("organisation--model")
}

#[test]
fn a_folder_model_arrives_whole_with_only_what_it_needs() {
    let weights = content(300_000);
    let hub = Hub::serve(folder_model(HubFile::large(&weights)));
    let models = TempDir::new().unwrap();
    let pulled = finish(pull(&hub, &models, "organisation/model").arg("--json"));
    assert_eq!(pulled.code, 0, "{}", pulled.stderr);
    let (shown, hidden) = files(&model_folder(&models));
    assert_eq!(shown, ["config.json", "model.safetensors", "sketchkv.json", "tokenizer.json"]);
    assert_eq!(hidden, [""; 0]);
    assert_eq!(fs::read(model_folder(&models).join("model.safetensors")).unwrap(), weights);
    let report = pulled.json();
    assert_eq!(report["source"], format!("organisation/model@{COMMIT}"));
    assert_eq!(report["downloaded_bytes"], 300_000 + 21 + 2);
    let sha256: String = Sha256::digest(&weights).iter().map(|byte| format!("{byte:02x}")).collect();
    let listed = report["files"].as_array().unwrap();
    assert!(listed.iter().any(|file| file["name"] == "model.safetensors" && file["sha256"] == sha256));
}

#[test]
fn what_is_here_is_not_fetched_again_and_needs_no_network() {
    let hub = Hub::serve(folder_model(HubFile::large(&content(1000))));
    let models = TempDir::new().unwrap();
    assert_eq!(finish(&mut pull(&hub, &models, "organisation/model")).code, 0);
    hub.take_requests();
    let again = finish(pull(&hub, &models, "organisation/model").arg("--json"));
    assert_eq!((again.code, again.json()["downloaded_bytes"].as_u64()), (0, Some(0)));
    assert!(hub.take_requests().is_empty());

    // A file that was damaged since is fetched again, and only that one.
    fs::write(model_folder(&models).join("tokenizer.json"), "[]").unwrap();
    let repaired = finish(pull(&hub, &models, "organisation/model").arg("--json"));
    assert_eq!((repaired.code, repaired.json()["downloaded_bytes"].as_u64()), (0, Some(2)));
    assert_eq!(fs::read(model_folder(&models).join("tokenizer.json")).unwrap(), b"{}");
}

#[test]
fn refresh_takes_what_the_branch_has_now() {
    let hub = Hub::serve(folder_model(HubFile::large(&content(1000))));
    let models = TempDir::new().unwrap();
    assert_eq!(finish(&mut pull(&hub, &models, "organisation/model")).code, 0);
    let newer = content(2000);
    hub.put("model.safetensors", HubFile::large(&newer));
    assert_eq!(finish(pull(&hub, &models, "organisation/model").arg("--refresh")).code, 0);
    assert_eq!(fs::read(model_folder(&models).join("model.safetensors")).unwrap(), newer);
}

#[test]
fn a_broken_connection_is_resumed_in_the_same_run() {
    let weights = content(1_000_000);
    let broken = HubFile { breaks_after: Some(700_001), ..HubFile::large(&weights) };
    let hub = Hub::serve(folder_model(broken));
    let models = TempDir::new().unwrap();
    let pulled = finish(pull(&hub, &models, "organisation/model").arg("--json"));
    assert_eq!(pulled.code, 0, "{}", pulled.stderr);
    assert_eq!(fs::read(model_folder(&models).join("model.safetensors")).unwrap(), weights);
    // Nothing came twice.
    assert_eq!(pulled.json()["downloaded_bytes"], 1_000_000 + 21 + 2);
    let ranges: Vec<_> = hub.take_requests().into_iter().filter_map(|request| request.range).collect();
    assert!(ranges.contains(&"bytes=700001-".to_owned()), "{ranges:?}");
}

#[test]
fn a_download_that_was_stopped_goes_on_in_the_next_run() {
    let weights = content(500_000);
    let hub = Hub::serve(folder_model(HubFile::large(&weights)));
    let models = TempDir::new().unwrap();
    let folder = model_folder(&models);
    fs::create_dir_all(&folder).unwrap();
    let sha256: String = Sha256::digest(&weights).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(folder.join(format!(".model.safetensors.{}.part", &sha256[..16])), &weights[..123_456])
        .unwrap();
    let pulled = finish(pull(&hub, &models, "organisation/model").arg("--json"));
    assert_eq!(pulled.code, 0, "{}", pulled.stderr);
    assert_eq!(pulled.json()["downloaded_bytes"], 500_000 - 123_456 + 21 + 2);
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), weights);
}

#[test]
fn a_server_without_ranges_sends_everything_again() {
    let weights = content(100_000);
    let stubborn = HubFile { breaks_after: Some(60_000), ignores_ranges: true, ..HubFile::large(&weights) };
    let hub = Hub::serve(folder_model(stubborn));
    let models = TempDir::new().unwrap();
    let pulled = finish(&mut pull(&hub, &models, "organisation/model"));
    assert_eq!(pulled.code, 0, "{}", pulled.stderr);
    assert_eq!(fs::read(model_folder(&models).join("model.safetensors")).unwrap(), weights);
}

#[test]
fn wrong_content_is_refused_and_leaves_nothing() {
    for weights in [HubFile::large(&content(5000)), HubFile::small(&content(5000))] {
        let hub = Hub::serve(folder_model(HubFile { corrupted: true, ..weights }));
        let models = TempDir::new().unwrap();
        let pulled = finish(&mut pull(&hub, &models, "organisation/model"));
        assert_eq!(pulled.code, 1);
        assert!(pulled.error().contains("model.safetensors has "), "{}", pulled.stderr);
        let (shown, hidden) = files(&model_folder(&models));
        assert!(!shown.contains(&"model.safetensors".into()) && !shown.contains(&"sketchkv.json".into()));
        assert_eq!(hidden, [""; 0]);
    }
}

#[test]
fn a_server_without_checksums_is_noted_and_sizes_still_count() {
    let hub = Hub::serve(folder_model(HubFile { anonymous: true, ..HubFile::large(&content(5000)) }));
    let models = TempDir::new().unwrap();
    assert_eq!(finish(&mut pull(&hub, &models, "organisation/model")).code, 0);
    assert_eq!(fs::read(model_folder(&models).join("model.safetensors")).unwrap(), content(5000));
}

#[test]
fn one_file_of_many_is_pulled_by_name() {
    let files =
        [("a-Q4_0.gguf", HubFile::large(&content(100))), ("b-Q8_0.gguf", HubFile::large(&content(200)))];
    let hub = Hub::serve(files);
    let models = TempDir::new().unwrap();
    let unclear = finish(&mut pull(&hub, &models, "organisation/model"));
    assert_eq!(unclear.code, 1);
    assert!(
        unclear.error().contains("organisation/model:FILE: a-Q4_0.gguf, b-Q8_0.gguf"),
        "{}",
        unclear.stderr
    );
    let missing = finish(&mut pull(&hub, &models, "organisation/model:c.gguf"));
    assert!(missing.error().contains("has no c.gguf; it has a-Q4_0.gguf, b-Q8_0.gguf"), "{}", missing.stderr);
    let pulled = finish(&mut pull(&hub, &models, "organisation/model:b-Q8_0.gguf"));
    assert_eq!(pulled.code, 0, "{}", pulled.stderr);
    let path = PathBuf::from(pulled.stdout.trim());
    assert_eq!(path.file_name().unwrap(), "b-Q8_0.gguf");
    assert_eq!(fs::read(path).unwrap(), content(200));
}

#[test]
fn a_sharded_model_comes_with_its_index_and_every_shard() {
    let hub = Hub::serve([
        ("config.json", HubFile::small(b"{}")),
        ("tokenizer.json", HubFile::small(b"{}")),
        ("model.safetensors.index.json", HubFile::small(b"{}")),
        ("model-00001-of-00002.safetensors", HubFile::large(&content(10))),
        ("model-00002-of-00002.safetensors", HubFile::large(&content(20))),
        ("model-fp8.safetensors", HubFile::large(&content(30))),
    ]);
    let models = TempDir::new().unwrap();
    assert_eq!(finish(&mut pull(&hub, &models, "organisation/model")).code, 0);
    let (shown, _) = files(&model_folder(&models));
    assert_eq!(shown.len(), 6, "{shown:?}");
    assert!(!shown.contains(&"model-fp8.safetensors".into()));
}

#[test]
fn a_split_model_comes_with_every_part() {
    let names = ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"];
    let parts = || names.map(|name| (name, HubFile::large(&content(name.len()))));
    let pulled = |hub: &Hub, model: &str| {
        let models = TempDir::new().unwrap();
        let done = finish(&mut pull(hub, &models, model));
        assert_eq!(done.code, 0, "{}", done.stderr);
        let path = PathBuf::from(done.stdout.trim());
        assert_eq!(path.file_name().unwrap(), names[0]);
        files(path.parent().unwrap()).0
    };
    // The only model of its repository, and one of two, by any part.
    let found = pulled(&Hub::serve(parts()), "organisation/model");
    assert!(names.iter().all(|name| found.iter().any(|found| found == name)), "{found:?}");
    let other = ("b-00001-of-00002.gguf", HubFile::large(&content(5)));
    let found =
        pulled(&Hub::serve(parts().into_iter().chain([other])), "organisation/model:a-00002-of-00002.gguf");
    assert!(names.iter().all(|name| found.iter().any(|found| found == name)), "{found:?}");
    assert!(!found.iter().any(|name| name.starts_with('b')), "{found:?}");
}

#[test]
fn a_token_goes_to_the_hub_and_nowhere_else() {
    let hub = Hub::serve(folder_model(HubFile::large(&content(100))));
    hub.require_token("secret");
    let models = TempDir::new().unwrap();
    let refused = finish(&mut pull(&hub, &models, "organisation/model"));
    assert_eq!(refused.code, 1);
    assert!(refused.error().contains("put a token into HF_TOKEN"), "{}", refused.stderr);
    assert_eq!(files(models.path()).0, [""; 0], "a refused pull leaves no folder");
    hub.take_requests();
    let pulled = finish(pull(&hub, &models, "organisation/model").env("HF_TOKEN", "secret\n"));
    assert_eq!(pulled.code, 0, "{}", pulled.stderr);
    for request in hub.take_requests() {
        let elsewhere = request.line.contains("/storage/");
        assert_eq!(request.authorization.is_none(), elsewhere, "{request:?}");
    }
}

#[test]
fn what_does_not_exist_is_said_so() {
    let hub = Hub::serve([("README.md", HubFile::small(b"no model here"))]);
    let models = TempDir::new().unwrap();
    let cases = [
        ("organisation/other", "404 Not Found: check the name"),
        ("organisation/model@branch", "404 Not Found: check the name"),
        ("organisation/model", "has neither model.safetensors nor a GGUF file"),
    ];
    for (model, message) in cases {
        let failed = finish(&mut pull(&hub, &models, model));
        assert_eq!(failed.code, 1);
        assert!(failed.error().contains(message), "{model}: {}", failed.stderr);
    }
    for name in ["smollm", "organisation/../model", "a/b/c", "/etc/passwd", "organisation/model:../x", ""] {
        let refused = finish(&mut pull(&hub, &models, name));
        assert_eq!(refused.code, 2, "{name}: {}", refused.stderr);
        assert!(refused.error().contains("use one of smollm2-135m, gpt2, "), "{name}: {}", refused.stderr);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_with_a_way_out() {
    let weights = content(100_000);
    let hub = Hub::serve(folder_model(HubFile::large(&weights)));
    let models = TempDir::new().unwrap();
    let folder = model_folder(&models);
    fs::create_dir_all(&folder).unwrap();
    let sha256: String = Sha256::digest(&weights).iter().map(|byte| format!("{byte:02x}")).collect();
    // Every write to this device fails as on a full disk.
    let part = folder.join(format!(".model.safetensors.{}.part", &sha256[..16]));
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let failed = finish(&mut pull(&hub, &models, "organisation/model"));
    assert_eq!(failed.code, 1);
    let error = failed.error();
    assert!(
        error.contains("no space left for ") && error.contains("100000 more bytes are needed"),
        "{error}"
    );
    assert!(error.contains("SKETCHKV_MODELS"), "{error}");
    assert!(!folder.join("model.safetensors").exists() && !folder.join("sketchkv.json").exists());
    // With room again, the same command completes.
    fs::remove_file(&part).unwrap();
    assert_eq!(finish(&mut pull(&hub, &models, "organisation/model")).code, 0);
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), weights);
}

#[test]
fn two_pulls_of_one_model_do_not_mix() {
    let hub = Hub::serve(folder_model(HubFile::large(&content(100))));
    let models = TempDir::new().unwrap();
    let locks = models.path().join(".locks");
    fs::create_dir_all(&locks).unwrap();
    let held = fs::File::create(locks.join("organisation--model")).unwrap();
    held.lock().unwrap();
    let wait = Duration::from_secs(3);
    let other = thread::spawn(move || {
        thread::sleep(wait);
        drop(held);
    });
    let started = Instant::now();
    let waited = finish(&mut pull(&hub, &models, "organisation/model"));
    assert_eq!(waited.code, 0, "{}", waited.stderr);
    assert!(started.elapsed() >= wait);
    let told = "another process is pulling organisation/model: waiting for it";
    assert!(waited.stderr.contains(told), "{}", waited.stderr);
    other.join().unwrap();
}

#[test]
fn models_lists_what_was_pulled() {
    let hub = Hub::serve(folder_model(HubFile::large(&content(100))));
    let data = TempDir::new().unwrap();
    let mut command = sketchkv();
    command.env("HF_ENDPOINT", &hub.endpoint).env("XDG_DATA_HOME", data.path());
    assert_eq!(finish(command.args(["pull", "organisation/model"])).code, 0);
    let listed = finish(sketchkv().env("XDG_DATA_HOME", data.path()).args(["models", "--json"])).json();
    assert_eq!(listed["folder"], data.path().join("sketchkv/models").to_str().unwrap());
    let models = listed["models"].as_array().unwrap();
    let state =
        |name: &str| models.iter().find(|model| model["name"] == name).map(|model| model["state"].clone());
    assert_eq!(state("tiny-gpt2").unwrap(), "embedded");
    assert_eq!(state("gpt2").unwrap(), "known");
    assert_eq!(state("organisation/model").unwrap(), "pulled");
    let row = models.iter().find(|model| model["name"] == "smollm2-135m").unwrap();
    assert_eq!((row["licence"].as_str(), row["bytes"].as_u64()), (Some("Apache-2.0"), Some(98_362_432)));
    let row = models.iter().find(|model| model["name"] == "tiny-gpt2").unwrap();
    assert_eq!(row["context"].as_u64(), Some(1024));
    assert!(row["f16_kv_bytes_per_token"].as_u64().unwrap() > 0);
    // Nothing is removed when one of them is not there.
    let remove = |names: &[&str]| {
        finish(sketchkv().env("XDG_DATA_HOME", data.path()).args(["models", "rm"]).args(names))
    };
    let refused = remove(&["organisation/model", "organisation/other"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("no model `organisation/other` was pulled"), "{}", refused.stderr);
    let path = data.path().join("sketchkv/models/organisation--model");
    assert!(path.is_dir());
    assert_eq!(remove(&["organisation/model"]).code, 0);
    assert!(!path.exists());
}
