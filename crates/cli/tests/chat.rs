//! `chat`, with lines from a pipe.

mod support;

use std::path::Path;
use support::{Finished, finish, sketchkv, smollm2};

fn chat(model: &Path, options: &[&str], lines: &str) -> Finished {
    let mut command = sketchkv();
    command.arg("chat").arg("--model").arg(model).args(["--temperature", "0", "-n", "24"]).args(options);
    let done = finish(command.write_stdin(lines));
    assert_eq!(done.code, 0, "{}", done.stderr);
    done
}

#[test]
fn a_model_without_a_template_is_refused_with_a_way_out() {
    let refused = finish(sketchkv().arg("chat").write_stdin("Hello\n"));
    assert_eq!(refused.code, 2);
    assert!(refused.error().contains("sketchkv run") && refused.error().contains("pull smollm2-135m"));
}

#[test]
fn turns_share_one_cache_and_reset_empties_it() {
    let Some(model) = smollm2::path() else { return };
    let done = chat(
        &model,
        &[],
        "What is the capital of France?\n/ledger\n/reset\nWhat is the capital of France?\n",
    );
    let answers: Vec<_> = done.stdout.lines().collect();
    assert_eq!(answers.len(), 2, "{}", done.stdout);
    assert!(answers[0].contains("Paris"), "{}", done.stdout);
    assert_eq!(answers[0], answers[1], "after a reset the same question has the same answer");
    assert!(done.stderr.contains("| keys") && done.stderr.contains("tokens seen"), "{}", done.stderr);
}

#[test]
fn a_turn_feeds_only_what_is_new() {
    let Some(model) = smollm2::path() else { return };
    let done = chat(&model, &[], "My name is Ada.\nWhat is my name?\n");
    let prefills: Vec<u64> = done
        .stderr
        .lines()
        .filter_map(|line| line.split("prefill ").nth(1)?.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(prefills.len(), 2, "{}", done.stderr);
    // The template's own system text and the question; then the question alone.
    assert!(prefills[1] < prefills[0], "{prefills:?}");
    assert!(done.stdout.contains("Ada"), "{}", done.stdout);
}

#[test]
fn commands_answer_and_unknown_ones_say_so() {
    let Some(model) = smollm2::path() else { return };
    let done = chat(
        &model,
        &["--kv", "window@2MiB"],
        "/help\n/fly\n\n/system Be brief.\n/ledger\n/quit\nnever said\n",
    );
    assert_eq!(done.stdout, "");
    for text in ["/reset", "there is no /fly", "0 tokens seen", "cache window@2MiB"] {
        assert!(done.stderr.contains(text), "{text}: {}", done.stderr);
    }
}

#[test]
fn a_conversation_that_would_overflow_is_not_run() {
    let Some(model) = smollm2::path() else { return };
    let lines = format!("{}\nHi\n", "word ".repeat(300));
    let done = chat(&model, &["--context", "120"], &lines);
    assert!(done.stderr.contains("of 120 tokens: /reset begins anew"), "{}", done.stderr);
    // The turn that did not fit left nothing behind.
    assert_eq!(done.stdout.lines().count(), 1, "{}", done.stdout);
}

#[test]
fn a_session_remembers_the_conversation() {
    let Some(model) = smollm2::path() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("talk.kv");
    let file = file.to_str().unwrap();
    let lines = ["My name is Ada.\n", "What is my name?\n"];
    let whole = chat(&model, &["--kv", "full+q8"], &lines.concat());
    let first = chat(&model, &["--session", file, "--kv", "full+q8"], lines[0]);
    let second = chat(&model, &["--session", file], lines[1]);
    assert!(
        second.stderr.contains("cache full+q8, ") && second.stderr.contains(" tokens seen;"),
        "{}",
        second.stderr
    );
    assert_eq!(first.stdout + &second.stdout, whole.stdout);
}

#[test]
fn a_session_of_the_other_kind_is_refused() {
    let Some(model) = smollm2::path() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    chat(&model, &["--session", &file("talk.kv")], "Hi\n");
    let of = |command: &str, name: &str| {
        let mut of = sketchkv();
        of.args([command, "--model"]).arg(&model).args(["-n", "1", "--session", &file(name)]);
        finish(of.write_stdin("Hi\n"))
    };
    let refused = of("run", "talk.kv");
    assert_eq!(refused.code, 2);
    assert!(refused.error().contains("is a conversation: go on with `sketchkv chat`"), "{}", refused.stderr);
    assert_eq!(of("run", "text.kv").code, 0);
    let refused = of("chat", "text.kv");
    assert_eq!(refused.code, 2);
    assert!(refused.error().contains("is a text: go on with `sketchkv run`"), "{}", refused.stderr);
}

/// An answer that a stop text cut is taken for what was shown of it.
#[test]
fn a_conversation_goes_on_from_what_was_shown() {
    let Some(model) = smollm2::path() else { return };
    let question = "What is the capital of France?\n";
    let free = chat(&model, &[], question).stdout;
    let word = free.split_whitespace().nth(3).unwrap();
    let stopped = chat(&model, &["--stop", word], &[question, "Go on.\n"].concat());
    assert!(free.starts_with(stopped.stdout.lines().next().unwrap()), "{}", stopped.stdout);
    // In parts, from a file, the same.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("talk.kv");
    let session = ["--stop", word, "--session", file.to_str().unwrap()];
    let first = chat(&model, &session, question);
    let second = chat(&model, &session, "Go on.\n");
    assert_eq!(first.stdout + &second.stdout, stopped.stdout);
}
