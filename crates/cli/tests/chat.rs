//! `chat`, with lines from a pipe.

mod support;

use std::{fs, path::Path};
#[cfg(unix)]
use std::{
    io::{Read, Write},
    process::{Child, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use support::{Finished, finish, sketchkv, smollm2};

fn chat(model: &Path, options: &[&str], lines: &str) -> Finished {
    let mut command = sketchkv();
    command.arg("chat").arg("--model").arg(model).args(["--temperature", "0"]).args(options);
    if !options.contains(&"-n") {
        command.args(["-n", "24"]);
    }
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
fn a_template_stands_in_place_of_the_models_own() {
    let folder = tempfile::tempdir().unwrap();
    let form = folder.path().join("form.jinja");
    fs::write(&form, "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:").unwrap();
    let words = ["--temperature", "0", "-n", "12", "--chat", "Hello"];
    let asked = finish(sketchkv().arg("run").args(words).arg("--template").arg(&form));
    let plain = finish(sketchkv().args(["run", "--temperature", "0", "-n", "12", "user: Hello\nassistant:"]));
    assert_eq!((asked.code, &asked.stdout), (0, &plain.stdout), "{}", asked.stderr);
    for (words, said) in [
        (["chat", "--template", "ChatML"], "no token <|im_start|>"),
        (["chat", "--template", "vicuna"], "none of chatml, gemma, llama3"),
        (["run", "--template", "chatml"], "--chat"),
    ] {
        let refused = finish(sketchkv().args(words).write_stdin("Hello\n"));
        assert!(refused.code == 2 && refused.error().contains(said), "{words:?}: {}", refused.stderr);
    }
    let Some(model) = smollm2::path() else { return };
    let system = ["--system", "You are a helpful assistant."];
    let own = chat(&model, &system, "What is the capital of France?\n");
    let named =
        chat(&model, &[&system[..], &["--template", "chatml"]].concat(), "What is the capital of France?\n");
    assert_eq!(own.stdout, named.stdout);
}

#[test]
fn a_conversation_is_one_document_of_json() {
    let Some(model) = smollm2::path() else { return };
    let plain = chat(&model, &[], "What is the capital of France?\n");
    let done = chat(&model, &["--json", "--kv", "4MiB"], "What is the capital of France?\n");
    let all = done.json();
    let said = all["messages"].as_array().unwrap();
    assert_eq!((said[0]["role"].as_str(), said[1]["role"].as_str()), (Some("user"), Some("assistant")));
    assert_eq!(said[1]["content"].as_str().unwrap().trim(), plain.stdout.trim());
    assert!(done.stderr.contains(plain.stdout.trim()), "the answer is shown as it comes: {}", done.stderr);
    let (bytes, tokens) = (all["kv_bytes"].as_u64().unwrap(), all["generated_tokens"].as_u64().unwrap());
    assert!(bytes > 0 && bytes <= 4 << 20 && tokens > 0 && all["answers"] == 1, "{all}");
    assert_eq!(all["ledger"]["total"].as_u64(), Some(bytes));
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
    assert!(done.stderr.contains("of 120 tokens: say less"), "{}", done.stderr);
    // The turn that did not fit left nothing behind.
    assert_eq!(done.stdout.lines().count(), 1, "{}", done.stdout);
}

#[test]
fn the_oldest_goes_when_the_context_is_full() {
    let Some(model) = smollm2::path() else { return };
    let lines = "Tell me about a colour.\n".repeat(8);
    let done = chat(&model, &["--context", "200"], &lines);
    assert_eq!(done.stdout.lines().filter(|line| !line.is_empty()).count().min(8), 8, "{}", done.stdout);
    assert_eq!(done.stderr.matches("oldest turns are forgotten").count(), 1, "{}", done.stderr);
    assert!(!done.stderr.contains("say less"), "{}", done.stderr);
}

#[test]
fn what_was_said_is_taken_back_and_said_otherwise() {
    let Some(model) = smollm2::path() else { return };
    let france = "What is the capital of France?";
    let done = chat(
        &model,
        &["--kv", "full+q8"],
        &format!("{france}\n/retry\n/edit What is the capital of Italy?\n/stats\n"),
    );
    let answers: Vec<_> = done.stdout.lines().collect();
    assert_eq!(answers.len(), 3, "{}", done.stdout);
    assert_eq!(answers[0], answers[1], "greedy");
    assert!(answers[0].contains("Paris") && answers[2] != answers[0], "{}", done.stdout);
    assert!(done.stderr.contains("3 answers of"), "{}", done.stderr);
    // It is as if nothing else had ever been said, whether the cache forgets a part or is filled anew.
    for kv in ["full+q8", "h2o@2MiB"] {
        let plain = chat(&model, &["--kv", kv], &format!("{france}\nAnd of Spain?\n"));
        let detour = format!("{france}\nTell me of the sea.\n/undo\nAnd of Spain?\n");
        let detour = chat(&model, &["--kv", kv], &detour);
        let last = |done: &Finished| done.stdout.lines().last().unwrap().to_owned();
        assert_eq!(last(&detour), last(&plain), "{kv}");
        assert!(detour.stderr.contains("taken back: Tell me of the sea."), "{}", detour.stderr);
    }
}

#[test]
fn an_answer_that_was_cut_off_goes_on() {
    let Some(model) = smollm2::path() else { return };
    let lines = "Write a long story of the sea.\n";
    let whole = chat(&model, &["-n", "48"], lines).stdout.replace('\n', "");
    let parts = chat(&model, &["-n", "16"], &format!("{lines}/more\n/more\n"));
    assert_eq!(parts.stdout.replace('\n', ""), whole);
    assert!(parts.stderr.contains("cut off, /more goes on"), "{}", parts.stderr);
}

#[test]
fn files_hold_conversations_and_copies_of_them() {
    let Some(model) = smollm2::path() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (saved, fork, missing) = (file("saved.kv"), file("fork.kv"), file("missing.kv"));
    let lines = format!(
        "My name is Ada.\n/save {saved}\n/fork {fork}\nMy name is Grace now.\n/load {missing}\n/save\n"
    );
    let first = chat(&model, &[], &lines);
    for text in
        [format!("there is no file {missing}"), "/save takes the name".into(), format!("written to {saved}")]
    {
        assert!(first.stderr.contains(&text), "{text}: {}", first.stderr);
    }
    let second = format!("/load {fork}\n/load {saved}\nGo on.\n");
    let second = chat(&model, &["--kv", "h2o@2MiB"], &second);
    for text in ["4 messages", "2 messages", "cache h2o@2MiB"] {
        assert!(second.stderr.contains(text), "{text}: {}", second.stderr);
    }
    // What was said behind the copy is in the copy alone.
    let third = chat(&model, &["--session", &fork], "/undo\n/undo\n/undo\n");
    for text in ["taken back: My name is Grace now.", "taken back: My name is Ada.", "nothing was said yet"] {
        assert!(third.stderr.contains(text), "{text}: {}", third.stderr);
    }
}

#[test]
fn a_cap_is_changed_on_the_way() {
    let Some(model) = smollm2::path() else { return };
    let done = chat(&model, &["--kv", "auto@8MiB"], "Hello.\n/kv 4MiB\n/kv 1KiB\n/kv nothing\n");
    for text in ["auto@4MiB: ", "below the minimum", "`@nothing` is no cap"] {
        assert!(done.stderr.contains(text), "{text}: {}", done.stderr);
    }
}

#[test]
fn a_line_that_ends_in_a_backslash_goes_on() {
    let Some(model) = smollm2::path() else { return };
    let done = chat(&model, &[], "What is the capital \\\nof France?\n");
    assert_eq!(done.stdout.lines().filter(|line| line.contains("Paris")).count(), 1, "{}", done.stdout);
    assert_eq!(done.stderr.matches("prefill").count(), 1, "{}", done.stderr);
}

/// Lets a conversation in `file` begin, says a line if there is one, waits, and tells it to end.
#[cfg(unix)]
fn told_to_end(model: &Path, file: &Path, line: &str, wait: impl FnOnce(&mut Child)) -> ExitStatus {
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("sketchkv"));
    command
        .args(["chat", "--temperature", "0", "-n", "4000", "--model"])
        .arg(model)
        .arg("--session")
        .arg(file);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut input = process.stdin.take().unwrap();
    input.write_all(line.as_bytes()).unwrap();
    wait(&mut process);
    let killed = std::process::Command::new("kill").arg(process.id().to_string()).status().unwrap();
    assert!(killed.success());
    let told = Instant::now();
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status;
        }
        assert!(told.elapsed() < Duration::from_secs(120), "told to end it goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(unix)]
#[test]
fn told_to_end_it_saves_what_was_said() {
    let Some(model) = smollm2::path() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("talk.kv");
    // While it waits for a line, and while it answers.
    for line in ["", "Write a long story of the sea.\n"] {
        let ended = told_to_end(&model, &file, line, |process| {
            let (mut said, mut byte) = (vec![], [0]);
            while !said.ends_with(b"/help lists the commands\n") {
                process.stderr.as_mut().unwrap().read_exact(&mut byte).unwrap();
                said.extend(byte);
            }
            if !line.is_empty() {
                process.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            }
        });
        assert_eq!(ended.code(), Some(143), "{line:?}");
    }
    let again = chat(&model, &["--session", file.to_str().unwrap()], "/stats\n");
    assert!(again.stderr.contains("tokens seen"), "{}", again.stderr);
}

/// Be it told while the model is loaded, or between the steps of its way to an answer.
#[cfg(unix)]
#[test]
fn told_to_end_it_ends_whenever_that_is() {
    use std::os::unix::process::ExitStatusExt;
    let Some(model) = smollm2::path() else { return };
    let folder = tempfile::tempdir().unwrap();
    for part in 1..=8 {
        let file = folder.path().join(format!("{part}.kv"));
        let line = "Write a long story of the sea.\n";
        let after = Duration::from_millis(100 * part);
        let ended = told_to_end(&model, &file, line, |_| std::thread::sleep(after));
        // Before it watches for it, the system ends it.
        assert!(ended.code() == Some(143) || ended.signal() == Some(15), "{part}: {ended}");
    }
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
