//! The buffers of the forward pass.

mod common;

use common::*;
use sketchkv_model::{Logits, Sequence, WeightFormat, Workspace};

/// The hot path: once its buffers have grown, a workspace does not grow again.
#[test]
fn a_workspace_is_reused() {
    let model = load(&golden("llama3.gguf"), WeightFormat::Native);
    let (mut cache, mut workspace) = (exact_cache(&model), Workspace::new());
    let mut run = |tokens: &[u32], workspace: &mut Workspace| {
        model.forward(&mut [Sequence { tokens, cache: &mut cache }], workspace, Logits::Last).all().unwrap();
        workspace.bytes()
    };
    let after_prompt = run(&[1; 32], &mut workspace);
    for token in 0..16 {
        assert_eq!(run(&[token], &mut workspace), after_prompt);
    }
}
