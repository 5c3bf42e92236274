//! What the tests of the command share.
#![allow(dead_code)]

pub(crate) mod hub;
pub(crate) mod smollm2;

use assert_cmd::Command;
use serde_json::Value;

/// The command, with an environment that holds nothing of the machine's but the path.
pub(crate) fn sketchkv() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("sketchkv"));
    for name in [
        "SKETCHKV_MODELS",
        "SKETCHKV_MODEL",
        "SKETCHKV_KV",
        "SKETCHKV_THREADS",
        "XDG_DATA_HOME",
        "HF_ENDPOINT",
        "HF_TOKEN",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "ALL_PROXY",
    ] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.env("SKETCHKV_CONFIG", "");
    command
}

/// What the command left: its exit code, standard output and standard error.
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Standard output as the one JSON document it must be.
    pub(crate) fn json(&self) -> Value {
        let parsed = serde_json::from_str(&self.stdout);
        parsed.unwrap_or_else(|error| panic!("not one JSON document ({error}): {}", self.stdout))
    }

    /// The one line on standard error that begins with `error: `.
    pub(crate) fn error(&self) -> &str {
        let mut errors = self.stderr.lines().filter(|line| line.starts_with("error: "));
        let first = errors.next().unwrap_or_else(|| panic!("no error in {:?}", self.stderr));
        assert_eq!(errors.next(), None, "more than one error: {}", self.stderr);
        assert!(self.stderr.trim_end().ends_with(first), "the error is not one line: {:?}", self.stderr);
        first
    }
}

/// Runs the command to its end.
pub(crate) fn finish(command: &mut Command) -> Finished {
    let output = command.output().expect("the command starts");
    Finished {
        code: output.status.code().expect("the command ends by itself"),
        stdout: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("standard error is UTF-8"),
    }
}
