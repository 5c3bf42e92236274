//! The command as somebody at a terminal meets it.
#![cfg(unix)]

mod support;

use rexpect::{
    process::WaitStatus,
    reader::Options,
    session::{PtySession, spawn_with_options},
};
use std::{path::Path, process::Command};
use support::{finish, sketchkv, smollm2};

/// A command in a terminal of so many columns; what it shows is read without its colours, unless they are `seen`.
struct Terminal {
    columns: u16,
    seen: bool,
    no_color: bool,
}

const TERMINAL: Terminal = Terminal { columns: 80, seen: false, no_color: false };

impl Terminal {
    fn open(&self, folder: &Path, words: &[&str]) -> PtySession {
        let mut command = Command::new("sh");
        let script = "stty rows 40 cols \"$0\" && exec \"$@\"";
        command
            .args(["-c", script, &self.columns.to_string()])
            .arg(assert_cmd::cargo::cargo_bin!("sketchkv"));
        command
            .args(words)
            .current_dir(folder)
            .env("SKETCHKV_CONFIG", "")
            .env("TERM", "xterm")
            .env("SKETCHKV_MODELS", "models")
            .env_remove("NO_COLOR");
        if self.no_color {
            command.env("NO_COLOR", "1");
        }
        let options = Options::new().timeout_ms(Some(60_000)).strip_ansi_escape_codes(!self.seen);
        spawn_with_options(command, options).unwrap()
    }

    /// All that it shows.
    fn shown(&self, words: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        text(&self.open(folder.path(), words).exp_eof().unwrap())
    }
}

/// What was read as a character a byte.
fn text(read: &str) -> String {
    let bytes: Vec<u8> = read.chars().filter(|&c| c != '\r').map(|c| c as u8).collect();
    String::from_utf8(bytes).unwrap()
}

/// A text as it is read, a character a byte.
fn bytes(text: &str) -> String {
    text.bytes().map(char::from).collect()
}

/// The lines that are wider than the terminal, though they could be broken: not a name and what it names.
fn too_wide(text: &str, columns: usize) -> Vec<&str> {
    let breaks = |line: &str| line.trim().trim_start_matches("- ").split_whitespace().count() > 2;
    text.lines().filter(|line| line.chars().count() > columns && breaks(line)).collect()
}

