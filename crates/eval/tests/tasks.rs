//! Tasks on the embedded model: made as asked, the same from the same seed, and solvable where the model can.

mod common;

use common::tiny_gpt2;
use sketchkv_eval::tasks::{Awareness, Corpus, TaskKind, TaskMaker};
use sketchkv_model::{WeightFormat, Workspace};
use std::path::Path;

fn haystack() -> Corpus {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/persuasion.txt");
    Corpus::read(&[data]).unwrap()
}

#[test]
fn every_task_fits_its_length_and_holds_its_answers() {
    let model = tiny_gpt2(WeightFormat::Native);
    let maker = TaskMaker::new(&model, &haystack()).unwrap();
    let count = |text: &str| model.tokenizer().encode_literal(text).unwrap().len();
    for kind in TaskKind::ALL {
        for length in [400, 900] {
            for awareness in [Awareness::Agnostic, Awareness::Aware] {
                let task = maker.make(kind, length, 0.5, awareness, 3).unwrap();
                let tokens = count(&task.text) + count(&task.question) + task.max_tokens;
                assert!(tokens <= length, "{kind:?} {length}: {tokens}");
                assert!(tokens * 10 >= length * 6, "{kind:?} {length}: only {tokens}");
                if kind != TaskKind::Arithmetic {
                    assert!(task.answers.iter().all(|a| task.text.contains(a)), "{task:?}");
                }
                assert_eq!(task, maker.make(kind, length, 0.5, awareness, 3).unwrap());
                assert_ne!(task, maker.make(kind, length, 0.5, awareness, 4).unwrap());
            }
        }
        assert!(maker.make(kind, 20, 0.5, Awareness::Agnostic, 3).is_err());
    }
}

#[test]
fn depth_is_where_the_needle_lies() {
    let model = tiny_gpt2(WeightFormat::Native);
    let maker = TaskMaker::new(&model, &haystack()).unwrap();
    for depth in [0.0, 0.5, 1.0] {
        let task = maker.make(TaskKind::NiahSingle, 900, depth, Awareness::Agnostic, 1).unwrap();
        let place = task.text.find("secret number").unwrap() as f64 / task.text.len() as f64;
        assert!((place - depth).abs() < 0.1, "{depth}: {place}");
    }
    let task = maker.make(TaskKind::NiahSingle, 900, 0.5, Awareness::Aware, 1).unwrap();
    assert!(task.text.starts_with("What is the secret number") && task.question.contains("What is"));
}

#[test]
fn the_embedded_model_copies_with_all_its_cache() {
    let model = tiny_gpt2(WeightFormat::Native);
    let maker = TaskMaker::new(&model, &haystack()).unwrap();
    let mut workspace = Workspace::new();
    let mut mean = |spec: &str| {
        let spec = spec.parse().unwrap();
        let scores = (0..12).map(|seed| {
            let task = maker.make(TaskKind::Copy, 500, 0.5, Awareness::Agnostic, seed).unwrap();
            task.run(&model, &spec, 0, &mut workspace).unwrap().score
        });
        scores.sum::<f64>() / 12.0
    };
    let full = mean("full");
    assert!(full > 0.3, "{full}");
}

/// `scripts/golden/eval_parquet.py` wrote the files, with pyarrow.
#[test]
fn parquet_is_read_by_its_column_text() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let corpus = Corpus::read(&[golden.join("text.parquet")]).unwrap();
    let texts: Vec<&str> = corpus.texts().map(|(_, text)| text).collect();
    assert_eq!(texts[..4], ["The first text.", "Zwei: naïve 𝄞 — ok.", "", "line\nbreaks\n"]);
    assert_eq!((texts.len(), texts[23]), (24, "Text 19."));
    let error = Corpus::read(&[golden.join("numbers.parquet")]).unwrap_err().to_string();
    assert!(error.contains("does not hold strings"), "{error}");
    let torn = std::env::temp_dir().join(format!("sketchkv-torn-{}.parquet", std::process::id()));
    std::fs::write(&torn, &std::fs::read(golden.join("text.parquet")).unwrap()[..900]).unwrap();
    let error = Corpus::read(&[&torn]).unwrap_err().to_string();
    std::fs::remove_file(&torn).unwrap();
    assert!(error.contains("sketchkv-torn"), "{error}");
}
