use crate::{Config, Logits, ModelError, Sequence, Tokenizer, Workspace};
use sketchkv_cache::CacheShape;
use sketchkv_kernels::ThreadPool;
use std::path::Path;

/// How weights are held in memory and multiplied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// As in the file, multiplied with quantized activations where the blocks allow it.
    #[default]
    Native,
    /// Dequantized to f32, multiplied with f32 activations: the reference.
    F32,
    /// Requantized to blocks of 32 eight-bit integers at load.
    Q8,
}

/// How to load a model.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadOptions {
    /// How weights are held.
    pub weights: WeightFormat,
    /// Threads of the engine's pool, the caller's included; 0 takes one per core available to the process.
    pub threads: usize,
    /// Most tokens that one pass through the layers takes; longer inputs are cut. 512 unless set.
    pub chunk: usize,
    /// Lets RoPE models go past their context, for streaming; refused for learned positions.
    pub beyond_context: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions { weights: WeightFormat::Native, threads: 0, chunk: 512, beyond_context: false }
    }
}

/// One tensor of a model file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// Its shape, rows first.
    pub shape: Vec<usize>,
    /// Its element or block format, as the file format names it: `Q4_1`, `F16`, …
    pub format: String,
    /// Bytes it takes in the file.
    pub bytes: usize,
}

/// A model file or folder that is opened and checked, its weights not yet loaded.
pub struct ModelFile {
    config: Config,
    tensors: Vec<TensorInfo>,
}

impl ModelFile {
    /// Opens a GGUF file or a Hugging Face folder and reads everything but the weights.
    pub fn open(path: &Path) -> Result<ModelFile, ModelError> {
        Err(ModelError::Unsupported(format!("{}: no loader", path.display())))
    }

    /// The numbers that define the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Every tensor of the file, in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tokenizer of the file or folder.
    pub fn tokenizer(&self) -> Result<Tokenizer, ModelError> {
        Err(ModelError::Unsupported("no tokenizer".into()))
    }

    /// A SHA-256 over the file's size, header and sampled bytes, in hexadecimal: names the weights in results.
    pub fn content_hash(&self) -> Result<String, ModelError> {
        Err(ModelError::Unsupported("no hash".into()))
    }
}

/// A model ready to run.
pub struct Model {
    config: Config,
    tokenizer: Tokenizer,
    pool: ThreadPool,
}

impl Model {
    /// Loads a GGUF file or a Hugging Face folder.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Model, ModelError> {
        let file = ModelFile::open(path)?;
        Ok(Model {
            config: file.config.clone(),
            tokenizer: file.tokenizer()?,
            pool: ThreadPool::new(options.threads),
        })
    }

    /// The numbers that define the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What a cache for this model needs to know.
    pub fn cache_shape(&self) -> CacheShape {
        self.config.cache_shape()
    }

    /// The threads that run the model.
    pub fn pool(&self) -> &ThreadPool {
        &self.pool
    }

    /// Every tensor of the file the model came from, in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &[]
    }

    /// Bytes the weights take in memory.
    pub fn weight_bytes(&self) -> usize {
        0
    }

    /// A SHA-256 over the file's size, header and sampled bytes, in hexadecimal: names the weights in results.
    pub fn content_hash(&self) -> Result<String, ModelError> {
        Err(ModelError::Unsupported("no hash".into()))
    }

    /// Runs the tokens of every sequence of the batch over its cache and advances the caches.
    ///
    /// Returns `[sequence][vocabulary]` for [`Logits::Last`], `[token][vocabulary]` with the tokens of all
    /// sequences in order for [`Logits::All`], nothing for [`Logits::None`].
    pub fn forward<'w>(
        &self,
        batch: &mut [Sequence<'_>],
        workspace: &'w mut Workspace,
        want: Logits,
    ) -> Result<&'w [f32], ModelError> {
        let _ = (batch, want);
        Ok(workspace.logits())
    }
}
