//! A document that is read once, whole, and then kept in as many bytes as a cap allows: to be asked about often.

use crate::EngineError;
use sketchkv_cache::{AttentionWorkspace, Cache, Cap, Spec};
use sketchkv_model::{Logits, Model, Sequence, Workspace};

/// Tokens of a document that the model repeats at a time.
const REPEATED: usize = 256;
/// Tokens before them that the request to repeat ends with, so that the model knows where it is.
const LEAD: usize = 8;
/// The request.
const REQUEST: &str = "\n\nRepeat the text above exactly.\n\n";

/// Reads `tokens` into a new cache of `spec`, whole and in the finest bits that its stores have, and then lowers the cache to
/// the spec's cap: who goes is decided with all of the document known. With the keep `kvzip` the model first repeats the document
/// to itself, part by part, and what it looks at then is what stays.
///
/// While it is read the document takes what it takes without a cap. `progress` hears of tokens done and in all, and stops it by
/// returning false: there is no cache then.
///
/// # Errors
/// When the spec does not fit the model, the cap is below what its methods need, the document is longer than the model's context,
/// or the model fails.
pub fn read_document(
    model: &Model,
    spec: &Spec,
    seed: u64,
    tokens: &[u32],
    workspace: &mut Workspace,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Option<Cache>, EngineError> {
    // A cap that cannot be held is told before there is anything to wait for.
    let capped = Cache::new(model.cache_shape(), spec, seed)?;
    let request = if spec.cap != Cap::None && capped.asks_for_repetition() {
        model.tokenizer().encode(REQUEST)?
    } else {
        vec![]
    };
    let (room, limit) = (request.len() + LEAD + REPEATED, model.config().context);
    if tokens.len() + room > limit {
        return Err(EngineError::LongDocument { tokens: tokens.len(), room, limit });
    }
    let mut cache = Cache::new(model.cache_shape(), &Spec { cap: Cap::None, ..spec.clone() }, seed)?;
    let parts = if request.is_empty() { vec![] } else { requests(&request, tokens) };
    let total = tokens.len() + parts.iter().map(Vec::len).sum::<usize>();
    let mut done = 0;
    let mut run = |cache: &mut Cache, tokens: &[u32]| -> Result<bool, EngineError> {
        for tokens in tokens.chunks(model.chunk()) {
            if !progress(done, total) {
                return Ok(false);
            }
            let mut batch = [Sequence { tokens, cache: &mut *cache }];
            model.forward(&mut batch, workspace, Logits::None).all()?;
            done += tokens.len();
        }
        Ok(true)
    };
    if !run(&mut cache, tokens)? {
        return Ok(None);
    }
    cache.forget_attention();
    for part in &parts {
        // Over a fork: what a sliding window leaves behind could not be had back.
        let mut repeat = cache.fork();
        if !run(&mut repeat, part)? {
            return Ok(None);
        }
        cache.learn_from(&repeat);
    }
    if spec.cap != Cap::None {
        cache.set_cap(spec.cap, model.pool(), &mut AttentionWorkspace::default())?;
    }
    progress(total, total);
    Ok(Some(cache))
}

/// What the model is told to say: each part of the document after the request and the tokens before the part.
fn requests(request: &[u32], tokens: &[u32]) -> Vec<Vec<u32>> {
    let starts = (0..tokens.len()).step_by(REPEATED);
    starts
        .map(|start| {
            let end = tokens.len().min(start + REPEATED);
            [request, &tokens[start.saturating_sub(LEAD)..end]].concat()
        })
        .collect()
}
