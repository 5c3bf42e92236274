//! The operations that layers are composed of, on the CPU.

use super::angles::{Angles, Rotations};
use super::attention::{Attention, Fault};
use super::expression::{Product, Term};
use super::routes::{Route, Routes};
use super::schedule::Span;
use super::tensor::{Arena, Tensor};
use crate::weights::Norm;
use sketchkv_cache::{LayerShape, Part, Stopwatch};
use sketchkv_kernels::{Matrix, Output, ThreadPool, ops};
use std::mem;

/// Rows that a feed-forward is worked out for at a time: enough to share the weights, and its inner activations, several times as
/// wide as the others, take a quarter of what those of a whole pass would.
const ROWS: usize = 128;

/// What a network's layers are computed with, over the tokens of one pass.
pub(crate) struct Operations<'a> {
    pub(super) pool: &'a ThreadPool,
    pub(super) layers: &'a [LayerShape],
    pub(super) rotations: &'a Rotations,
    pub(super) tokens: &'a [u32],
    pub(super) positions: &'a [usize],
    pub(super) angles: &'a Angles,
    pub(super) arena: &'a Arena,
    pub(super) products: &'a mut sketchkv_kernels::ProductWorkspace,
    pub(super) routes: &'a mut Routes,
    pub(super) attention: Attention<'a>,
    pub(super) watch: &'a mut Stopwatch,
}

