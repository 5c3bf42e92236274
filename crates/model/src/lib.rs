//! Decoder-only transformers over a bounded KV cache: GGUF and Hugging Face checkpoints, their tokenizers,
//! GPT-2 and the Llama family, and sampling.
//!
//! The way of the data: [`Model::load`] opens a GGUF file or a Hugging Face folder, [`Tokenizer::encode`] makes
//! tokens of text, [`Model::forward`] runs any number of sequences, each over its own
//! [`sketchkv_cache::Cache`], and gives logits; a [`Sampler`] picks a token.
#![warn(missing_docs)]

mod arch;
mod config;
mod error;
mod file;
mod forward;
mod model;
mod sampling;
mod tokenizer;
mod weights;

pub use config::{Architecture, Config};
pub use error::ModelError;
pub use file::{ElementType, EmbeddedFolder, GgufHeader, TensorEntry, Value, safetensors_entries};
pub use forward::{Logits, Outputs, Sequence, Workspace};
pub use model::{LoadOptions, Model, ModelFile, TensorInfo};
pub use sampling::{SampleError, Sampler, SamplerState, Sampling, TokenLogprobs, logprobs};
pub use sketchkv_kernels::{Activations, WeightFormat};
pub use tokenizer::{ChatMessage, ChatRequest, ChatTemplate, TextStream, Tokenizer};
