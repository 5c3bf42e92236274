//! The networks: what all decoder-only transformers share here, the layers of each family in its own file, made of
//! parts that several have.

mod attention;
mod experts;
mod feed_forward;
mod gemma;
mod gpt2;
mod llama;
mod olmo2;

use crate::forward::{Operations, Product, Tensor};
use crate::weights::{Linear, Name, Norm, NormKind, Source, Weights};
use crate::{Architecture, Config, ModelError};
use sketchkv_kernels::Matrix;

/// One layer of an architecture.
pub(crate) trait Layer: Send + Sync {
    /// Runs layer `layer` of the network: what attention and the feed-forward add to the residual stream `x`.
    fn forward(&self, layer: usize, x: &mut Tensor<'_>, ops: &mut Operations<'_>);

    /// Its matrices.
    fn linears(&self) -> Vec<&Linear>;

    /// Its norms.
    fn norms(&self) -> Vec<&Norm>;

    /// The matrix that multiplies the output of attention.
    fn attention_output(&self) -> &Matrix;

    /// Bytes of its matrices that a token does not go through.
    fn idle_bytes(&self) -> usize {
        0
    }
}

/// What an architecture's file says of it.
struct Family {
    /// The embedding of tokens.
    tokens: Name,
    /// The embedding of positions, where they are learned.
    positions: Option<Name>,
    final_norm: (NormKind, Name),
    /// The projection to logits; tied to the embedding when absent.
    output: Name,
    load_layer: LoadLayer,
}

/// Loads a layer, by its index.
type LoadLayer = fn(&Config, &Weights<'_>, usize) -> Result<Box<dyn Layer>, ModelError>;

impl Architecture {
    /// The names of the embedding of tokens and of the projection to logits.
    pub(crate) fn embedding_names(self) -> [Name; 2] {
        let Family { tokens, output, .. } = self.family();
        [*tokens, *output]
    }

    fn family(self) -> &'static Family {
        match self {
            Architecture::Gpt2 => &gpt2::FAMILY,
            Architecture::Gemma2 | Architecture::Gemma3 => &gemma::FAMILY,
            Architecture::Olmo2 => &olmo2::FAMILY,
            _ => &llama::FAMILY,
        }
    }
}

/// A network of one of the architectures, its weights loaded.
pub(crate) struct Network {
    embedding: Embedding,
    layers: Vec<Box<dyn Layer>>,
    head: Head,
}

/// Where the residual stream begins.
pub(crate) struct Embedding {
    /// `[token][hidden]`
    pub(crate) tokens: Matrix,
    /// `[position][hidden]`
    pub(crate) positions: Option<Matrix>,
    /// Multiplies the embedding of a token.
    pub(crate) scale: f32,
}

/// Where it ends: the final norm and the projection to logits.
struct Head {
    norm: Norm,
    /// `None` when tied to the embedding.
    output: Option<Matrix>,
}

impl Network {
    pub(crate) fn load(config: &Config, weights: &Weights<'_>) -> Result<Network, ModelError> {
        let &Config { hidden, vocabulary, context, embedding_scale, .. } = config;
        let family = config.architecture.family();
        let table = |name, rows| weights.matrix(&[Source::new(name, rows)], 0, hidden);
        let network = Network {
            embedding: Embedding {
                tokens: table(family.tokens, vocabulary)?,
                positions: family.positions.map(|name| table(name, context)).transpose()?,
                scale: embedding_scale,
            },
            layers: (0..config.layers.len())
                .map(|layer| (family.load_layer)(config, weights, layer))
                .collect::<Result<_, _>>()?,
            head: Head {
                norm: weights.norm(family.final_norm.0, family.final_norm.1, 0, hidden)?,
                output: (!config.tied_embeddings).then(|| table(family.output, vocabulary)).transpose()?,
            },
        };
        weights.check_all_used(config)?;
        Ok(network)
    }

    /// Runs the tokens of a pass through all layers; the residual stream `[token][hidden]` that comes out.
    pub(crate) fn forward<'a>(&self, ops: &mut Operations<'a>) -> Tensor<'a> {
        let Embedding { tokens, positions, scale } = &self.embedding;
        let mut x = ops.embed_tokens(tokens);
        ops.scale(&mut x, *scale);
        if let Some(table) = positions {
            let positions = ops.embed_positions(table);
            ops.add(&mut x, &positions);
        }
        for (index, layer) in self.layers.iter().enumerate() {
            layer.forward(index, &mut x, ops);
            ops.check(index, &x);
        }
        x
    }

    /// The logits `[token][vocabulary]` of the residual stream `x`, before any softcap.
    pub(crate) fn logits<'a>(&'a self, x: &'a Tensor<'_>) -> Product<'a> {
        let matrix = self.head.output.as_ref().unwrap_or(&self.embedding.tokens);
        Product::without_bias(matrix, self.head.norm.of(x))
    }

    /// The output projections of attention, by layer.
    pub(crate) fn attention_outputs(&self) -> impl Iterator<Item = &Matrix> {
        self.layers.iter().map(|layer| layer.attention_output())
    }

    /// Bytes of the weights in memory.
    pub(crate) fn bytes(&self) -> usize {
        let Network { embedding: Embedding { tokens, positions, .. }, layers, head } = self;
        let tables = [Some(tokens), positions.as_ref(), head.output.as_ref()];
        let layer = |layer: &dyn Layer| {
            let linears: usize = layer.linears().into_iter().map(Linear::bytes).sum();
            linears + layer.norms().into_iter().map(Norm::bytes).sum::<usize>()
        };
        tables.into_iter().flatten().map(Matrix::bytes).sum::<usize>()
            + layers.iter().map(|l| layer(&**l)).sum::<usize>()
            + head.norm.bytes()
    }

    /// Bytes of the weights that the products of one token read: all but the tables of which a token takes a row.
    pub(crate) fn step_bytes(&self) -> usize {
        let Embedding { tokens, positions, .. } = &self.embedding;
        let tokens = if self.head.output.is_some() { tokens.bytes() } else { 0 };
        let idle: usize = self.layers.iter().map(|layer| layer.idle_bytes()).sum();
        self.bytes() - tokens - positions.as_ref().map_or(0, Matrix::bytes) - idle
    }
}
