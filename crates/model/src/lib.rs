//! Decoder-only transformers over a bounded KV cache: GGUF and Hugging Face checkpoints, their tokenizers,
//! GPT-2 and the Llama family, sampling and generation.
//!
//! The way of the data: [`Model::load`] opens a GGUF file or a Hugging Face folder, [`Tokenizer::encode`] makes
//! tokens of text, [`Model::forward`] runs any number of sequences, each over its own
//! [`sketchkv_cache::Cache`], and gives logits; a [`Sampler`] picks a token; [`Generator`] does all of this
//! token by token.
#![warn(missing_docs)]

mod config;
mod error;
mod forward;
mod generate;
mod model;
mod sampling;
mod tokenizer;

pub use config::{Architecture, Config};
pub use error::ModelError;
pub use forward::{Logits, Sequence, Workspace};
pub use generate::{Finish, GenerateOptions, Generator, Piece, Timing};
pub use model::{LoadOptions, Model, ModelFile, TensorInfo, WeightFormat};
pub use sampling::{Sampler, Sampling};
pub use tokenizer::{ChatMessage, TextStream, Tokenizer};
