use crate::{
    EvalError, Footprint,
    footprint::{LedgerBytes, ledger_bytes},
    metrics::{Reference, TokenScore},
    progress::Counter,
};
use serde::{Deserialize, Serialize};
use sketchkv_cache::{Cache, Spec};
use sketchkv_model::{Logits, Model, Sequence, Workspace};
use std::time::{Duration, Instant};

/// The uncompressed cache that every other is measured against.
pub const REFERENCE_SPEC: &str = "full+f32";

/// How documents are run and which of their tokens are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Tokens of each document taken in at once before the first scored one.
    pub prefill: usize,
    /// Tokens of each later step: 1 is true streaming decode; more is faster, and a little kinder to methods that evict,
    /// since a chunk attends to all of itself.
    pub stream: usize,
    /// The last steps of each document, always of one token, whose time is taken.
    pub timed: usize,
}

/// A model with its documents and what the uncompressed cache says of them.
pub(crate) struct Scorer<'m> {
    model: &'m Model,
    workspace: Workspace,
    documents: Vec<Vec<u32>>,
    schedule: Schedule,
    reference: Reference,
}

/// One spec's run over all documents.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// `[document][scored token]`.
    pub(crate) scores: Vec<Vec<TokenScore>>,
    /// What the cache took at the end of the longest document.
    pub(crate) footprint: Footprint,
    /// The same, itemised.
    pub(crate) ledger: LedgerBytes,
    /// Time of all prefills.
    pub(crate) prefill: Duration,
    /// Tokens of all prefills.
    pub(crate) prefill_tokens: usize,
    /// Position from which on a token had been evicted, the latest of all documents; `None` when none ever was.
    pub(crate) binds_at: Option<usize>,
    /// Times of the single-token steps at the end of each document.
    pub(crate) steps: Vec<Duration>,
}

impl<'m> Scorer<'m> {
    /// Runs `documents` over the uncompressed cache and keeps its distributions.
    ///
    /// # Errors
    /// When a document has no token to score, the model fails, or the disk is full.
    pub(crate) fn new(
        model: &'m Model,
        documents: Vec<Vec<u32>>,
        schedule: Schedule,
        counter: &mut Counter<'_>,
    ) -> Result<Self, EvalError> {
        check(&documents, schedule)?;
        let reference = Reference::new(model.config().vocabulary)?;
        let mut scorer = Scorer { model, workspace: Workspace::new(), documents, schedule, reference };
        counter.begin("uncompressed cache");
        let end = counter.done() + Scorer::work(&scorer.documents);
        for document in 0..scorer.documents.len() {
            scorer.run_reference(document, counter).map_err(|error| match error {
                error if error.stops_all() => error,
                error => EvalError::Reference(Box::new(error)),
            })?;
        }
        counter.reach(end);
        Ok(scorer)
    }

    /// What the uncompressed cache itself scores, `[document][scored token]`.
    pub(crate) fn reference_scores(&mut self) -> Result<Vec<Vec<TokenScore>>, EvalError> {
        let mut scores = self.reference.own_scores()?.into_iter();
        let counts = self.documents.iter().map(|tokens| tokens.len() - self.schedule.prefill);
        Ok(counts.map(|count| scores.by_ref().take(count).collect()).collect())
    }

    /// Units of progress of one run over `documents`.
    pub(crate) fn work(documents: &[Vec<u32>]) -> u64 {
        documents.iter().map(|tokens| tokens.len() as u64).sum()
    }

    fn run_reference(&mut self, document: usize, counter: &mut Counter<'_>) -> Result<(), EvalError> {
        let spec: Spec = REFERENCE_SPEC.parse()?;
        let mut cache = Cache::new(self.model.cache_shape(), &spec, 0)?;
        let tokens = &self.documents[document];
        let first = self.schedule.prefill - 1;
        if first > 0 {
            let mut batch = [Sequence { tokens: &tokens[..first], cache: &mut cache }];
            self.model.forward(&mut batch, &mut self.workspace, Logits::None).all()?;
            counter.add(first)?;
        }
        // The full cache does not care about chunks; this one keeps the logits within 16 MiB.
        let vocabulary = self.model.config().vocabulary;
        let chunk = ((4 << 20) / vocabulary).clamp(1, 512);
        let mut at = first;
        while at + 1 < tokens.len() {
            let end = (at + chunk).min(tokens.len() - 1);
            let mut batch = [Sequence { tokens: &tokens[at..end], cache: &mut cache }];
            let logits = self.model.forward(&mut batch, &mut self.workspace, Logits::All).all()?;
            for (row, &target) in logits.chunks_exact(vocabulary).zip(&tokens[at + 1..]) {
                self.reference.push(row, target)?;
            }
            counter.add(end - at)?;
            at = end;
        }
        Ok(())
    }

