use super::schedule::Schedule;
use crate::ModelError;

/// What a forward pass gave: logits or an error for each sequence of the batch.
#[derive(Clone, Copy)]
#[must_use = "a sequence may have failed"]
pub struct Outputs<'w> {
    pub(super) logits: &'w [f32],
    pub(super) vocabulary: usize,
    pub(super) schedule: &'w Schedule,
    pub(super) failures: &'w [Option<ModelError>],
}

impl<'w> Outputs<'w> {
    /// The logits of one sequence: `[vocabulary]` for [`Logits::Last`](crate::Logits::Last), `[token][vocabulary]` for
    /// [`Logits::All`](crate::Logits::All), nothing for [`Logits::None`](crate::Logits::None).
    ///
    /// # Errors
    /// Why the sequence failed, if it did.
    ///
    /// # Panics
    /// When the batch had no such sequence.
    pub fn of(&self, sequence: usize) -> Result<&'w [f32], ModelError> {
        match &self.failures[sequence] {
            Some(error) => Err(error.clone()),
            None => {
                let rows = self.schedule.rows_of(sequence);
                Ok(&self.logits[rows.start * self.vocabulary..rows.end * self.vocabulary])
            }
        }
    }

    /// The logits of all sequences, one after the other.
    ///
    /// # Errors
    /// When a sequence failed: why the first of them did.
    pub fn all(&self) -> Result<&'w [f32], ModelError> {
        match self.failures.iter().flatten().next() {
            Some(error) => Err(error.clone()),
            None => Ok(self.logits),
        }
    }
}
