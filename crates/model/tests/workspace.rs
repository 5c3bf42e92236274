//! The buffers of the forward pass.

mod common;

use common::*;
use sketchkv_model::{LoadOptions, Logits, Sequence, Workspace};

/// The hot path: once its buffers have grown, a workspace does not grow again.
#[test]
fn a_workspace_is_reused() {
    // With several threads it is chance which of them needs buffers first.
    let model = load_with(&golden("llama3.gguf"), &LoadOptions { threads: 1, ..LoadOptions::default() });
    let (mut cache, mut workspace) = (exact_cache(&model), Workspace::new());
    let mut run = |tokens: &[u32], workspace: &mut Workspace| {
        model.forward(&mut [Sequence { tokens, cache: &mut cache }], workspace, Logits::Last).all().unwrap();
        workspace.bytes()
    };
    run(&[1; 32], &mut workspace);
    // The first step has buffers of its own, and with it comes a strip of 16 slots.
    let warm = [0, 1].map(|token| run(&[token], &mut workspace))[1];
    for token in 2..15 {
        assert_eq!(run(&[token], &mut workspace), warm, "token {token}");
    }
}

/// A long pass does not hold the inner activations of all its tokens: beyond 128 of them they are used again.
#[test]
fn inner_activations_do_not_grow_with_the_pass() {
    let model = load_with(&tiny_gpt2(), &LoadOptions { threads: 1, ..LoadOptions::default() });
    let bytes = [64, 128, 256].map(|rows| {
        let (mut cache, mut workspace) = (exact_cache(&model), Workspace::new());
        let tokens = &vec![1; rows];
        model
            .forward(&mut [Sequence { tokens, cache: &mut cache }], &mut workspace, Logits::Last)
            .all()
            .unwrap();
        workspace.bytes()
    });
    let (first, then) = (bytes[1] - bytes[0], bytes[2] - bytes[1]);
    let inner = 128 * model.config().feed_forward * size_of::<f32>();
    assert!(then + inner / 2 < 2 * first, "{bytes:?} bytes, inner activations of 128 tokens {inner}");
}
