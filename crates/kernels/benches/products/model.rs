//! The products of SmolLM2-135M, without the rest of the model.

use sketchkv_kernels::{
    Activations, BlockFormat, Input, Matrix, Output, ProductWorkspace, ThreadPool, WeightFormat,
};

const HIDDEN: usize = 576;
const QKV: usize = 960;
const FEED_FORWARD: usize = 1536;
const LAYERS: usize = 30;
const VOCABULARY: usize = 49152;

struct Layer {
    qkv: Matrix,
    output: Matrix,
    gate_up: Matrix,
    down: Matrix,
}

/// All matrices, and the threads that multiply them.
pub(crate) struct Model {
    layers: Vec<Layer>,
    head: Matrix,
    /// Runs the products.
    pub(crate) pool: ThreadPool,
}

/// Buffers of one forward pass over some tokens.
pub(crate) struct Pass {
    workspace: ProductWorkspace,
    norm: Vec<f32>,
    residual: Vec<f32>,
    qkv: Vec<f32>,
    gate_up: Vec<f32>,
    logits: Vec<f32>,
}

/// Blocks of one byte pattern; products take the same time whatever the weights are.
pub(crate) fn matrix(format: BlockFormat, rows: usize, cols: usize, pool: &ThreadPool) -> Matrix {
    let bytes = vec![0x1c; format.row_bytes(cols).expect("whole blocks") * rows];
    Matrix::from_blocks(format, rows, cols, &bytes, WeightFormat::Native, pool).expect("finite weights")
}

impl Model {
    pub(crate) fn new(format: BlockFormat, head: BlockFormat) -> Model {
        let threads = std::env::var("SKETCHKV_THREADS").ok().and_then(|t| t.parse().ok()).unwrap_or(2);
        let pool = ThreadPool::new(threads);
        // As models have them: 16 bits but behind attention.
        let fine =
            |format, rows, cols| matrix(format, rows, cols, &pool).with_activations(Activations::Bits16);
        let layer = |_| Layer {
            qkv: fine(format, QKV, HIDDEN),
            output: matrix(format, HIDDEN, HIDDEN, &pool),
            gate_up: fine(format, 2 * FEED_FORWARD, HIDDEN),
            down: fine(format, HIDDEN, FEED_FORWARD),
        };
        let layers = (0..LAYERS).map(layer).collect();
        Model { layers, head: fine(head, VOCABULARY, HIDDEN), pool }
    }

    pub(crate) fn bytes(&self) -> usize {
        let layer = |l: &Layer| l.qkv.bytes() + l.output.bytes() + l.gate_up.bytes() + l.down.bytes();
        self.layers.iter().map(layer).sum::<usize>() + self.head.bytes()
    }

    /// All products of a forward pass over `tokens` tokens, with the logits of the last; attention left out.
    pub(crate) fn forward(&self, pass: &mut Pass, tokens: usize) {
        let Pass { workspace, norm, residual, qkv, gate_up, logits } = pass;
        fn normed<'a>(x: &'a [f32], weight: &'a [f32]) -> Input<'a> {
            Input::RmsNorm { x, weight, eps: 1e-5 }
        }
        let pool = &self.pool;
        for layer in &self.layers {
            layer.qkv.apply(pool, normed(residual, norm), tokens, None, Output::Store(qkv), workspace);
            let attended = &qkv[..tokens * HIDDEN];
            layer.output.apply(
                pool,
                Input::Plain(attended),
                tokens,
                None,
                Output::AddTo(residual),
                workspace,
            );
            layer.gate_up.apply(
                pool,
                normed(residual, norm),
                tokens,
                None,
                Output::Store(gate_up),
                workspace,
            );
            layer.down.apply(pool, Input::SiluMul(gate_up), tokens, None, Output::AddTo(residual), workspace);
        }
        let last = &residual[(tokens - 1) * HIDDEN..];
        self.head.apply(pool, normed(last, norm), 1, None, Output::Store(logits), workspace);
    }
}

impl Pass {
    pub(crate) fn new(tokens: usize) -> Pass {
        Pass {
            workspace: ProductWorkspace::new(),
            norm: vec![1e-3; HIDDEN],
            residual: (0..tokens * HIDDEN).map(|i| (i as f32).sin()).collect(),
            qkv: vec![0.0; tokens * QKV],
            gate_up: vec![0.0; tokens * 2 * FEED_FORWARD],
            logits: vec![0.0; VOCABULARY],
        }
    }
}
