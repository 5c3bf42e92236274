//! A cap that changes while a cache is in use.

use crate::cache::Guessing;
use crate::spec::Cap;
use crate::workspace::DraftLayer;
use crate::{AttentionWorkspace, Cache, CacheError, Spec};
use sketchkv_kernels::ThreadPool;

impl Cache {
    /// Gives the cache another cap from now on. Down, what is too much goes at once: pages lose bits where their store can,
    /// then the least important tokens are evicted; keeps that look only at the newest token's attention (`tova`) let the
    /// oldest go. Up, more is kept from now on: what has gone does not come back.
    ///
    /// # Errors
    /// When the spec contradicts such a cap, or it is below the minimum ([`Cache::floor_bytes`]); the cache is as it was.
    pub fn set_cap(
        &mut self,
        cap: Cap,
        pool: &ThreadPool,
        workspace: &mut AttentionWorkspace,
    ) -> Result<(), CacheError> {
        if self.torn {
            return Err(CacheError::Torn { spec: self.spec.to_string(), position: self.position });
        }
        let spec = Spec { cap, ..self.spec.clone() };
        spec.check()?;
        self.common.allotment.check(&spec)?;
        self.spec = spec;
        self.guessing = Guessing::default();
        // There may be room for finer pages.
        self.layers.iter_mut().flatten().for_each(|head| head.slots.restart_rungs());
        let mut draft = workspace.draft(self.layers.len());
        for (draft, heads) in draft.layers.iter_mut().zip(&self.layers) {
            *draft = DraftLayer::default();
            draft.traces.resize_with(heads.len(), Default::default);
        }
        self.take_in(&draft.layers, 0, pool, workspace);
        workspace.give_back(draft);
        Ok(())
    }
}
