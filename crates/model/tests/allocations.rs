//! A decode step allocates nothing, neither in the model nor in the cache, and holds what its workspace says.

mod common;

use common::*;
use sketchkv_cache::Cache;
use sketchkv_model::{LoadOptions, Logits, Model, Sequence, WeightFormat, Workspace};

/// Allocations of each of `steps` single-token steps of all caches after `depth` tokens.
fn steps(
    model: &Model,
    caches: &mut [Cache],
    workspace: &mut Workspace,
    depth: usize,
    steps: usize,
) -> Vec<u64> {
    let tokens: Vec<u32> = (0..depth + steps).map(|i| (i * 7919 % 500) as u32).collect();
    let mut run = |tokens: &[u32], workspace: &mut Workspace| {
        let mut batch: Vec<Sequence<'_>> =
            caches.iter_mut().map(|cache| Sequence { tokens, cache }).collect();
        let mut outputs = None;
        let calls = allocation_counter::measure(|| {
            outputs = Some(model.forward(&mut batch, workspace, Logits::Last));
        });
        assert!(outputs.unwrap().all().unwrap().iter().all(|x| x.is_finite()));
        calls.count_total
    };
    run(&tokens[..depth], workspace);
    tokens[depth..].chunks(1).map(|token| run(token, workspace)).collect()
}

// One thread: with more, which of them first runs beside another, and
// so needs room of its own, is the machine's choice.
#[test]
fn a_decode_step_allocates_nothing() {
    for (path, weights) in [
        (tiny_gpt2(), WeightFormat::Native),
        (golden("llama3"), WeightFormat::F32),
        (golden("qwen2.gguf"), WeightFormat::Native),
    ] {
        let options = LoadOptions { weights, threads: 1, ..LoadOptions::default() };
        let model = load_with(&path, &options);
        for (spec, depth, sequences) in [
            ("full", 65, 1),
            ("full", 65, 3),
            ("full+topk(k=16)", 65, 2),
            ("h2o@64tok", 97, 1),
            ("h2o+q8@64tok", 97, 2),
            ("h2o+buckets@64tok", 97, 1),
        ] {
            let mut caches: Vec<Cache> = (0..sequences).map(|_| cache(&model, spec)).collect();
            let counts = steps(&model, &mut caches, &mut Workspace::new(), depth, 15);
            // The first steps find room for single tokens; `full` meets no new strip before token 80.
            assert_eq!(
                counts[3..14],
                [0; 11],
                "{} `{spec}`, {sequences} of them: {counts:?}",
                path.display()
            );
        }
    }
}

#[test]
fn a_workspace_holds_what_it_says() {
    let model = load_with(&tiny_gpt2(), &LoadOptions { threads: 1, ..LoadOptions::default() });
    for (spec, sequences) in [
        ("full", 1),
        ("h2o@64tok", 3),
        ("full+topk(k=16)", 1),
        ("full+quest(k=16)", 2),
        ("h2o+buckets@64tok", 1),
        ("foreseen+progressive+adaptive@64tok", 2),
    ] {
        let mut caches: Vec<Cache> = (0..sequences).map(|_| cache(&model, spec)).collect();
        let mut workspace = Workspace::new();
        steps(&model, &mut caches, &mut workspace, 200, 2);
        let said = workspace.bytes();
        let freed = -allocation_counter::measure(|| drop(workspace)).bytes_current;
        let off = (said as f64 / freed as f64 - 1.0).abs();
        assert!(off < 0.01, "`{spec}`, {sequences} of them: the workspace says {said} bytes and had {freed}");
    }
}
