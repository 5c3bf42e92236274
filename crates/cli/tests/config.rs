//! What is set once for all commands.

mod support;

use std::{fs, path::Path};
use support::{Finished, finish, sketchkv};

fn config(file: &Path, arguments: &[&str]) -> Finished {
    finish(sketchkv().env("SKETCHKV_CONFIG", file).arg("config").args(arguments))
}

#[test]
fn what_is_set_goes_over_the_program_and_under_the_environment_and_flags() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deep/config.toml");
    let config = |arguments: &[&str]| config(&file, arguments);
    let before = config(&["--json"]).json();
    assert_eq!(before["settings"]["model"]["value"], "tiny-gpt2");
    assert_eq!(before["settings"]["kv"]["from"], "the program");
    assert_eq!(config(&["set", "kv", "Window@96tok"]).code, 0);
    assert_eq!(config(&["set", "threads", "1"]).code, 0);
    assert_eq!(config(&["--json"]).json()["settings"]["kv"]["from"], "the file");
    let run = |more: &[&str], kv: Option<&str>| {
        let mut command = sketchkv();
        command.env("SKETCHKV_CONFIG", &file).args(["run", "The sea", "-n", "2", "--json"]).args(more);
        kv.map(|kv| command.env("SKETCHKV_KV", kv));
        finish(&mut command).json()["spec"].as_str().unwrap().to_owned()
    };
    assert_eq!(run(&[], None), "window@96tok");
    assert_eq!(run(&[], Some("full+q8")), "full+q8");
    assert_eq!(run(&["--kv", "full"], Some("full+q8")), "full");
    assert_eq!(config(&["unset", "kv"]).code, 0);
    assert_eq!(run(&[], None), "full+progressive");
    let table = config(&[]);
    assert!(table.stdout.contains("threads") && table.stderr.contains("config.toml"), "{}", table.stdout);
}

#[test]
fn what_cannot_be_set_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let config = |arguments: &[&str]| config(&file, arguments);
    for (arguments, word) in [
        (&["set", "colour", "red"][..], "[possible values: model, kv, threads, models]"),
        (&["set", "threads", "0"], "from 1 to 1024"),
        (&["set", "kv", "h20@25%"], "`h2o`"),
        (&["set", "model", ""], "`sketchkv config unset model`"),
        (&["unset", "colour"], "[possible values: "),
    ] {
        let refused = config(arguments);
        assert!(refused.code == 2 && refused.stderr.contains(word), "{arguments:?}: {}", refused.stderr);
    }
    assert!(!file.exists(), "nothing is left behind");
    fs::write(&file, "modle = 'x'\n").unwrap();
    let refused = finish(sketchkv().env("SKETCHKV_CONFIG", &file).args(["run", "x"]));
    assert!(refused.code == 2 && refused.error().contains("modle"), "{}", refused.stderr);
    let refused = finish(sketchkv().env("SKETCHKV_THREADS", "many").args(["run", "x"]));
    assert!(refused.code == 2 && refused.error().contains("SKETCHKV_THREADS"), "{}", refused.stderr);
}
