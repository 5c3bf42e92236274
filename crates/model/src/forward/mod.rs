//! The forward pass: a batch of sequences, cut into passes through the layers.
//!
//! The way of the data: [`Schedule`](schedule::Schedule) cuts a batch into passes of spans, a network composes a pass of [`Operations`] on
//! [`Tensor`]s, and [`Attention`](attention::Attention) hands each span's queries, keys and values to its cache.

mod angles;
mod attention;
mod expression;
mod operations;
mod outputs;
mod routes;
mod schedule;
mod tensor;
mod workspace;

use crate::{Model, ModelError};
use attention::{Attention, Fault};
use schedule::Span;
use sketchkv_cache::{Cache, Stopwatch};
use workspace::PassMemory;

pub(crate) use angles::Rotations;
pub(crate) use expression::{Product, Value, gelu, gelu_gate, silu_gate};
pub(crate) use operations::Operations;
pub use outputs::Outputs;
pub(crate) use tensor::Tensor;
pub use workspace::Workspace;

/// One sequence of a batch: the tokens to run now, over the cache that holds what came before.
pub struct Sequence<'a> {
    /// At least one token.
    pub tokens: &'a [u32],
    /// The sequence's cache.
    pub cache: &'a mut Cache,
}

/// Which logits a forward pass computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// None: only the caches advance.
    None,
    /// Those of each sequence's last token.
    Last,
    /// Those of every token.
    All,
}

