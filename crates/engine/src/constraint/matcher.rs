use super::{Constraint, reason::reason};
use crate::EngineError;
use llguidance::toktrie::SimpleVob;

/// How far a text is within a constraint.
pub(crate) struct Matcher {
    kind: &'static str,
    inner: Box<llguidance::Matcher>,
    allowed: SimpleVob,
}

impl Matcher {
    /// At the beginning of a text.
    pub(crate) fn begin(constraint: &Constraint) -> Self {
        Matcher {
            kind: constraint.kind,
            // With caches of its own: nobody waits for another one's lock, nor is hurt by what goes wrong there.
            inner: Box::new(constraint.fresh.deep_clone()),
            allowed: SimpleVob::new(),
        }
    }

    /// The tokens that may come next, as a sampler takes them: where the text is complete, those that end it among them, or
    /// alone. `None` where it can only end and the model has no token that says so.
    ///
    /// # Errors
    /// When no token may come, or the grammar is too complex to find out.
    pub(crate) fn allowed(&mut self) -> Result<Option<&[u32]>, EngineError> {
        let allowed = self.inner.compute_mask_or_eos();
        self.allowed = allowed.map_err(|error| self.stuck(&error.to_string()))?;
        Ok((!self.allowed.is_zero()).then_some(self.allowed.as_slice()))
    }

    /// Goes on by a token that was allowed.
    ///
    /// # Errors
    /// When the grammar is too complex to do so.
    pub(crate) fn consume(&mut self, token: u32) -> Result<(), EngineError> {
        if self.is_complete() {
            return Ok(());
        }
        self.inner.consume_token(token).map_err(|error| self.stuck(&error.to_string()))
    }

    /// Whether nothing can follow any more.
    pub(crate) fn is_complete(&self) -> bool {
        self.inner.is_stopped()
    }

    fn stuck(&self, message: &str) -> EngineError {
        EngineError::Constraint { kind: self.kind, reason: reason(message) }
    }
}
