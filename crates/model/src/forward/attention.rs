//! The caches of a pass: each span attends over its own, until it fails.

use super::Sequence;
use super::schedule::Span;
use sketchkv_cache::{AttentionWorkspace, CacheError, Pass};
use sketchkv_kernels::ThreadPool;
use std::mem;
use std::ops::Range;

/// Why a sequence cannot go on.
#[derive(Debug)]
pub(super) enum Fault {
    /// Something held NaN or infinity.
    NotFinite {
        /// Where it began; `None` behind the last layer.
        layer: Option<usize>,
        /// What held it.
        what: &'static str,
        /// Position of the first token that it was seen at.
        position: usize,
    },
    /// The cache cannot take the tokens.
    Cache(CacheError),
}

impl From<CacheError> for Fault {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::NotFinite { layer, position, what, .. } => {
                Fault::NotFinite { layer: Some(layer), what, position }
            }
            other => Fault::Cache(other),
        }
    }
}

/// The pass of one span's cache, or why it came to an end.
type Lane<'b> = Result<Pass<'b>, Fault>;

/// The memory of [`Attention`], kept from pass to pass.
#[derive(Default)]
pub(super) struct AttentionMemory {
    lanes: Vec<Lane<'static>>,
    workspace: AttentionWorkspace,
}

impl AttentionMemory {
    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.lanes.capacity() * size_of::<Lane<'_>>() + self.workspace.bytes()
    }
}

/// The caches of a pass. What goes wrong with one sequence ends its part in the pass and leaves its cache as it was
/// before; the others go on.
pub(super) struct Attention<'a> {
    spans: &'a [Span],
    lanes: Vec<Lane<'a>>,
    memory: &'a mut AttentionMemory,
}

impl<'a> Attention<'a> {
    /// Begins a pass of each span's cache.
    pub(super) fn begin(
        batch: &'a mut [Sequence<'_>],
        spans: &'a [Span],
        memory: &'a mut AttentionMemory,
    ) -> Attention<'a> {
        let mut lanes = emptied(mem::take(&mut memory.lanes));
        // Spans are in the order of the batch.
        let mut spans_left = spans.iter().peekable();
        for (index, sequence) in batch.iter_mut().enumerate() {
            if let Some(span) = spans_left.next_if(|span| span.sequence == index) {
                lanes.push(sequence.cache.begin(span.len(), &mut memory.workspace).map_err(Fault::from));
            }
        }
        Attention { spans, lanes, memory }
    }

    /// Attention of layer `layer`. `q` and `out` are `[token][head][width]`, `k` and `v` `[token][KV head][width]`, the
    /// tokens those of all spans in order. A span that has failed gets zeros.
    pub(super) fn attend(
        &mut self,
        layer: usize,
        pool: &ThreadPool,
        [q, k, v]: [&[f32]; 3],
        out: &mut [f32],
    ) {
        let tokens: usize = self.spans.iter().map(Span::len).sum();
        let workspace = &mut self.memory.workspace;
        let mut first = 0;
        for (span, lane) in self.spans.iter().zip(&mut self.lanes) {
            let rows = first..first + span.len();
            first = rows.end;
            let part = |length: usize| {
                let width = length / tokens;
                rows.start * width..rows.end * width
            };
            let (q, k, v) = (&q[part(q.len())], &k[part(k.len())], &v[part(v.len())]);
            let place = part(out.len());
            let out = &mut out[place];
            let attended = match lane {
                Ok(pass) => pass.attend(layer, pool, workspace, q, k, v, out),
                Err(_) => {
                    out.fill(0.0);
                    continue;
                }
            };
            if let Err(error) = attended {
                out.fill(0.0);
                *lane = Err(error.into());
            }
        }
    }

    /// Ends the part of every span that holds NaN or infinity in its rows of `x`, `[token][width]`.
    pub(super) fn check_rows(&mut self, x: &[f32], width: usize, layer: usize) {
        let mut first = 0;
        for (span, lane) in self.spans.iter().zip(&mut self.lanes) {
            let rows = &x[first * width..][..span.len() * width];
            first += span.len();
            if lane.is_ok()
                && let Some(index) = first_not_finite(rows)
            {
                let position = span.position + index / width;
                *lane = Err(Fault::NotFinite { layer: Some(layer), what: "the residual stream", position });
            }
        }
    }

    /// Ends the part of every span whose logits, `[row][width]` of the whole batch, hold NaN or infinity.
    pub(super) fn check_logits(&mut self, logits: &[f32], width: usize) {
        for (span, lane) in self.spans.iter().zip(&mut self.lanes) {
            let Range { start, end } = span.logits;
            if lane.is_ok()
                && let Some(index) = first_not_finite(&logits[start * width..end * width])
            {
                let position = span.position + span.len() - span.logits.len() + index / width;
                *lane = Err(Fault::NotFinite { layer: None, what: "the logits", position });
            }
        }
    }

    /// Ends the pass: the caches of spans that did not fail hold their tokens now. Reports the others to `failed`.
    pub(super) fn finish(self, pool: &ThreadPool, mut failed: impl FnMut(usize, Fault)) {
        let Attention { spans, mut lanes, memory } = self;
        for (span, lane) in spans.iter().zip(lanes.drain(..)) {
            let finished = lane.and_then(|pass| Ok(pass.finish(pool, &mut memory.workspace)?));
            if let Err(fault) = finished {
                failed(span.sequence, fault);
            }
        }
        memory.lanes = emptied(lanes);
    }
}

/// The memory of `lanes`, empty, for lanes of another lifetime: collecting in place allocates nothing.
fn emptied<'b>(mut lanes: Vec<Lane<'_>>) -> Vec<Lane<'b>> {
    lanes.clear();
    lanes.into_iter().map(|_| unreachable!("it was cleared")).collect()
}

/// Index of the first value that is NaN or infinite.
fn first_not_finite(values: &[f32]) -> Option<usize> {
    /// Values compared side by side, without a way out between them.
    const STRETCH: usize = 512;
    let finite = |stretch: &[f32]| stretch.iter().fold(true, |all, x| all & x.is_finite());
    let stretch = values.chunks(STRETCH).position(|stretch| !finite(stretch))?;
    let within = values[stretch * STRETCH..].iter().position(|x| !x.is_finite());
    within.map(|index| stretch * STRETCH + index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_that_is_no_number() {
        let mut values = vec![f32::MAX; 1500];
        assert_eq!(first_not_finite(&values), None);
        values[1499] = f32::NEG_INFINITY;
        assert_eq!(first_not_finite(&values), Some(1499));
        values[700] = f32::NAN;
        assert_eq!(first_not_finite(&values), Some(700));
        assert_eq!(first_not_finite(&[]), None);
    }
}