impl Model {
    /// Runs the tokens of every sequence of the batch over its cache, which then holds them; gives logits, or an error,
    /// for each.
    ///
    /// Sequences are cut every [`Model::chunk`] tokens, counted from the first of the call. Dense products run over the
    /// tokens of several sequences at once, attention over each sequence alone. Neither the number of threads nor the
    /// other sequences of the batch change a bit of the result, and a sequence that fails does not disturb the others.
    ///
    /// A sequence fails when it is empty, a token is none of the vocabulary, its cache is of another model, a position
    /// would lie beyond the context, or there is no memory for the logits: nothing of it has run then. It fails on the
    /// way when its cache refuses what it is given, or when a layer or the logits are not finite: its cache then holds
    /// the tokens of the passes before, [`Cache::position`] says how many.
    pub fn forward<'w>(
        &self,
        batch: &mut [Sequence<'_>],
        workspace: &'w mut Workspace,
        want: Logits,
    ) -> Outputs<'w> {
        self.begin(batch, workspace, want);
        let mut watch = workspace.watch();
        let Workspace { logits, schedule, failures, pass, profile, .. } = &mut *workspace;
        while schedule.next(self.chunk(), &mut pass.spans) {
            self.run_pass(batch, pass, logits, &mut watch);
            for (sequence, fault) in pass.faults.drain(..) {
                schedule.give_up(sequence);
                failures[sequence] = Some(self.failure(fault, batch[sequence].cache));
            }
        }
        if let Some(profile) = profile {
            *profile += watch.stop();
        }
        workspace.outputs()
    }

    /// Plans the passes of a batch, without the sequences that cannot run.
    fn begin(&self, batch: &[Sequence<'_>], workspace: &mut Workspace, want: Logits) {
        let Workspace { logits, vocabulary, schedule, failures, .. } = workspace;
        schedule.begin(batch.iter().map(|s| (s.cache.position(), s.tokens.len())), want);
        *vocabulary = self.config.vocabulary;
        let has_room = reserve_logits(logits, schedule.rows(), self.config.vocabulary);
        failures.clear();
        for (index, sequence) in batch.iter().enumerate() {
            let checked = if has_room { self.check(sequence) } else { Err(no_memory(schedule.rows())) };
            if checked.is_err() {
                schedule.give_up(index);
            }
            failures.push(checked.err());
        }
    }

    /// Runs the spans of `pass` through the layers; what failed is in its `faults` then.
    fn run_pass(
        &self,
        batch: &mut [Sequence<'_>],
        pass: &mut PassMemory,
        logits: &mut [f32],
        watch: &mut Stopwatch,
    ) {
        let PassMemory { spans, faults, tokens, positions, angles, arena, products, routes, attention } =
            pass;
        tokens.clear();
        positions.clear();
        for span in &*spans {
            tokens.extend_from_slice(&batch[span.sequence].tokens[span.tokens.clone()]);
            positions.extend(span.position..span.position + span.len());
        }
        let ends = spans.iter().map(|span| (span.len(), span.end));
        angles.fill(&self.rotations, positions, ends);
        let mut ops = Operations {
            pool: &self.pool,
            layers: &self.config.layers,
            rotations: &self.rotations,
            tokens,
            positions,
            angles,
            arena,
            products,
            routes,
            attention: Attention::begin(batch, spans, attention),
            watch,
        };
        let x = self.network.forward(&mut ops);
        self.logits(&x, spans, &mut ops, logits);
        ops.finish(|sequence, fault| faults.push((sequence, fault)));
    }

    /// The logits that `spans` are to give, of their residual stream `x` behind the last layer.
    fn logits(&self, x: &Tensor<'_>, spans: &[Span], ops: &mut Operations<'_>, logits: &mut [f32]) {
        let vocabulary = self.config.vocabulary;
        let mut row = 0;
        // One product for spans whose rows lie one after the other, as they do when every sequence runs one token.
        for spans in spans.chunk_by(|span, next| span.logits.end == next.logits.start) {
            let first = row;
            row += spans.iter().map(Span::len).sum::<usize>();
            let wanted = spans[0].logits.start..spans[spans.len() - 1].logits.end;
            if wanted.is_empty() {
                continue;
            }
            let x = ops.select(x, spans, first);
            let out = &mut logits[wanted.start * vocabulary..wanted.end * vocabulary];
            ops.compute_into(self.network.logits(&x), out);
            ops.finish_logits(out, self.config.logit_scale, self.config.logit_softcap);
        }
        ops.check_logits(logits, vocabulary);
    }

    /// Whether a sequence can run.
    fn check(&self, Sequence { tokens, cache }: &Sequence<'_>) -> Result<(), ModelError> {
        if tokens.is_empty() {
            return Err(ModelError::Argument("a sequence of the batch has no tokens to run".into()));
        }
        if let Some(token) = tokens.iter().find(|token| **token as usize >= self.config.vocabulary) {
            return Err(ModelError::Argument(format!(
                "token {token} is none of the model's {}: tokenize with this model's tokenizer",
                self.config.vocabulary
            )));
        }
        if cache.shape() != self.cache_shape_ref() {
            return Err(ModelError::Argument("the cache was made for a model of another shape".into()));
        }
        self.check_position(cache.position() + tokens.len())
    }

    /// Whether a sequence may be so many tokens long.
    ///
    /// # Errors
    /// When that is more than the model's context, and positions beyond it are not allowed.
    pub fn check_position(&self, length: usize) -> Result<(), ModelError> {
        let context = self.config.context;
        if length <= context || self.beyond_context {
            return Ok(());
        }
        Err(ModelError::Context { length, context })
    }

    /// A fault of a sequence over `cache`, as an error.
    fn failure(&self, fault: Fault, cache: &Cache) -> ModelError {
        let model = self.config.name.clone();
        match fault {
            Fault::NotFinite { layer, what, position } => {
                ModelError::NotFinite { model, cache: cache.spec().to_string(), layer, what, position }
            }
            Fault::Cache(source) => ModelError::Cache { model, source },
        }
    }
}

/// Gives `logits` room for `rows` × `vocabulary` without aborting when there is none; whether there is.
fn reserve_logits(logits: &mut Vec<f32>, rows: usize, vocabulary: usize) -> bool {
    let Some(length) = rows.checked_mul(vocabulary) else { return false };
    if logits.try_reserve_exact(length.saturating_sub(logits.len())).is_err() {
        return false;
    }
    logits.resize(length, 0.0);
    true
}

fn no_memory(rows: usize) -> ModelError {
    ModelError::Argument(format!("no memory for the logits of {rows} tokens: run fewer tokens at a time"))
}
