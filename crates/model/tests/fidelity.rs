//! The fast path, with quantized activations, against the exact one on text.

mod common;

use common::*;
use sketchkv_model::{Logits, Model, Sequence, WeightFormat, Workspace};
use std::path::Path;

/// Positions compared at a time, which bounds the memory for logits.
const STEP: usize = 256;

/// Mean KL of the native path from the f32 path over `count` tokens of prose, and the share of equal top tokens.
fn compare(path: &Path, count: usize) -> (f64, f64) {
    let [exact, fast]: [Model; 2] =
        [WeightFormat::F32, WeightFormat::Native].map(|weights| load(path, weights));
    let tokens = prose(&exact, count);
    let mut caches = [exact_cache(&exact), exact_cache(&fast)];
    let mut workspaces = [Workspace::new(), Workspace::new()];
    let (mut mean, mut same) = (0.0, 0);
    for tokens in tokens.chunks(STEP) {
        let [exact_cache, fast_cache] = &mut caches;
        let [exact_workspace, fast_workspace] = &mut workspaces;
        let exact_rows = exact
            .forward(&mut [Sequence { tokens, cache: exact_cache }], exact_workspace, Logits::All)
            .all()
            .unwrap();
        let fast_rows = fast
            .forward(&mut [Sequence { tokens, cache: fast_cache }], fast_workspace, Logits::All)
            .all()
            .unwrap();
        let vocabulary = exact.config().vocabulary;
        for (e, f) in exact_rows.chunks_exact(vocabulary).zip(fast_rows.chunks_exact(vocabulary)) {
            mean += divergence(e, f) / count as f64;
            same += usize::from(argmax(e) == argmax(f));
        }
    }
    (mean, same as f64 / count as f64)
}

#[test]
fn smollm2_keeps_its_distribution_with_quantized_activations() {
    let Some(path) = smollm2() else { return };
    let (mean, same) = compare(&path, 768);
    println!("mean KL {mean:.2e}, same top {:.2} %", same * 100.0);
    assert!(mean <= 2e-3, "mean KL {mean}");
    assert!(same >= 0.985, "same top {same}");
}
