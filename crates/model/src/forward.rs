//! The forward pass: a batch of sequences, cut into chunks, through the layers.

use crate::weights::Linear;
use crate::{Config, Model, ModelError};
use sketchkv_cache::{Cache, Part, Profile, Stopwatch};
use sketchkv_kernels::ops::{self, Rope, RopeLayout};
use sketchkv_kernels::{Input, Matrix, Output, ThreadPool};
use std::ops::Range;

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

/// The buffers of a forward pass, grown once and used again.
#[derive(Default)]
pub struct Workspace {
    logits: Vec<f32>,
    pieces: Vec<Piece>,
    buffers: Buffers,
    /// Where the time went, if asked for.
    profile: Option<Profile>,
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self::default()
    }

    /// The logits of the last forward pass.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Begins to take the time of the parts of forward passes, from zero. Those of attention are taken by the cache, see
    /// [`Cache::start_profile`].
    pub fn start_profile(&mut self) {
        self.profile = Some(Profile::default());
    }

    /// Ends it: where the time went since [`Workspace::start_profile`]; nothing without that.
    pub fn stop_profile(&mut self) -> Profile {
        self.profile.take().unwrap_or_default()
    }

    /// Bytes held: the scratch of a chunk, and the logits.
    pub fn bytes(&self) -> usize {
        let Buffers { x, qkv, q, k, v, attended, inner, angles, ends, products } = &self.buffers;
        let floats = [x, qkv, q, k, v, attended, inner, angles, ends, &self.logits];
        floats.iter().map(|buffer| buffer.capacity() * 4).sum::<usize>() + products.bytes()
    }
}

/// Activations of one chunk; `[token]` counts the tokens of all its sequences.
#[derive(Default)]
struct Buffers {
    /// The residual stream, `[token][hidden]`.
    x: Vec<f32>,
    /// `[token][q, k, v]`, as one product gives them.
    qkv: Vec<f32>,
    /// `[token][head][head_dim]`
    q: Vec<f32>,
    /// `[token][kv_head][head_dim]`
    k: Vec<f32>,
    v: Vec<f32>,
    /// The output of attention, `[token][head][head_dim]`.
    attended: Vec<f32>,
    /// The inside of the feed-forward, `[token][gate, up]` or `[token][up]`.
    inner: Vec<f32>,
    /// `[token][cos, sin][head_dim / 2]`
    angles: Vec<f32>,
    /// The residual stream of last tokens, `[sequence][hidden]`.
    ends: Vec<f32>,
    products: sketchkv_kernels::Workspace,
}

/// Some consecutive tokens of one sequence within a chunk.
#[derive(Debug, Clone)]
struct Piece {
    sequence: usize,
    /// Which of the sequence's tokens.
    tokens: Range<usize>,
    /// Position of the first of them.
    position: usize,
}

impl Piece {
    fn len(&self) -> usize {
        self.tokens.len()
    }
}

