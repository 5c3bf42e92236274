//! BLEU equals sacrebleu's, on the golden file that `scripts/golden/eval_bleu.py` made with sacrebleu itself.

use serde_json::Value;
use sketchkv_eval::metrics::{Bleu, corpus_bleu, sentence_bleu, tokenize_13a};

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/bleu.json")).unwrap()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect()
}

fn assert_same(ours: &Bleu, theirs: &Value) {
    assert!((ours.score - theirs["score"].as_f64().unwrap()).abs() < 1e-9, "{ours:?} for {theirs}");
    assert!((ours.brevity_penalty - theirs["bp"].as_f64().unwrap()).abs() < 1e-12, "{ours:?} for {theirs}");
    assert_eq!(ours.hypothesis_tokens as u64, theirs["sys_len"].as_u64().unwrap());
    assert_eq!(ours.reference_tokens as u64, theirs["ref_len"].as_u64().unwrap());
    for (ours, theirs) in ours.precisions.iter().zip(theirs["precisions"].as_array().unwrap()) {
        assert!((ours - theirs.as_f64().unwrap()).abs() < 1e-9);
    }
}

#[test]
fn tokens() {
    for pair in golden()["tokens"].as_array().unwrap() {
        assert_eq!(tokenize_13a(pair[0].as_str().unwrap()), strings(&pair[1]), "{}", pair[0]);
    }
}

#[test]
fn sentences() {
    for case in golden()["sentences"].as_array().unwrap() {
        let ours = sentence_bleu(case["hypothesis"].as_str().unwrap(), &strings(&case["references"]));
        assert_same(&ours, case);
    }
}

#[test]
fn corpora() {
    for case in golden()["corpora"].as_array().unwrap() {
        let references: Vec<Vec<&str>> = case["references"].as_array().unwrap().iter().map(strings).collect();
        assert_same(&corpus_bleu(&strings(&case["hypotheses"]), &references), case);
    }
}
