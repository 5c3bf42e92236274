//! Choosing the next token of a generation, of all or of those that a grammar allows.

use super::Generation;
use crate::EngineError;

impl Generation {
    /// The next token; `None` where a grammar is at its end and the model has no token to say so.
    pub(super) fn choose(&mut self, logits: &[f32]) -> Result<Option<u32>, EngineError> {
        let Some(matcher) = &mut self.matcher else { return Ok(Some(self.sampler.sample(logits)?)) };
        let Some(allowed) = matcher.allowed()? else { return Ok(None) };
        let token = self.sampler.sample_among(logits, allowed)?;
        matcher.consume(token)?;
        Ok(Some(token))
    }

    /// Whether a token that ends a text ends this one: within a grammar, where that is complete.
    pub(super) fn may_end(&self) -> bool {
        self.matcher.as_ref().map_or(!self.ignore_end, |matcher| matcher.is_complete())
    }
}
