//! `profile`, `train-scorer`, and models that find what they wrote.

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
    let path = folder.path().join("model.profile");
    assert_eq!(trained["path"], path.to_str().unwrap());
    let learned = &trained["learned"];
    assert_eq!((learned["documents"].as_u64(), learned["context"].as_u64()), (Some(2), Some(1024)));
    assert!(trained["losses"].is_null());
    assert_eq!(fs::metadata(&path).unwrap().len(), trained["bytes"].as_u64().unwrap());
    let run = ["run", "--model", model, "-n", "4", "--kv", "foreseen@25%", "The sea"];
    assert_eq!(finish(sketchkv().args(run)).code, 0);
    // A damaged one is never passed over.
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let failed = finish(sketchkv().args(run));
    assert_eq!(failed.code, 1);
    for part in [path.to_str().unwrap(), "sketchkv profile", "a part of one"] {
        assert!(failed.stderr.contains(part), "{part} is missing: {}", failed.stderr);
    }
    // Nor is another model's: this one has the same shape.
    let mut other = bytes;
    // The scorer begins with its own magic, then the model's fingerprint.
    other[24] ^= 1;
    fs::write(&path, other).unwrap();
    assert!(finish(sketchkv().args(run)).stderr.contains("another model's"));
}

#[test]
fn the_model_in_the_program_has_no_place_beside_it() {
    let failed = finish(sketchkv().args(["train-scorer"]));
    assert_eq!(failed.code, 1);
    assert!(failed.stderr.contains("-o FILE"), "{}", failed.stderr);
}

#[test]
fn a_profile_says_what_a_cap_will_cost() {
    let folder = tempfile::tempdir().unwrap();
    copy_of_tiny(folder.path());
    let model = folder.path().to_str().unwrap();
    let profile = ["profile", "--model", model, "--measured", "512", "--json"];
    let measured = finish(sketchkv().args(profile).args(["--documents", "2"])).json();
    // Each head by itself, and whether that adds up.
    let heads = &measured["heads"];
    let layers = heads["sensitivities"].as_array().unwrap();
    assert!(layers.len() == 4 && layers.iter().all(|layer| layer.as_array().unwrap().len() == 4), "{heads}");
    for head in layers.iter().flat_map(|layer| layer.as_array().unwrap()) {
        assert!(["eviction", "coding"].iter().all(|loss| head[loss].as_f64().unwrap() > 0.0), "{head}");
    }
    for what in ["eviction", "coding"] {
        let [alone, together] = ["alone", "together"].map(|sum| heads["added"][what][sum].as_f64().unwrap());
        assert!(alone > 0.3 * together && alone < 3.0 * together, "{what}: {heads}");
    }
    let losses = measured["losses"].clone();
    let points = losses["points"].as_array().unwrap();
    let number = |point: &serde_json::Value, name: &str| point[name].as_f64().unwrap();
    assert!(points.len() >= 2, "{losses}");
    for pair in points.windows(2) {
        assert!(number(&pair[0], "share") > number(&pair[1], "share"));
        assert!(number(&pair[0], "kl") < number(&pair[1], "kl"), "fewer bytes cost more: {losses}");
        assert!(number(&pair[1], "worst") >= number(&pair[1], "kl"));
    }
    // Caps alone are measured again with what is known of the heads.
    let again = finish(sketchkv().args(profile).arg("--losses-only")).json();
    assert_eq!(again["heads"]["sensitivities"], heads["sensitivities"]);
    assert!(again["heads"]["added"].is_null() && again["learned"].is_null());
    assert_eq!(again["losses"], losses);
    // What a measured cap costs is what is expected of it.
    let point = &points[1];
    let full = 2 * 4 * 256 * 2 * 512;
    let cap = format!("{}B", (number(point, "share") * f64::from(full)).round());
    let explain = ["explain", &cap, "--model", model, "-c", "512", "--json"];
    let row = finish(sketchkv().args(explain)).json()["rows"][0].clone();
    assert!((number(&row, "expected_kl") / number(point, "kl") - 1.0).abs() < 1e-3, "{row} {point}");
    assert_eq!(row["expected_kl_bound"], "about");
    let run = ["run", "--model", model, "-n", "4", "-c", "512", "--kv", &cap, "The sea"];
    assert!(finish(sketchkv().args(run)).stderr.contains("expected KL"));
    // No other cache has one, and it says so.
    let other = finish(sketchkv().args(["explain", "h2o@25%", "--model", model]));
    assert!(other.stderr.contains("`compare` measures any cache"), "{}", other.stderr);
}
