//! `train-scorer`, and models that find what it wrote.

mod support;

use std::{fs, path::Path};
use support::{finish, sketchkv};

/// A copy of the model in the program, in a folder of its own.
fn copy_of_tiny(folder: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-gpt2");
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_scorer_is_learned_lies_beside_its_model_and_is_used() {
    let folder = tempfile::tempdir().unwrap();
    copy_of_tiny(folder.path());
    let model = folder.path().to_str().unwrap();
    let trained =
        finish(sketchkv().args(["train-scorer", "--model", model, "--documents", "2", "--json"])).json();
    let path = folder.path().join("model.scorer");
    assert_eq!(trained["path"], path.to_str().unwrap());
    assert_eq!((trained["documents"].as_u64(), trained["context"].as_u64()), (Some(2), Some(1024)));
    assert_eq!(fs::metadata(&path).unwrap().len(), trained["bytes"].as_u64().unwrap());
    let run = ["run", "--model", model, "-n", "4", "--kv", "foreseen@25%", "The sea"];
    assert_eq!(finish(sketchkv().args(run)).code, 0);
    // A damaged one is never passed over.
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let failed = finish(sketchkv().args(run));
    assert_eq!(failed.code, 1);
    for part in [path.to_str().unwrap(), "train-scorer", "a part of one"] {
        assert!(failed.stderr.contains(part), "{part} is missing: {}", failed.stderr);
    }
    // Nor is another model's: this one has the same shape.
    let mut other = bytes;
    other[8] ^= 1;
    fs::write(&path, other).unwrap();
    assert!(finish(sketchkv().args(run)).stderr.contains("another model's"));
}

#[test]
fn the_model_in_the_program_has_no_place_beside_it() {
    let failed = finish(sketchkv().args(["train-scorer"]));
    assert_eq!(failed.code, 1);
    assert!(failed.stderr.contains("-o FILE"), "{}", failed.stderr);
}