impl Model {
    /// Runs the tokens of every sequence of the batch over its cache and advances the caches.
    ///
    /// Returns `[sequence][vocabulary]` for [`Logits::Last`], `[token][vocabulary]` with the tokens of all sequences
    /// in order for [`Logits::All`], nothing for [`Logits::None`]. Dense products run over all tokens of a chunk at
    /// once, attention over each sequence alone; neither the number of threads nor of sequences changes a result.
    ///
    /// # Errors
    /// When a sequence is empty, a token is none of the vocabulary, a cache is of another model, a position would lie
    /// beyond the context, or there is no memory for the logits. The caches are then as they were.
    pub fn forward<'w>(
        &self,
        batch: &mut [Sequence<'_>],
        workspace: &'w mut Workspace,
        want: Logits,
    ) -> Result<&'w [f32], ModelError> {
        self.check(batch)?;
        let vocabulary = self.config.vocabulary;
        let rows = match want {
            Logits::None => 0,
            Logits::Last => batch.len(),
            Logits::All => batch.iter().map(|sequence| sequence.tokens.len()).sum(),
        };
        let Workspace { logits, pieces, buffers, profile } = workspace;
        let mut watch = Stopwatch::start(profile.is_some());
        reserve_logits(logits, rows, vocabulary)?;
        let mut cursor = Cursor::default();
        let mut done = 0;
        while cursor.fill(batch, self.chunk(), pieces) {
            let mut pass =
                Pass { config: &self.config, pool: &self.pool, batch, pieces, buffers, watch: &mut watch };
            self.network.run(&mut pass);
            let tokens = pass.tokens();
            watch.lap(Part::Rest);
            match want {
                Logits::None => {}
                Logits::All => {
                    let (matrix, norm) = self.network.head();
                    let out = &mut logits[done * vocabulary..(done + tokens) * vocabulary];
                    let input = norm.of(&buffers.x);
                    matrix.apply(&self.pool, input, tokens, None, Output::Store(out), &mut buffers.products);
                }
                Logits::Last => self.last_logits(batch, pieces, buffers, logits),
            }
            watch.lap(Part::Products);
            done += tokens;
            for piece in pieces.iter() {
                batch[piece.sequence].cache.advance(piece.len());
            }
        }
        if let Some(profile) = profile {
            *profile += watch.stop();
        }
        Ok(logits)
    }

    /// The logits of the sequences that end in this chunk; they are consecutive, because chunks are filled in order.
    fn last_logits(
        &self,
        batch: &[Sequence<'_>],
        pieces: &[Piece],
        buffers: &mut Buffers,
        logits: &mut [f32],
    ) {
        let Config { hidden, vocabulary, .. } = self.config;
        buffers.ends.clear();
        let mut first = None;
        let mut row = 0;
        for piece in pieces {
            row += piece.len();
            if piece.tokens.end == batch[piece.sequence].tokens.len() {
                first.get_or_insert(piece.sequence);
                buffers.ends.extend_from_slice(&buffers.x[(row - 1) * hidden..row * hidden]);
            }
        }
        let Some(first) = first else { return };
        let count = buffers.ends.len() / hidden;
        let out = &mut logits[first * vocabulary..(first + count) * vocabulary];
        let (matrix, norm) = self.network.head();
        let input = norm.of(&buffers.ends);
        matrix.apply(&self.pool, input, count, None, Output::Store(out), &mut buffers.products);
    }

    fn check(&self, batch: &[Sequence<'_>]) -> Result<(), ModelError> {
        let shape = self.cache_shape_ref();
        for Sequence { tokens, cache } in batch {
            if tokens.is_empty() {
                return Err(ModelError::Argument("a sequence of the batch has no tokens to run".into()));
            }
            if let Some(token) = tokens.iter().find(|token| **token as usize >= self.config.vocabulary) {
                return Err(ModelError::Argument(format!(
                    "token {token} is none of the model's {}: tokenize with this model's tokenizer",
                    self.config.vocabulary
                )));
            }
            if cache.shape() != shape {
                return Err(ModelError::Argument("the cache was made for a model of another shape".into()));
            }
            self.check_position(cache.position() + tokens.len())?;
        }
        Ok(())
    }

    /// Whether a sequence may be so many tokens long.
    pub(crate) fn check_position(&self, length: usize) -> Result<(), ModelError> {
        let context = self.config.context;
        if length <= context || self.beyond_context {
            return Ok(());
        }
        Err(ModelError::Context { length, context })
    }
}

/// Gives `logits` room for `rows` × `vocabulary` without aborting when there is none.
fn reserve_logits(logits: &mut Vec<f32>, rows: usize, vocabulary: usize) -> Result<(), ModelError> {
    let refused = || {
        ModelError::Argument(format!(
            "no memory for the logits of {rows} tokens at {vocabulary} each: run fewer tokens at a time"
        ))
    };
    let length = rows.checked_mul(vocabulary).ok_or_else(refused)?;
    logits.try_reserve_exact(length.saturating_sub(logits.len())).map_err(|_| refused())?;
    logits.resize(length, 0.0);
    Ok(())
}

/// How far a batch has been cut into chunks.
#[derive(Default)]
struct Cursor {
    sequence: usize,
    token: usize,
}

impl Cursor {
    /// Fills `pieces` with the next tokens of the batch, at most `chunk`; false when there are none left.
    fn fill(&mut self, batch: &[Sequence<'_>], chunk: usize, pieces: &mut Vec<Piece>) -> bool {
        pieces.clear();
        let mut room = chunk;
        while room > 0 && self.sequence < batch.len() {
            let Sequence { tokens, cache } = &batch[self.sequence];
            let end = tokens.len().min(self.token + room);
            // The cache has advanced over the tokens of earlier chunks.
            let piece =
                Piece { sequence: self.sequence, tokens: self.token..end, position: cache.position() };
            room -= piece.len();
            pieces.push(piece);
            (self.sequence, self.token) =
                if end == tokens.len() { (self.sequence + 1, 0) } else { (self.sequence, end) };
        }
        !pieces.is_empty()
    }
}

/// One chunk on its way through the layers: what a network's file composes its layers of.
pub(crate) struct Pass<'a, 'b> {
    config: &'a Config,
    pool: &'a ThreadPool,
    batch: &'a mut [Sequence<'b>],
    pieces: &'a [Piece],
    buffers: &'a mut Buffers,
    watch: &'a mut Stopwatch,
}

impl Pass<'_, '_> {
    fn tokens(&self) -> usize {
        self.pieces.iter().map(Piece::len).sum()
    }

    /// x = the embeddings of the tokens.
    pub(crate) fn embed(&mut self, embedding: &Matrix) {
        let hidden = self.config.hidden;
        self.buffers.x.resize(self.tokens() * hidden, 0.0);
        let tokens = self.pieces.iter().flat_map(|p| &self.batch[p.sequence].tokens[p.tokens.clone()]);
        for (token, x) in tokens.zip(self.buffers.x.chunks_exact_mut(hidden)) {
            embedding.row(*token as usize, x);
        }
    }

    /// x += the learned embeddings of the positions.
    pub(crate) fn add_positions(&mut self, positions: &Matrix) {
        let hidden = self.config.hidden;
        let row = &mut self.buffers.inner;
        row.resize(hidden, 0.0);
        for (position, x) in each_position(self.pieces).zip(self.buffers.x.chunks_exact_mut(hidden)) {
            positions.row(position, row);
            ops::add(row, x);
        }
    }

    /// Computes the rotation of every token, once for all layers.
    pub(crate) fn set_angles(&mut self, rope: &Rope) {
        rope.fill(each_position(self.pieces), &mut self.buffers.angles);
    }

    /// q, k, v = the rows of the product of `linear` with what `input` makes of x, q and k rotated.
    pub(crate) fn project_qkv<'s>(&'s mut self, linear: &Linear, input: impl Fn(&'s [f32]) -> Input<'s>) {
        let Config { heads, kv_heads, head_dim, .. } = *self.config;
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let tokens = self.tokens();
        let Buffers { x, qkv, q, k, v, angles, products, .. } = &mut *self.buffers;
        self.watch.lap(Part::Rest);
        apply(self.pool, linear, input(x), tokens, qkv, products);
        self.watch.lap(Part::Products);
        q.resize(tokens * q_width, 0.0);
        k.resize(tokens * kv_width, 0.0);
        v.resize(tokens * kv_width, 0.0);
        let rotated = self.config.rope.is_some();
        for (t, row) in qkv.chunks_exact(q_width + 2 * kv_width).enumerate() {
            let (q, k) = (&mut q[t * q_width..][..q_width], &mut k[t * kv_width..][..kv_width]);
            let (row_q, row_kv) = row.split_at(q_width);
            let (row_k, row_v) = row_kv.split_at(kv_width);
            q.copy_from_slice(row_q);
            k.copy_from_slice(row_k);
            v[t * kv_width..][..kv_width].copy_from_slice(row_v);
            if rotated {
                let angles = &angles[t * head_dim..][..head_dim];
                ops::rotate(q, angles, RopeLayout::Halves);
                ops::rotate(k, angles, RopeLayout::Halves);
            }
        }
    }

    /// Attention of every sequence over its own cache.
    pub(crate) fn attend(&mut self, layer: usize) {
        let Config { heads, kv_heads, head_dim, .. } = *self.config;
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let tokens = self.tokens();
        let Buffers { q, k, v, attended, .. } = &mut *self.buffers;
        attended.resize(tokens * q_width, 0.0);
        self.watch.lap(Part::Rest);
        let mut row = 0;
        for piece in self.pieces {
            let rows = row..row + piece.len();
            let (wide, narrow) =
                (rows.start * q_width..rows.end * q_width, rows.start * kv_width..rows.end * kv_width);
            let mut cache = self.batch[piece.sequence].cache.layer(layer, self.pool);
            cache.attend(&q[wide.clone()], &k[narrow.clone()], &v[narrow], &mut attended[wide]);
            row = rows.end;
        }
        self.watch.skip();
    }

    /// x += the output projection of attention.
    pub(crate) fn add_attention(&mut self, linear: &Linear) {
        let tokens = self.tokens();
        let Buffers { x, attended, products, .. } = &mut *self.buffers;
        let input = Input::Plain(attended);
        linear.matrix.apply(self.pool, input, tokens, linear.bias.as_deref(), Output::AddTo(x), products);
        self.watch.lap(Part::Products);
    }

    /// The first half of the feed-forward: inner = the product of `linear` with what `input` makes of x.
    pub(crate) fn widen<'s>(&'s mut self, linear: &Linear, input: impl Fn(&'s [f32]) -> Input<'s>) {
        let tokens = self.tokens();
        let Buffers { x, inner, products, .. } = &mut *self.buffers;
        apply(self.pool, linear, input(x), tokens, inner, products);
        self.watch.lap(Part::Products);
    }

    /// The second half: x += the product of `linear` with what `input` makes of the inside.
    pub(crate) fn narrow<'s>(&'s mut self, linear: &Linear, input: impl Fn(&'s [f32]) -> Input<'s>) {
        let tokens = self.tokens();
        let Buffers { x, inner, products, .. } = &mut *self.buffers;
        linear.matrix.apply(
            self.pool,
            input(inner),
            tokens,
            linear.bias.as_deref(),
            Output::AddTo(x),
            products,
        );
        self.watch.lap(Part::Products);
    }
}

/// The positions of the tokens of a chunk, in order.
fn each_position(pieces: &[Piece]) -> impl Iterator<Item = usize> + '_ {
    pieces.iter().flat_map(|piece| piece.position..piece.position + piece.len())
}

/// out = the product with its bias.
fn apply(
    pool: &ThreadPool,
    linear: &Linear,
    input: Input<'_>,
    tokens: usize,
    out: &mut Vec<f32>,
    products: &mut sketchkv_kernels::Workspace,
) {
    out.resize(tokens * linear.matrix.rows(), 0.0);
    linear.matrix.apply(pool, input, tokens, linear.bias.as_deref(), Output::Store(out), products);
}
