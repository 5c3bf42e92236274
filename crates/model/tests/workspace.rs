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