#[test]
fn the_help_of_every_command_fits_and_has_colour_where_it_can_be_seen() {
    let table = finish(sketchkv().args(["reference", "--json"])).json();
    let commands = table.as_array().unwrap().iter().map(|command| {
        command["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect::<Vec<_>>()
    });
    for command in commands.chain([vec![]]) {
        let words = [&command[..], &["--help"]].concat();
        let text = TERMINAL.shown(&words);
        assert!(text.contains("Usage: sketchkv"), "{words:?}: {text}");
        assert_eq!(too_wide(&text, 80), [""; 0], "{words:?}");
    }
    let words = ["run", "--help"];
    assert!(Terminal { seen: true, ..TERMINAL }.shown(&words).contains('\x1b'));
    assert!(!Terminal { seen: true, no_color: true, ..TERMINAL }.shown(&words).contains('\x1b'));
    assert!(!finish(sketchkv().args(words)).stdout.contains('\x1b'));
}

#[test]
fn an_error_has_colour_where_it_can_be_seen() {
    let words = ["explain", "h20"];
    let red = "\x1b[1m\x1b[31merror:";
    let shown = Terminal { seen: true, ..TERMINAL }.shown(&words);
    assert!(shown.contains(red), "{shown:?}");
    assert!(!Terminal { seen: true, no_color: true, ..TERMINAL }.shown(&words).contains('\x1b'));
    assert!(finish(sketchkv().args(words)).stderr.starts_with("error: "));
}

#[test]
fn tables_and_topics_are_as_wide_as_the_terminal() {
    let narrow: [&[&str]; 2] = [&["models"], &["explain", "64MiB"]];
    let usual: [&[&str]; 5] = [&["methods"], &["config"], &["info"], &["help", "specs"], &["help", "json"]];
    for (least, commands) in [(40, &narrow[..]), (80, &usual)] {
        for (words, columns) in commands.iter().flat_map(|words| [(words, least), (words, 120)]) {
            let text = Terminal { columns, ..TERMINAL }.shown(words);
            assert_eq!(too_wide(&text, columns.into()), [""; 0], "{words:?} in {columns} columns");
        }
    }
    // Rows one below the other, where columns would be too narrow to read; a table to who reads it from a pipe.
    assert!(Terminal { columns: 40, ..TERMINAL }.shown(&["explain", "64MiB"]).contains("\nevicted "));
    assert!(finish(sketchkv().args(["explain", "64MiB"])).stdout.contains("| evicted |"));
}

#[test]
fn what_takes_time_says_how_much_is_left() {
    let folder = tempfile::tempdir().unwrap();
    for words in [
        &["compare", "--quick", "-c", "256", "--samples", "1", "--kv", "full", "--kv", "full+q8"][..],
        &["advise", "--budget", "25%", "-c", "256", "--samples", "1"],
    ] {
        let mut terminal = TERMINAL.open(folder.path(), words);
        terminal.exp_regex("[0-9]+% +[0-9]+s left").unwrap();
        let rest = terminal.exp_eof().unwrap();
        assert!(rest.contains("mean KL"), "{rest}");
        assert!(matches!(terminal.process().wait().unwrap(), WaitStatus::Exited(_, 0)));
    }
}

/// Where the next line is asked for.
const PROMPT: &str = "\r> \r";

/// Types a line, and waits until `answer` is shown and the next is asked for.
fn say(chat: &mut PtySession, line: &str, answer: &str) {
    chat.send_line(line).unwrap();
    let shown = chat.exp_string(answer).and_then(|_| chat.exp_string(PROMPT));
    shown.unwrap_or_else(|error| panic!("{line:?} is to be answered by {answer:?}: {error}"));
}

fn ends_well(chat: &mut PtySession) {
    chat.send_control('d').unwrap();
    chat.exp_eof().unwrap();
    assert!(matches!(chat.process().wait().unwrap(), WaitStatus::Exited(_, 0)));
}

#[test]
fn a_conversation_at_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let form = "{% for m in messages %}{{ m.content }}\n{% endfor %}";
    std::fs::write(folder.path().join("form.jinja"), form).unwrap();
    let words = ["chat", "--template", "form.jinja", "-n", "8", "--temperature", "0", "--kv", "auto@8MiB"];
    let mut chat = TERMINAL.open(folder.path(), &words);
    chat.exp_string("/help lists the commands").unwrap();
    chat.exp_string(PROMPT).unwrap();
    say(&mut chat, "The sea was calm", "decode");
    say(&mut chat, "/retry", "decode");
    say(&mut chat, "/edit The storm was near", "decode");
    say(&mut chat, "/kv", "tokens seen");
    say(&mut chat, "/kv 4MiB", "auto@4MiB: ");
    say(&mut chat, "/stats", "3 answers of");
    say(&mut chat, "/save calm.kv", "written to calm.kv");
    say(&mut chat, "/fork storm.kv", "written to storm.kv");
    say(&mut chat, "/undo", "taken back: The storm was near");
    say(&mut chat, "/load calm.kv", "calm.kv: 2 messages");
    say(&mut chat, "/system Tell of ships.", "\n");
    chat.send_line("A line \\").unwrap();
    chat.exp_string(&bytes("\r… \r")).unwrap();
    say(&mut chat, "that goes on", "decode");
    // What was said is there again, and can be taken back or left alone.
    chat.send("\x1b[A").unwrap();
    say(&mut chat, "", "decode");
    chat.send("half a line").unwrap();
    chat.send_control('c').unwrap();
    chat.exp_string("(Ctrl-D or /quit ends)").unwrap();
    chat.exp_string(PROMPT).unwrap();
    say(&mut chat, "/undo", "taken back: that goes on");
    say(&mut chat, "/undo", "taken back: A line");
    say(&mut chat, "/undo", "nothing was said yet");
    ends_well(&mut chat);
}

#[test]
fn ctrl_c_stops_an_answer_and_not_the_program() {
    let Some(model) = smollm2::path() else { return };
    let folder = tempfile::tempdir().unwrap();
    let words = ["chat", "-m", model.to_str().unwrap(), "-n", "4000", "--temperature", "0"];
    let mut chat = TERMINAL.open(folder.path(), &words);
    chat.exp_string("/help lists the commands").unwrap();
    chat.exp_string(PROMPT).unwrap();
    chat.send_line("Write a long story of the sea.").unwrap();
    // Some words of the answer, as they come.
    chat.exp_regex("sea\\.\r?\n(.*\r?\n)?.* .* .* ").unwrap();
    chat.send_control('c').unwrap();
    chat.exp_string("stopped, /more goes on").unwrap();
    chat.exp_string(PROMPT).unwrap();
    say(&mut chat, "/stats", "1 answers of");
    ends_well(&mut chat);
}
