//! Buffers of forward passes.

use crate::admit::AdmitScratch;
use crate::attend::Scratch;
use crate::contest::ContestScratch;
use crate::head::Trace;
use crate::plan::Limit;
use std::mem::size_of;

/// What attention needs beside a cache: grown once, used again, and shared by all sequences of a batch. Nothing in it
/// lives beyond a pass, so it is no part of any ledger.
#[derive(Default)]
pub struct AttentionWorkspace {
    pub(crate) scratch: Scratch,
    /// Of each layer of the pass that ends.
    pub(crate) admissions: Vec<AdmitScratch>,
    pub(crate) contest: ContestScratch,
    pub(crate) limits: Vec<Limit>,
    spare: Vec<Draft>,
}

/// What a pass has seen and not yet committed, of every layer.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) layers: Vec<DraftLayer>,
}

/// Of one layer.
#[derive(Default)]
pub(crate) struct DraftLayer {
    /// `[token][kv_head][key_dim]`
    pub(crate) keys: Vec<f32>,
    /// `[token][kv_head][value_dim]`
    pub(crate) values: Vec<f32>,
    /// Of each KV head.
    pub(crate) traces: Vec<Trace>,
}

impl AttentionWorkspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes held: the scratch of attention, and the drafts of the passes that are not running. A pass of n tokens drafts
    /// 4·n bytes for every key and value number of a token over all layers.
    pub fn bytes(&self) -> usize {
        self.scratch.bytes()
            + self.admissions.iter().map(AdmitScratch::bytes).sum::<usize>()
            + self.admissions.capacity() * size_of::<AdmitScratch>()
            + self.contest.bytes()
            + self.limits.capacity() * size_of::<Limit>()
            + self.spare.iter().map(Draft::bytes).sum::<usize>()
            + self.spare.capacity() * size_of::<Draft>()
    }

    /// A draft for as many layers, its buffers used before if there are any.
    pub(crate) fn draft(&mut self, layers: usize) -> Draft {
        let mut draft = self.spare.pop().unwrap_or_default();
        draft.layers.resize_with(layers, DraftLayer::default);
        draft
    }

    /// Takes a draft back.
    pub(crate) fn give_back(&mut self, draft: Draft) {
        self.spare.push(draft);
    }
}

impl Draft {
    fn bytes(&self) -> usize {
        let layer = |layer: &DraftLayer| {
            (layer.keys.capacity() + layer.values.capacity()) * size_of::<f32>()
                + layer.traces.iter().map(Trace::bytes).sum::<usize>()
                + layer.traces.capacity() * size_of::<Trace>()
        };
        self.layers.iter().map(layer).sum::<usize>() + self.layers.capacity() * size_of::<DraftLayer>()
    }
}
