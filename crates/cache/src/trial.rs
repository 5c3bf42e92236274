//! Taking from one head alone, to measure what that costs.

use crate::Cache;
use crate::admit::{Admission, AdmitScratch};
use crate::format::Env;
use crate::plan::{Choosing, Limit};
use crate::workspace::DraftLayer;
use sketchkv_kernels::cpu;

impl Cache {
    /// Evicts of one KV head all but `tokens` tokens, whatever the cap; returns the importance of those that went.
    pub fn evict_from(&mut self, layer: usize, kv_head: usize, tokens: usize) -> f64 {
        let common = self.common.clone();
        let mut draft = DraftLayer::default();
        draft.traces.resize_with(1, Default::default);
        let limit = Limit { slots: tokens, bytes: usize::MAX };
        let admission = common.admission(&self.shape, (layer, self.position), limit, &draft, 0);
        let (admission, mut scratch) =
            (Admission { choosing: Choosing::Alone, ..admission }, AdmitScratch::default());
        admission.run(&mut self.layers[layer][kv_head..=kv_head], &mut scratch, false);
        let importance = &scratch.judgements[0].importance;
        scratch.departures[0].slots.iter().map(|&slot| f64::from(importance[slot as usize])).sum()
    }

    /// Lets all pages of one KV head go down to the coarsest codes of its store, whatever the cap.
    pub fn coarsen(&mut self, layer: usize, kv_head: usize) {
        let env = Env { format: &self.common.formats[layer], level: cpu::level() };
        self.layers[layer][kv_head].slots.coarsen_all(env);
    }
}
