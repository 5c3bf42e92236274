//! What is asked wrongly or is broken: one line with the way out, exit code 2 or 1, no panic.

mod support;

use std::{fs, path::Path};
use support::{finish, hub, sketchkv, smollm2};
use tempfile::TempDir;

/// The error line of a command that must fail with `code`.
fn fails(code: i32, arguments: &[&str]) -> String {
    let failed = finish(sketchkv().args(arguments).write_stdin(""));
    assert_eq!(failed.code, code, "{arguments:?}: {}", failed.stderr);
    assert_eq!(failed.stdout, "", "{arguments:?}");
    assert!(!failed.stderr.contains("panicked"), "{}", failed.stderr);
    failed.error().to_owned()
}

#[test]
fn a_command_line_that_makes_no_sense_is_2() {
    let cases: [&[&str]; 7] = [
        &[],
        &["fly"],
        &["run", "--temperature", "warm"],
        &["run", "text", "--file", "text"],
        &["run", "text", "--threads", "0"],
        &["compare", "--stream", "0"],
        &["completions", "cobol"],
    ];
    for arguments in cases {
        let failed = finish(sketchkv().args(arguments));
        assert_eq!(failed.code, 2, "{arguments:?}: {}", failed.stderr);
        assert!(failed.stderr.contains("--help"), "{arguments:?}: {}", failed.stderr);
    }
}

#[test]
fn an_unknown_spec_lists_near_names_and_the_grammar() {
    for arguments in [&["run", "text", "--kv", "h20@25%"][..], &["compare", "--kv", "h20@25%"]] {
        let error = fails(2, arguments);
        assert!(error.contains("`h20`") && error.contains("near names: `h2o`"), "{error}");
        assert!(error.contains("names joined by `+`"), "{error}");
    }
    for spec in ["", "+", "full+", "h2o(", "h2o(decay=9)", "h2o(speed=9)@5%", "full@25%", "q8+q4", "window@x"]
    {
        fails(2, &["run", "text", "--kv", spec]);
        fails(2, &["info", "--kv", spec]);
    }
}

#[test]
fn a_cap_below_the_minimum_states_the_minimum() {
    let error = fails(2, &["run", "text", "--kv", "window@1KiB"]);
    let minimum = error.split("the minimum of ").nth(1).unwrap().split(' ').next().unwrap();
    // The minimum it names is one that works.
    let spec = format!("window@{minimum}B");
    let done = finish(sketchkv().args(["run", "text", "-n", "300", "--kv", &spec, "--json"]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.json()["kv_bytes"].as_u64().unwrap() <= minimum.parse().unwrap());
    fails(2, &["compare", "--context", "64", "--kv", "window@1KiB"]);
}

#[test]
fn a_context_beyond_the_models_is_refused() {
    for arguments in [&["run", "text", "--context", "1025"][..], &["compare", "--context", "1025"]] {
        let error = fails(2, arguments);
        assert!(error.contains("1024 tokens, not 1025"), "{error}");
    }
    // Learned positions cannot be extended.
    let error = fails(2, &["run", "text", "--beyond-context"]);
    assert!(error.contains("learned positions"), "{error}");
}

#[test]
fn a_prompt_longer_than_the_context_is_refused() {
    let long = "word ".repeat(2000);
    let error = fails(2, &["run", &long]);
    assert!(error.contains("context") && error.contains("1024"), "{error}");
    let error = fails(2, &["run", "one two three four five six", "--context", "4"]);
    assert!(error.contains("leaves no room in a context of 4"), "{error}");
    let error = fails(2, &["run", ""]);
    assert!(error.contains("the prompt is empty"), "{error}");
}

#[test]
fn sampling_out_of_range_is_refused() {
    for option in
        ["--temperature=-1", "--top-p=1.5", "--min-p=-0.1", "--repetition-penalty=0", "--temperature=NaN"]
    {
        let failed = finish(sketchkv().args(["run", "text", "-n", "1", option]));
        assert_eq!(failed.code, 2, "{option}: {}", failed.stderr);
    }
}

#[test]
fn a_text_that_cannot_be_used_is_refused() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let binary = write("binary.txt", &[0xff, 0xfe, 0x00]);
    let error = fails(2, &["run", "--file", &binary]);
    assert!(error.contains("not UTF-8"), "{error}");
    fails(1, &["run", "--file", "/does/not/exist"]);
    let short = write("short.txt", b"only a few words");
    let error = fails(2, &["compare", "--text", &short]);
    assert!(error.contains("longer text or a shorter context"), "{error}");
    fails(1, &["compare", "--text", "/does/not/exist"]);
    fails(2, &["compare", "--context", "64", "--prefill", "64"]);
}

#[test]
fn a_model_that_is_not_there_says_how_to_get_one() {
    let models = TempDir::new().unwrap();
    let error = |model: &str, code: i32| {
        let failed = finish(sketchkv().env("SKETCHKV_MODELS", models.path()).args(["info", model]));
        assert_eq!(failed.code, code, "{model}: {}", failed.stderr);
        failed.error().to_owned()
    };
    assert!(error("gpt2", 1).contains("run `sketchkv pull gpt2`"));
    assert!(error("organisation/model:x.gguf", 1).contains("run `sketchkv pull organisation/model:x.gguf`"));
    let unknown = error("/no/such/model.gguf", 2);
    assert!(unknown.contains("tiny-gpt2, smollm2-135m, gpt2"), "{unknown}");
}