    /// Runs all documents over caches of `spec` and scores them against the reference.
    ///
    /// # Errors
    /// When the spec does not fit the model, the model fails, or a logit is not finite.
    pub(crate) fn run(
        &mut self,
        spec: &Spec,
        seed: u64,
        counter: &mut Counter<'_>,
    ) -> Result<Run, EvalError> {
        counter.begin(spec.to_string());
        let end = counter.done() + Scorer::work(&self.documents);
        let run = self.run_documents(spec, seed, counter);
        // Also when it stopped before.
        counter.reach(end);
        run
    }

    fn run_documents(&mut self, spec: &Spec, seed: u64, counter: &mut Counter<'_>) -> Result<Run, EvalError> {
        let empty = Cache::new(self.model.cache_shape(), spec, seed)?;
        let mut run = Run {
            scores: Vec::new(),
            footprint: Footprint::of(&empty),
            ledger: ledger_bytes(&empty.ledger()),
            prefill: Duration::ZERO,
            prefill_tokens: 0,
            binds_at: None,
            steps: Vec::new(),
        };
        let mut row = 0;
        for document in 0..self.documents.len() {
            let mut cache = Cache::new(self.model.cache_shape(), spec, seed)?;
            let scores = self.run_document(document, &mut cache, row, &mut run, counter)?;
            row += scores.len();
            run.scores.push(scores);
            if cache.position() > run.footprint.kv_tokens {
                (run.footprint, run.ledger) = (Footprint::of(&cache), ledger_bytes(&cache.ledger()));
            }
        }
        Ok(run)
    }

    fn run_document(
        &mut self,
        document: usize,
        cache: &mut Cache,
        first_row: usize,
        run: &mut Run,
        counter: &mut Counter<'_>,
    ) -> Result<Vec<TokenScore>, EvalError> {
        let Schedule { prefill, stream, timed } = self.schedule;
        let tokens = &self.documents[document];
        let vocabulary = self.model.config().vocabulary;
        let mut scores = Vec::with_capacity(tokens.len() - prefill);
        // The last token of the prefill predicts the first scored one; the last token of all predicts none.
        let timed_from = (tokens.len() - 1).saturating_sub(timed).max(prefill);
        let mut bound = false;
        let mut at = 0;
        while at < tokens.len() - 1 {
            let (size, want) = match at {
                0 => (prefill, Logits::Last),
                _ if at < timed_from => (stream.min(timed_from - at), Logits::All),
                _ => (1, Logits::All),
            };
            let end = at + size;
            let started = Instant::now();
            let mut batch = [Sequence { tokens: &tokens[at..end], cache: &mut *cache }];
            let logits = self.model.forward(&mut batch, &mut self.workspace, want).all()?;
            let took = started.elapsed();
            if !bound && cache.has_evicted() {
                bound = true;
                run.binds_at = run.binds_at.max(Some(end));
            }
            if at == 0 {
                run.prefill += took;
                run.prefill_tokens += size;
            } else if at >= timed_from {
                run.steps.push(took);
            }
            let rows = logits.chunks_exact(vocabulary);
            let targets = &tokens[end + 1 - rows.len()..=end];
            for (logits, &target) in rows.zip(targets) {
                scores.push(self.reference.score(first_row + scores.len(), logits, target)?);
            }
            counter.add(size)?;
            at = end;
        }
        Ok(scores)
    }
}

impl Run {
    /// Forgets the scores of the first `tokens` scored tokens of every document.
    pub(crate) fn skip(&mut self, tokens: usize) {
        skip(&mut self.scores, tokens);
    }
}

/// Forgets the first `tokens` scores of every document.
pub(crate) fn skip(scores: &mut [Vec<TokenScore>], tokens: usize) {
    scores.iter_mut().for_each(|document| drop(document.drain(..tokens.min(document.len()))));
}

fn check(documents: &[Vec<u32>], schedule: Schedule) -> Result<(), EvalError> {
    let Schedule { prefill, stream, .. } = schedule;
    if prefill == 0 || stream == 0 {
        return Err(EvalError::Input(
            "the prefill and a step of the stream must have at least one token".into(),
        ));
    }
    match documents.iter().map(Vec::len).min() {
        None => Err(EvalError::Input("there is no document to score".into())),
        Some(shortest) if shortest <= prefill => Err(EvalError::Input(format!(
            "a document of {shortest} tokens has none to score after a prefill of {prefill}: \
             give a longer text or a shorter prefill"
        ))),
        Some(_) => Ok(()),
    }
}