impl<'a> Operations<'a> {
    /// The rows of `table` that belong to the tokens, `[token][hidden]`.
    pub(crate) fn embed_tokens(&mut self, table: &Matrix) -> Tensor<'a> {
        self.rows_of(table, self.tokens.iter().map(|token| *token as usize))
    }

    /// The rows of `table` that belong to the positions of the tokens, `[token][hidden]`.
    pub(crate) fn embed_positions(&mut self, table: &Matrix) -> Tensor<'a> {
        self.rows_of(table, self.positions.iter().copied())
    }

    fn rows_of(&self, table: &Matrix, rows: impl ExactSizeIterator<Item = usize>) -> Tensor<'a> {
        let mut out = self.arena.tensor(rows.len(), table.cols());
        for (row, out) in rows.zip(out.values_mut().chunks_exact_mut(table.cols())) {
            table.row(row, out);
        }
        out
    }

    /// x = factor · x
    pub(crate) fn scale(&mut self, x: &mut Tensor<'_>, factor: f32) {
        if factor != 1.0 {
            x.values_mut().iter_mut().for_each(|x| *x *= factor);
        }
    }

    /// A product, worked out.
    pub(crate) fn compute(&mut self, product: Product<'_>) -> Tensor<'a> {
        let mut out = self.arena.tensor(product.value.rows(), product.matrix.rows());
        self.run(product, Output::Store(out.values_mut()));
        out
    }

    /// x += term
    pub(crate) fn add<'t>(&mut self, x: &mut Tensor<'_>, term: impl Into<Term<'t>>) {
        match term.into() {
            Term::Product(product) => self.run(product, Output::AddTo(x.values_mut())),
            Term::Tensor(tensor) => ops::add(tensor.values(), x.values_mut()),
        }
    }

    fn run(&mut self, product: Product<'_>, output: Output<'_>) {
        let Product { matrix, bias, value } = product;
        self.watch.lap(Part::Rest);
        matrix.apply(self.pool, value.input(), value.rows(), bias, output, self.products);
        self.watch.lap(Part::Products);
    }

    /// x += factor · product
    pub(crate) fn add_scaled(&mut self, x: &mut Tensor<'_>, factor: f32, product: Product<'_>) {
        if factor == 1.0 {
            return self.add(x, product);
        }
        let mut out = self.compute(product);
        self.scale(&mut out, factor);
        self.add(x, &out);
    }

    /// x += norm(product)
    pub(crate) fn add_normed(&mut self, x: &mut Tensor<'_>, norm: &Norm, product: Product<'_>) {
        let out = self.compute(product);
        let out = self.norm(&out, norm);
        self.add(x, &out);
    }

    /// Lets `f` change `x` some rows at a time, for what it makes in between not to take the memory of all of them.
    pub(crate) fn by_rows(&mut self, x: &mut Tensor<'_>, f: impl Fn(&mut Tensor<'_>, &mut Operations<'a>)) {
        if x.rows() <= ROWS {
            return f(x, self);
        }
        let width = x.width();
        for rows in x.values_mut().chunks_mut(ROWS * width) {
            let mut some = self.arena.tensor(rows.len() / width, width);
            some.values_mut().copy_from_slice(rows);
            f(&mut some, self);
            rows.copy_from_slice(some.values());
        }
    }

    /// The norm of every stretch of as many values as `norm` has weights: of each head of queries or keys, or of whole
    /// rows.
    pub(crate) fn norm(&mut self, x: &Tensor<'_>, norm: &Norm) -> Tensor<'a> {
        let mut out = self.arena.tensor(x.rows(), x.width());
        let Norm { weight, bias, epsilon } = norm;
        let width = weight.len();
        assert!(x.width().is_multiple_of(width), "a norm over {width} of {} values", x.width());
        for (x, out) in x.values().chunks_exact(width).zip(out.values_mut().chunks_exact_mut(width)) {
            match bias {
                None => ops::rms_norm(x, weight, *epsilon, out),
                Some(bias) => ops::layer_norm(x, weight, bias, *epsilon, out),
            }
        }
        out
    }

    /// Which experts each token goes through: the `used` of the largest `scores`, `[token][expert]`.
    ///
    /// [`Operations::end_route`] takes the routes back.
    pub(crate) fn route(&mut self, scores: Tensor<'_>, used: usize, normalized: bool) -> Routes {
        let mut routes = mem::take(self.routes);
        routes.choose(scores.values(), scores.width(), used, normalized);
        routes
    }

    /// Keeps the memory of routes for the next layer.
    pub(crate) fn end_route(&mut self, routes: Routes) {
        *self.routes = routes;
    }

    /// The rows of `x` that belong to the tokens of `routes`.
    pub(crate) fn gather(&mut self, x: &Tensor<'_>, routes: &[Route]) -> Tensor<'a> {
        let width = x.width();
        let mut out = self.arena.tensor(routes.len(), width);
        for (route, out) in routes.iter().zip(out.values_mut().chunks_exact_mut(width)) {
            out.copy_from_slice(&x.values()[route.token * width..][..width]);
        }
        out
    }

    /// x += weight · row, for each of `routes` and its row of `rows`.
    pub(crate) fn scatter(&mut self, x: &mut Tensor<'_>, rows: &Tensor<'_>, routes: &[Route]) {
        let width = x.width();
        for (route, row) in routes.iter().zip(rows.values().chunks_exact(width)) {
            let x = &mut x.values_mut()[route.token * width..][..width];
            x.iter_mut().zip(row).for_each(|(x, y)| *x += route.weight * y);
        }
    }

    /// The queries `[token][head][key_dim]`, keys `[token][kv_head][key_dim]` and values `[token][kv_head][value_dim]` of
    /// layer `layer`, from rows that hold them one after the other.
    pub(crate) fn split(&mut self, layer: usize, qkv: Tensor<'_>) -> [Tensor<'a>; 3] {
        let LayerShape { heads, kv_heads, key_dim, value_dim, .. } = self.layers[layer];
        let widths = [heads * key_dim, kv_heads * key_dim, kv_heads * value_dim];
        assert_eq!(qkv.width(), widths.iter().sum::<usize>(), "a row is queries, keys and values");
        let mut parts = widths.map(|width| self.arena.tensor(qkv.rows(), width));
        for (token, mut row) in qkv.values().chunks_exact(qkv.width()).enumerate() {
            for part in &mut parts {
                let width = part.width();
                let own;
                (own, row) = row.split_at(width);
                part.values_mut()[token * width..][..width].copy_from_slice(own);
            }
        }
        parts
    }

    /// Rotates queries or keys as layer `layer` does, which may be not at all.
    pub(crate) fn rotate(&mut self, layer: usize, heads: &mut Tensor<'_>) {
        let width = heads.width();
        self.angles.rotate(self.rotations, layer, heads.values_mut(), width);
    }

    /// Attention of layer `layer`, each sequence over its own cache: `[token][head][value_dim]`.
    pub(crate) fn attend(&mut self, layer: usize, q: Tensor<'_>, k: Tensor<'_>, v: Tensor<'_>) -> Tensor<'a> {
        let LayerShape { heads, value_dim, .. } = self.layers[layer];
        let mut out = self.arena.tensor(q.rows(), heads * value_dim);
        self.watch.lap(Part::Rest);
        self.attention.attend(layer, self.pool, [q.values(), k.values(), v.values()], out.values_mut());
        self.watch.skip();
        out
    }

    /// Ends the part of sequences whose residual stream `x` leaves layer `layer` with NaN or infinity.
    pub(crate) fn check(&mut self, layer: usize, x: &Tensor<'_>) {
        self.attention.check_rows(x.values(), x.width(), layer);
    }

    /// The rows of `x` whose logits `spans` are to give.
    pub(super) fn select(&mut self, x: &Tensor<'_>, spans: &[Span], first: usize) -> Tensor<'a> {
        let width = x.width();
        let mut out = self.arena.tensor(spans.iter().map(|span| span.logits.len()).sum(), width);
        let (mut end, mut filled) = (first, 0);
        for span in spans {
            end += span.len();
            let rows = &x.values()[(end - span.logits.len()) * width..end * width];
            out.values_mut()[filled..filled + rows.len()].copy_from_slice(rows);
            filled += rows.len();
        }
        out
    }

    /// Works out a product into `out`, `[row][output]`.
    pub(super) fn compute_into(&mut self, product: Product<'_>, out: &mut [f32]) {
        self.run(product, Output::Store(out));
    }

    /// x = factor · x, then cap · tanh(x / cap) if there is a cap.
    pub(super) fn finish_logits(&mut self, x: &mut [f32], factor: f32, cap: Option<f32>) {
        if factor != 1.0 {
            x.iter_mut().for_each(|x| *x *= factor);
        }
        if let Some(cap) = cap {
            x.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
        }
    }

    /// Ends the part of sequences whose logits, `[row][vocabulary]` of the whole batch, hold NaN or infinity.
    pub(super) fn check_logits(&mut self, logits: &[f32], vocabulary: usize) {
        self.attention.check_logits(logits, vocabulary);
    }

    /// Ends the pass: see [`Attention::finish`].
    pub(super) fn finish(self, failed: impl FnMut(usize, Fault)) {
        self.watch.lap(Part::Rest);
        self.attention.finish(self.pool, failed);
        self.watch.skip();
    }
}