#[test]
fn a_broken_model_is_one_line_and_1() {
    let folder = TempDir::new().unwrap();
    let broken = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let error = fails(1, &["run", "text", "--model", path.to_str().unwrap()]);
        assert!(error.contains(name), "{error}");
        error
    };
    broken("empty.gguf", b"");
    broken("text.gguf", b"this is no model");
    broken("header.gguf", b"GGUF\x03\0\0\0");
    broken("huge.gguf", &[b"GGUF\x03\0\0\0".as_slice(), &[0xff; 64]].concat());
    fails(1, &["info", folder.path().to_str().unwrap()]);
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-gpt2");
    let copy = folder.path().join("cut");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(tiny).unwrap() {
        let path = entry.unwrap().path();
        let content = fs::read(&path).unwrap();
        let kept = if path.ends_with("model.safetensors") { content.len() / 2 } else { content.len() };
        fs::write(copy.join(path.file_name().unwrap()), &content[..kept]).unwrap();
    }
    let error = fails(1, &["run", "text", "--model", copy.to_str().unwrap()]);
    assert!(error.contains("model.safetensors"), "{error}");
    fs::write(copy.join("config.json"), "{").unwrap();
    let error = fails(1, &["info", copy.to_str().unwrap()]);
    assert!(error.contains("config.json"), "{error}");
}

#[test]
fn a_truncated_gguf_is_one_line_and_1() {
    let Some(whole) = smollm2::path() else { return };
    let bytes = fs::read(whole).unwrap();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("cut.gguf");
    for length in [4, 100, 10_000, 1 << 20, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        let error = fails(1, &["run", "text", "--model", path.to_str().unwrap()]);
        assert!(error.contains("cut.gguf"), "{length}: {error}");
    }
}

#[test]
fn a_damaged_manifest_says_what_to_do() {
    let hub = hub::Hub::serve([
        ("config.json", hub::HubFile::small(b"{}")),
        ("tokenizer.json", hub::HubFile::small(b"{}")),
        ("model.safetensors", hub::HubFile::large(b"weights")),
    ]);
    let models = TempDir::new().unwrap();
    let command = |arguments: &[&str]| {
        let mut command = sketchkv();
        command.env("HF_ENDPOINT", &hub.endpoint).env("SKETCHKV_MODELS", models.path()).args(arguments);
        finish(&mut command)
    };
    assert_eq!(command(&["pull", "organisation/model"]).code, 0);
    fs::write(models.path().join("organisation--model/sketchkv.json"), "{\"name\":").unwrap();
    let failed = command(&["models"]);
    assert_eq!(failed.code, 1);
    assert!(failed.error().contains("remove it and pull the model again"), "{}", failed.stderr);
}

/// The golden GPT-2 with a weight too large to compute with, in `folder`.
fn spoil(folder: &Path) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/gpt2");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(golden.join(file), folder.join(file)).unwrap();
    }
    // The length of a header in JSON, the header, and the tensors one after the other.
    let bytes = fs::read(golden.join("model.safetensors")).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).unwrap();
    let mut spoiled = Vec::new();
    for (name, tensor) in &mut header {
        let Some(offsets) = tensor["data_offsets"].as_array() else { continue };
        let [start, end] = [0, 1].map(|i| offsets[i].as_u64().unwrap() as usize);
        let from = spoiled.len();
        if name == "transformer.h.1.ln_1.weight" {
            spoiled.extend((start..end).step_by(2).flat_map(|_| 3e38f32.to_le_bytes()));
            tensor["dtype"] = "F32".into();
        } else {
            spoiled.extend_from_slice(&data[start..end]);
        }
        tensor["data_offsets"] = serde_json::json!([from, spoiled.len()]);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_slice(), &spoiled].concat();
    fs::write(folder.join("model.safetensors"), file).unwrap();
}

#[test]
fn numbers_that_are_not_finite_are_one_line_and_1() {
    let folder = TempDir::new().unwrap();
    spoil(folder.path());
    let session = folder.path().join("text.kv");
    let model = ["--model", folder.path().to_str().unwrap(), "--session", session.to_str().unwrap()];
    let error = fails(1, &[&["run", "some text", "--kv", "full+q8"][..], &model].concat());
    assert!(error.contains("NaN or infinity in ") && error.contains("of layer 1 at position 0"), "{error}");
    assert!(error.contains("`full+q8`"), "{error}");
    assert!(!session.exists(), "nothing is kept of it");
    fs::write(folder.path().join("chat_template.jinja"), "{{ messages[0].content }}").unwrap();
    let mut chat = sketchkv();
    let chat = finish(chat.args([&["chat", "--kv", "full+q8"][..], &model].concat()).write_stdin("Hello\n"));
    assert_eq!(chat.code, 1);
    assert!(chat.error().contains("NaN or infinity in "), "{}", chat.stderr);
    assert!(chat.stdout.trim().is_empty(), "nothing is said: {}", chat.stdout);
}
