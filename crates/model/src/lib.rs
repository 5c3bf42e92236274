//! Decoder-only transformers over a bounded KV cache: GGUF and Hugging Face checkpoints, their tokenizers,
//! GPT-2 and the Llama family, sampling and generation.
//!
//! The way of the data: [`Model::load`] opens a GGUF file or a Hugging Face folder, [`Tokenizer::encode`] makes
//! tokens of text, [`Model::forward`] runs any number of sequences, each over its own
//! [`sketchkv_cache::Cache`], and gives logits; a [`Sampler`] picks a token; [`Generator`] does all of this
//! token by token.
#![warn(missing_docs)]

mod arch;
mod config;
mod error;
mod file;
mod forward;
mod generate;
mod model;
mod sampling;
mod stop;
mod tokenizer;
mod weights;

pub use config::{Architecture, Config};
pub use error::ModelError;
pub use file::{ElementType, EmbeddedFolder, GgufHeader, TensorEntry, Value, safetensors_entries};
pub use forward::{Logits, Outputs, Sequence, Workspace};
pub use generate::{Finish, GenerateOptions, Generator, Piece, Timing};
pub use model::{LoadOptions, Model, ModelFile, TensorInfo};
pub use sampling::{Sampler, Sampling};
pub use sketchkv_kernels::WeightFormat;
pub use tokenizer::{ChatMessage, TextStream, Tokenizer};
