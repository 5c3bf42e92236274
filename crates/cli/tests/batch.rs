//! Many prompts from a file.

mod support;

use serde_json::{Value, json};
use std::{fs, path::Path};
use support::{Finished, finish, sketchkv};

fn batch(input: &Path, output: &Path, options: &[&str]) -> Finished {
    let mut command = sketchkv();
    command.args(["run", "--temperature", "0", "-n", "12"]).args(options);
    finish(command.arg("--input").arg(input).arg("--output").arg(output))
}

fn answers(output: &Path) -> Vec<Value> {
    fs::read_to_string(output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_prompt_is_answered_as_if_it_were_alone_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("prompts.jsonl"), folder.path().join("answers.jsonl"));
    // A prefix of more than a chunk, under a cap that evicts.
    let novel =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/persuasion.txt")).unwrap();
    let shared: String = novel.chars().skip(20_000).take(2_600).collect();
    let prompts: Vec<String> = ["She", "He", "They", "Anne"].map(|end| format!("{shared} {end}")).to_vec();
    let lines: String = prompts.iter().map(|prompt| format!("{}\n", json!({ "prompt": prompt }))).collect();
    fs::write(&input, &lines).unwrap();
    for kv in ["full+q8", "h2o@96tok"] {
        let _ = fs::remove_file(&output);
        let done = batch(&input, &output, &["--kv", kv]);
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert!(done.stderr.contains("prefix of 512 tokens computed once"), "{}", done.stderr);
        let answers = answers(&output);
        assert_eq!(answers.len(), 4);
        for (index, (prompt, answer)) in prompts.iter().zip(&answers).enumerate() {
            let alone = ["run", prompt, "--temperature", "0", "-n", "12", "--json", "--kv", kv];
            let alone = finish(sketchkv().args(alone)).json();
            assert_eq!(answer["index"], index);
            for field in ["text", "prompt_tokens", "generated_tokens", "finish", "kv_bytes"] {
                assert_eq!(answer[field], alone[field], "{kv} {index} {field}");
            }
        }
    }
    // Broken off in the third line: that and the fourth are written again, the others not.
    let whole = fs::read_to_string(&output).unwrap();
    let end = whole.match_indices('\n').nth(1).unwrap().0 + 20;
    fs::write(&output, &whole[..end]).unwrap();
    let again = batch(&input, &output, &["--kv", "h2o@96tok"]);
    assert!(again.stderr.contains("2 prompts answered, 2 were before"), "{}", again.stderr);
    assert_eq!(fs::read_to_string(&output).unwrap(), whole);
}

#[test]
fn guesses_are_made_as_asked_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("prompts.jsonl"), folder.path().join("answers.jsonl"));
    fs::write(&input, format!("{}\n", json!({ "prompt": "The sea, the sea, the sea," }))).unwrap();
    let texts = ["off", "lookup", "self"].map(|how| {
        let _ = fs::remove_file(&output);
        let done = batch(&input, &output, &["--speculate", how]);
        assert_eq!(done.code, 0, "{}", done.stderr);
        answers(&output)[0]["text"].clone()
    });
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    let _ = fs::remove_file(&output);
    let refused = batch(&input, &output, &["--speculate", "tiny-gpt2"]);
    assert!(refused.code == 2 && refused.error().contains("--speculate"), "{}", refused.stderr);
}

#[test]
fn bad_lines_and_files_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("prompts.jsonl"), folder.path().join("answers.jsonl"));
    let refuse = |lines: &str, word: &str| {
        fs::write(&input, lines).unwrap();
        let refused = batch(&input, &output, &[]);
        assert!(refused.code == 2 && refused.error().contains(word), "{lines}: {}", refused.stderr);
        assert!(!output.exists());
    };
    refuse("", "holds no prompt");
    refuse("{\"prompt\": \"a\"}\n{\"promt\": \"b\"}\n", "line 2");
    fs::write(
        &input,
        format!("{}\n{}\n", json!({ "prompt": "a ".repeat(3000) }), json!({ "prompt": "The sea" })),
    )
    .unwrap();
    let done = batch(&input, &output, &[]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    let written = answers(&output);
    assert!(written[0]["error"].as_str().unwrap().contains("the context is 1024"), "{}", written[0]);
    assert_eq!(written[1]["generated_tokens"], 12);
    fs::write(&output, "not answers\n").unwrap();
    assert!(batch(&input, &output, &[]).error().contains("something else than answers"));
    assert_eq!(fs::read_to_string(&output).unwrap(), "not answers\n");
}
